"""The house: doors between rooms, and what every room says of itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "poise"
ROOMS = [
    "attacks",
    "commands",
    "core",
    "data",
    "evaluation",
    "models",
    "objectives",
    "reporting",
    "schedules",
    "training",
]


def test_there_are_no_other_rooms():
    found = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
    assert found == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_holds_and_where_to_start(room):
    told = ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8")))
    assert told is not None
    assert "Start with" in told


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_has_a_docstring_and_a_telling_name(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert path.stem not in {"utils", "helpers", "misc", "common"}


def test_core_needs_neither_timm_nor_plotly_nor_accelerate():
    code = (
        "import sys, poise.core.norms, poise.attacks, poise.schedules\n"
        "heavy = {'timm', 'plotly', 'accelerate', 'torchvision', 'datasets', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_doors_are_kept():
    """The same contracts as in `make check`, so that the tests alone notice a wrong import."""
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([linter], cwd=SOURCE.parents[1], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
