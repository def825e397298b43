"""The house: imports point down only, rooms of one floor do not know each other, files stay readable."""

from __future__ import annotations

import ast
from pathlib import Path

import gradus

PACKAGE = Path(gradus.__file__).parent
FLOORS = {
    "core": 0,
    "nn": 1, "tokenizers": 1, "distributed": 1,
    "objectives": 2, "families": 2, "data": 2, "optim": 2,
    "training": 3, "evaluation": 3,
    "cli": 4, "pipeline": 4, "report": 4,
}  # fmt: skip
ALLOWED = {("cli", "pipeline"), ("cli", "report")}
"""The arrows between rooms of one floor."""
PIPELINE = {
    "recipes": 0,
    "models": 1, "looking": 1, "worked": 1,
    "planning": 2,
    "running": 3,
    "loops": 4,
    "run": 5, "check": 6, "rates": 7,
}  # fmt: skip
"""The floors within the pipeline, the largest of the rooms."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
SURFACE = {"gradus", "gradus.pipeline"}
"""`gradus/__init__.py` names what users import, lazily."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, within: str = "gradus") -> set[str]:
    """The rooms of the package `within` that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    inside = (name.removeprefix(f"{within}.") for name in names if name.startswith(f"{within}."))
    return {name.split(".")[0] for name in inside}


def test_imports_point_down() -> None:
    wrong = []
    for path in files():
        here = room(path)
        if here == "__init__":
            continue
        for there in imported(path) - {here}:
            if (here, there) not in ALLOWED and FLOORS[there] >= FLOORS[here]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {there}")
    assert not wrong


def test_imports_point_down_within_the_pipeline() -> None:
    wrong, rooms = [], set()
    for path in sorted((PACKAGE / "pipeline").rglob("*.py")):
        here = path.relative_to(PACKAGE / "pipeline").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        rooms.add(here)
        for there in imported(path, "gradus.pipeline") - {here}:
            if PIPELINE[there] >= PIPELINE[here]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {there}")
    assert not wrong
    assert rooms == set(PIPELINE)


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in files()} - {"__init__"} == set(FLOORS)


def test_files_and_functions_stay_readable() -> None:
    long = []
    for path in files():
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > LONGEST_FILE:
            long.append(f"{path.relative_to(PACKAGE)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > LONGEST_FUNCTION:
                long.append(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert not long


def test_every_file_tells_its_story_first() -> None:
    assert [
        path for path in files() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ] == []


def test_law_9_nothing_executes_what_a_file_holds() -> None:
    forbidden = (
        "import pickle",
        "torch.load",
        "yaml.load(",
        "yaml.unsafe",
        "eval(",
        "exec(",
        "allow_pickle=True",
    )
    guilty = []
    for path in files():
        text = path.read_text(encoding="utf-8").replace(".eval()", "").replace("def eval(", "")
        guilty += [f"{path.name}: {word}" for word in forbidden if word in text]
    assert not guilty
