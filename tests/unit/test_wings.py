"""The order of the wings: who may import whom, and how large wings and files may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pbeauty

PACKAGE = Path(pbeauty.__file__).parent
WINGS = ("cli", "job", "plots", "analysis", "llm", "storage", "mpi", "config", "game")
FREE = ("files", "errors", "program")
"""Modules of the package itself that everybody may import."""
ORDER = (*WINGS, *FREE)
"""From the top: each imports itself and what comes after it."""
ENTRIES = ("__init__", "__main__")
"""Modules of the package itself, which hand on to a wing."""
APART = "demo"
MOST_FILES = 12
MOST_LINES = 400

SOURCES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """The wing that a file belongs to, or the module's name where it is in none."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Each import of this package in a file, wherever it stands: its line and what of the package is meant."""
    inside = ("pbeauty", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(inside[: len(inside) - node.level + 1]) + "." if node.level else ""
            module = f"{start}{node.module or ''}".strip(".")
            names = [f"pbeauty.{alias.name}" for alias in node.names] if module == "pbeauty" else [module]
        for name in names:
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if package == "pbeauty" and ((PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").exists()):
                yield node.lineno, target if target else "__init__"


def test_every_module_is_in_a_wing():
    strays = [path.name for path in PACKAGE.glob("*.py") if path.stem not in (*ENTRIES, *FREE)]
    folders = [path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    assert not strays
    assert sorted(folders) == sorted((*WINGS, APART))


@pytest.mark.parametrize("wing", ORDER)
def test_no_import_goes_upwards(wing):
    allowed = ORDER[ORDER.index(wing) :]
    assert not [
        f"{path.relative_to(PACKAGE)}:{line} imports {target}"
        for path in SOURCES
        if place(path) == wing
        for line, target in imported(path)
        if target not in allowed
    ]


def test_the_demo_model_is_imported_by_nothing():
    assert not [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in SOURCES
        if place(path) != APART
        for line, target in imported(path)
        if target == APART
    ]


@pytest.mark.parametrize("wing", WINGS)
def test_wings_stay_small(wing):
    files = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted((PACKAGE / wing).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert len(files) <= MOST_FILES, files


def test_files_stay_short():
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


def test_no_two_files_of_tests_have_one_name():
    """Test modules are imported by their name alone."""
    names = [path.stem for path in Path(__file__).parents[1].rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
