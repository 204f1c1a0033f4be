"""The house rules: who may import whom, and how long a file and a function may be."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support.runs import ROOT

FILES = sorted((ROOT / "ddoq").rglob("*.py"))
SCIENCE = {"data", "encoders", "quantizers", "generators", "labelers", "students", "evaluation"}
SCIENCE |= {"distillers", "guidances", "selections"}
BASE = {"utils", "errors", "options"}

#: What a room may import from the others. `run` and `job` may import everything.
ROOMS = {
    "errors": set(),
    "options": {"errors"},
    "utils": {"errors"},
    "help": BASE | {"config"},
    "pipeline": BASE,
    "config": BASE | {"pipeline"},
    **{room: BASE | {"data", room} for room in SCIENCE},
    "generators": BASE | {"data", "encoders", "guidances"},
    "evaluation": BASE | {"data", "quantizers"},
    "selections": BASE | {"quantizers"},
    "distillers": BASE | {"data", "evaluation", "labelers", "quantizers"},
    "engine": BASE | SCIENCE,
    "tracking": BASE | {"config"},
    "experiment": BASE | {"config", "data", "generators", "pipeline"},
    "report": BASE
    | {"config", "data", "pipeline", "evaluation", "experiment", "stages", "tracking"},
    "watch": BASE | {"pipeline"},
    "stages": BASE | SCIENCE | {"engine", "config", "pipeline", "experiment"},
    "preflight": BASE | {"config", "data", "evaluation", "experiment", "pipeline", "stages"},
    "sweeps": BASE | {"config", "pipeline", "report", "watch", "job", "preflight"},
}
LIBRARIES = {
    "hydra": {"config", "run", "notebook", "sweeps"},
    "omegaconf": {"config", "run", "notebook", "sweeps"},
    "lightning": {"engine"},
    "wandb": {"tracking"},
}
NO_TORCH = {
    "config",
    "experiment",
    "help",
    "pipeline",
    "options",
    "preflight",
    "report",
    "tracking",
    "run",
    "job",
    "sweeps",
    "watch",
}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "ddoq").with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_only_what_lies_below_them(path):
    mine = room(path)
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top == "ddoq" and rest and mine in ROOMS:
            other = rest.split(".")[0]
            assert other == mine or other in ROOMS[mine], f"{mine} imports {module}"
        if top in LIBRARIES:
            assert mine in LIBRARIES[top], f"{mine} imports {module}"
        if top == "torch":
            assert mine not in NO_TORCH, f"{mine} imports {module}"


def module_of(path: Path) -> str:
    """Return the name by which a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_files(path: Path) -> set[str]:
    """Return the modules of ddoq that a file imports, wherever in it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= inner & MODULES or {node.module}
    return modules & MODULES - {module_of(path)}


MODULES = {module_of(path) for path in FILES}


def test_no_file_imports_itself_by_way_of_others():
    sorter = TopologicalSorter({module_of(path): imported_files(path) for path in FILES})
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_few_imports_hide_in_functions():
    hidden = 0
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                hidden += sum(
                    isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function)
                )
    assert hidden <= 51


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_fit_in_the_head(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 65, node.name
            if not node.name.startswith("_") and node.end_lineno - node.lineno > 8:
                assert ast.get_docstring(node), f"{node.name} has no docstring"
