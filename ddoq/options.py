"""What constructors say of their options beside type and default: choices, ranges, who sets them.

A component's constructor is the one place where its options stand. ``ddoq.config.constructors``
reads it for the configuration, ``check_options`` holds an object to it. Everything that a
constructor takes is an option, unless it says otherwise by one of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from ddoq.errors import ConfigError, did_you_mean

T = TypeVar("T")

#: What annotations are marked with.
GIVEN, DECIDED, FILE = "given", "decided", "file"

#: ``Given[int]``: the run gives it; no configuration does.
Given = Annotated[T, GIVEN]
#: ``Decided[int]``: ``null`` in a configuration until a rule or a stage decides it.
Decided = Annotated[T, DECIDED]
#: ``FileOf[Sequence[str]]``: a configuration names a file, the run gives what it holds.
FileOf = Annotated[T, FILE]
#: ``fit: OfStages[VAEFit]`` in the body of a class: an option that stages read, and that the
#: constructor does not take.
OfStages = ClassVar


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds. ``ends``: a round bracket leaves its bound out."""

    low: float
    high: float = math.inf
    ends: str = "[)"

    def __contains__(self, value: float) -> bool:
        above = value > self.low or (value == self.low and self.ends[0] == "[")
        return above and (value < self.high or (value == self.high and self.ends[1] == "]"))

    def __str__(self) -> str:
        return f"{self.ends[0]}{self.low:g}, {self.high:g}{self.ends[1]}"

    @property
    def words(self) -> str:
        """What the numbers are called."""
        if math.isfinite(self.high):
            return f"in {self}"
        return "0 or more" if 0 in self else "positive"


@dataclass(frozen=True)
class Unused:
    """Of an inherited option: ``why`` it has to stay at 0, and what takes it ``instead``."""

    why: str
    instead: str


PositiveInt = Annotated[int, Range(0, ends="()")]
PositiveFloat = Annotated[float, Range(0, ends="()")]
NotNegativeInt = Annotated[int, Range(0)]
NotNegativeFloat = Annotated[float, Range(0)]
#: A share that is less than all.
Fraction = Annotated[float, Range(0, 1)]
#: A share that may be all, and may be nothing.
Share = Annotated[float, Range(0, 1, "[]")]
#: A share that may be all, and is something.
PositiveShare = Annotated[float, Range(0, 1, "(]")]

Precision = Literal["float32", "bfloat16", "float16"]
#: In which latents are kept on disk.
Storage = Literal["float32", "float16"]
#: Of distilled images: ``soft``: a teacher labels every view; ``stored``: the same, written to disk
#: first; ``fixed``: a teacher labels every image once.
Labels = Literal["hard", "soft", "stored", "fixed"]
#: What stands for a cell that was found in another space than that of the latents.
Representative = Literal["mean", "nearest"]


def breaches(value: Any, annotation: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield cause and remedy of whatever an annotation says and a value does not keep.

    Args:
        value: of the annotation's type, or ``None``.
        annotation: with its ``Literal`` and ``Range``, which may stand inside lists and unions.
        path: where the value stands.
    """
    if value is None:
        return
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        for mark in inner[1:]:
            if isinstance(mark, Range) and value not in mark:
                yield _outside(value, mark, path)
            if isinstance(mark, Unused) and value:
                yield f"{path}: {value}, and {mark.why}", f"set {path}=0, or take {mark.instead}"
        # Sections say ``Annotated[str, Literal[...]]``: OmegaConf knows no ``Literal``.
        for part in inner:
            yield from breaches(value, part, path)
    elif get_origin(annotation) is Literal:
        if value not in inner:
            yield f"{path}: '{value}' is not known", did_you_mean(str(value), map(str, inner))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from (problem for part in inner for problem in breaches(item, part, path))
    else:
        yield from (problem for part in inner for problem in breaches(value, part, path))


def _outside(value: float, bounds: Range, path: str) -> tuple[str, str]:
    if math.isfinite(bounds.high):
        return f"{path}: {value} is outside {bounds}", f"set {path} to a number in {bounds}"
    if 0 in bounds:
        return f"{path}: {value} is negative", f"set {path} to 0 or more"
    return f"{path}: {value} is not positive", f"set {path} to 1 or more"


def check_options(component: Any, group: str) -> None:
    """Raise ConfigError for the first field of a dataclass that is outside its choices or range.

    Args:
        component: an object of that dataclass.
        group: of components that it belongs to, for the error's path.
    """
    hints = get_type_hints(type(component), include_extras=True)
    for name in (field.name for field in fields(component)):
        for problem in breaches(getattr(component, name), hints[name], f"{group}.{name}"):
            raise ConfigError(*problem)


def choices_of(annotation: Any) -> tuple:
    """Return the values that a ``Literal`` in an annotation allows; nothing where there is none."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((c for inner in get_args(annotation) if (c := choices_of(inner))), ())


def range_of(annotation: Any) -> Range | None:
    """Return the range in an annotation, if there is one."""
    if isinstance(annotation, Range):
        return annotation
    return next((r for inner in get_args(annotation) if (r := range_of(inner))), None)
