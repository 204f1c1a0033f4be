"""Which options a class takes, read from its source: nothing of it is imported, nor is torch.

A constructor is the one place where a component's options stand. The fields of a dataclass, or else
the parameters of ``__init__``, are options, unless ``ddoq.options`` marks them as ``Given``.
"""

from __future__ import annotations

import ast
import inspect
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ddoq import options

#: What stands for a value that has to be given.
MISSING = "???"
_PACKAGE = Path(__file__).resolve().parents[1]
_SECTION = re.compile(r"^(?:Args|Attributes):\n((?: {4}.*\n?)+)", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """An option of a class.

    Attributes:
        name: of the field or parameter.
        annotation: of it, with choices and ranges; see ``ddoq.options.breaches``.
        default: plain data; ``MISSING`` where there is none.
        words: what the docstring says of it.
    """

    name: str
    annotation: Any
    default: Any
    words: str

    @property
    def kind(self) -> Any:
        """The type of its values in a configuration: plain data, or a ``Constructor``."""
        return plain(self.annotation)

    @property
    def choices(self) -> list[str]:
        """The values that it may have, where they are listed."""
        return list(map(str, options.choices_of(self.annotation)))


@dataclass(frozen=True)
class Constructor:
    """What a class says of itself.

    Attributes:
        target: its dotted path.
        words: the first paragraph of its docstring.
        options: by name, those of base classes first.
        given: names of what the run gives it.
    """

    target: str
    words: str
    options: Mapping[str, Option]
    given: frozenset[str]

    def kinds(self) -> dict[str, Any]:
        """Return the types of the values of its options."""
        return {name: option.kind for name, option in self.options.items()}

    def defaults(self) -> dict[str, Any]:
        """Return the defaults of its options."""
        return {name: option.default for name, option in self.options.items()}


@cache
def constructor(target: str) -> Constructor:
    """Return what a class of ddoq's says of itself.

    Args:
        target: its dotted path, as it is imported.
    """
    module, node = _found(*target.rpartition(".")[::2])
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    first = _in_words(text.partition("\n\n")[0])
    options = {option.name: option for option in _options(module, node)}
    return Constructor(target, first, options, frozenset(_given(module, node)))


def plain(annotation: Any) -> Any:
    """Return the type that values of an annotation have in a configuration."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind = str if options.FILE in inner else plain(inner[0])
        return kind | None if options.DECIDED in inner else kind
    if origin is Literal:
        return type(inner[0])
    if origin in (Union, UnionType):
        return reduce(operator.or_, map(plain, inner))
    return list[plain(inner[0])] if origin is list else annotation


def _options(module: str, node: ast.ClassDef) -> Iterator[Option]:
    """Yield the options of a class; a later one of the same name is the one that holds."""
    words = _words(node)
    init = _init(node)
    inherited = [option for base in _bases(module, node) for option in _options(*base)]
    yield from (replace(o, words=words.get(o.name, o.words)) for o in inherited)
    names = _Names(module)
    for name, stated, default in [*_stated(node, init), *_of_stages(node)]:
        if _outermost(stated) not in ("Given", "ClassVar", "KW_ONLY"):
            annotation = _evaluated(stated, names)
            value = _default(annotation, default, names)
            yield Option(name, annotation, value, words.get(name, ""))


def _given(module: str, node: ast.ClassDef) -> Iterator[str]:
    """Yield the names of what is no option, but the run's to give."""
    for base in _bases(module, node):
        yield from _given(*base)
    for name, stated, _ in _stated(node, _init(node)):
        if _outermost(stated) == "Given":
            yield name


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((item for item in node.body if getattr(item, "name", "") == "__init__"), None)


def _bases(module: str, node: ast.ClassDef) -> list[tuple[str, Any]]:
    """Return the bases of ddoq's whose options a class takes over: none with an ``__init__``."""
    if _init(node) is not None:
        return []
    bases = [_found(module, base.id) for base in node.bases if isinstance(base, ast.Name)]
    return [base for base in bases if base]


def _stated(node: ast.ClassDef, init: Any) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    """Yield name, annotation and default of the parameters of a class, or of its fields."""
    if init is not None:
        positional, by_name = init.args.args[1:], init.args.kwonlyargs
        lacking = [None] * (len(positional) - len(init.args.defaults))
        defaults = [*lacking, *init.args.defaults, *init.args.kw_defaults]
        for parameter, default in zip([*positional, *by_name], defaults, strict=True):
            yield parameter.arg, parameter.annotation, default
    elif any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and _outermost(field.annotation) != "OfStages":
                yield field.target.id, field.annotation, field.value


def _of_stages(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    """Yield what ``_stated`` does of the options that stages read."""
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and _outermost(field.annotation) == "OfStages":
            yield field.target.id, field.annotation.slice, field.value


def _outermost(annotation: ast.expr) -> str:
    """Return the name of an annotation, without what is in square brackets."""
    return getattr(getattr(annotation, "value", annotation), "id", "")


def _default(annotation: Any, node: ast.expr | None, names: _Names) -> Any:
    """Return a default as plain data."""
    if isinstance(annotation, Constructor):
        return annotation.defaults()
    if node is None:
        return None if options.DECIDED in get_args(annotation) else MISSING
    value = _evaluated(node, names)
    return list(value) if isinstance(value, tuple) else value


# --- source --------------------------------------------------------------------------------------


@cache
def _definitions(module: str) -> dict[str, Any]:
    """Return what a module of ddoq's defines at its top: classes and values as they stand there,
    and of what it imports by name the other module and the name there.
    """
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    defined: dict[str, Any] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            defined |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined[node.targets[0].id] = node.value
    return defined


def _found(module: str, name: str) -> tuple[str, Any] | None:
    """Return the module of ddoq's that defines what another one names so, and the definition."""
    definition = _definitions(module).get(name)
    if isinstance(definition, tuple):
        source, original = definition
        return _found(source, original) if source.startswith("ddoq.") else None
    return None if definition is None else (module, definition)


class _Names(dict):
    """The names that a module's annotations and defaults use. A type from elsewhere is ``Any``."""

    _COMMON = {
        **{kind.__name__: kind for kind in (int, float, str, bool, list, dict)},
        **{"Sequence": list, "Mapping": dict, "Any": Any, "Literal": Literal},
        **{"Annotated": Annotated, "MISSING": MISSING},
        **{name: getattr(options, name) for name in vars(options) if name[0].isupper()},
    }

    def __init__(self, module: str):
        super().__init__(self._COMMON, field=_field)
        self._module = module

    def __missing__(self, name: str) -> Any:
        place = _found(self._module, name)
        if place is None:
            return Any
        module, definition = place
        if isinstance(definition, ast.ClassDef):
            return constructor(f"{module}.{name}")
        return _evaluated(definition, _Names(module))


def _evaluated(node: ast.expr, names: _Names) -> Any:
    """Return what an annotation or a default stands for, as far as those of constructors go."""
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return names[name]
        case ast.Attribute():  # ``nn.Module``
            return Any
        case ast.Tuple(items):
            return tuple(_evaluated(item, names) for item in items)
        case ast.UnaryOp(ast.USub(), operand):
            return -_evaluated(operand, names)
        case ast.BinOp(left, ast.BitOr(), right):
            return _evaluated(left, names) | _evaluated(right, names)
        case ast.Subscript(value, inner):
            return _evaluated(value, names)[_evaluated(inner, names)]
        case ast.Call(called, arguments, keywords):
            by_name = {word.arg: _evaluated(word.value, names) for word in keywords}
            return _evaluated(called, names)(*(_evaluated(a, names) for a in arguments), **by_name)
    raise ValueError(f"{ast.unparse(node)} is no annotation or default that is read here")


def _field(default: Any = MISSING, default_factory: Any = None, **_: Any) -> Any:
    return default if default_factory is None else default_factory()


def _words(node: ast.ClassDef) -> dict[str, str]:
    """Return what a docstring says of each argument or attribute."""
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    entries = [
        entry.partition(": ")
        for section in _SECTION.findall(text)
        for entry in re.split(r"\n(?= {4}\S)", section)
    ]
    return {
        name.strip(): _in_words(words) for names, _, words in entries for name in names.split(",")
    }


def _in_words(text: str) -> str:
    """Return a text of a docstring as a line for users, who write ``null``."""
    return " ".join(text.split()).replace("``None``", "null").replace("``", "")
