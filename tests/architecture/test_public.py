"""What `poise` itself offers: the same names at run time, to a type checker and to a person at a prompt."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import poise
from poise.commands.verbs import VERBS

SOURCE = Path(poise.__file__)


def _for_type_checkers() -> dict[str, str]:
    """Names that a type checker sees, with the modules they come from; those that it takes as re-exported."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {name.asname: node.module for node in imports for name in node.names if name.asname == name.name}


def test_what_can_be_imported_is_what_type_checkers_and_prompts_see():
    assert _for_type_checkers() == poise._HOMES
    assert sorted(poise.__all__) == sorted(_for_type_checkers())
    assert dir(poise) == sorted([*poise.__all__, "__version__"])


@pytest.mark.parametrize("name", poise.__all__)
def test_a_public_name_is_what_it_says(name):
    assert getattr(poise, name).__name__ == name


def test_every_verb_is_public():
    assert set(VERBS) <= set(poise.__all__)


@pytest.mark.parametrize("name", ["nothing", "Momentum"])
def test_other_names_are_refused(name):
    with pytest.raises(AttributeError, match=f"module 'poise' has no attribute '{name}'"):
        getattr(poise, name)


def test_importing_poise_and_listing_its_names_loads_no_room():
    code = (
        "import sys, poise\n"
        "dir(poise)\n"
        "sys.exit(', '.join(name for name in sys.modules if name.startswith('poise.') or name == 'torch') or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
