"""No member of a family is forgotten anywhere: what CONTRIBUTING.md lists for a new one is asked of every one."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import poise
from poise.commands.finetune import finetune
from poise.commands.mix import mix
from poise.commands.recipe import FAMILIES, members
from poise.commands.update import update

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = {
    "schedule": "schedules",
    "attack": "objectives",
    "objective": "objectives",
    "distance": "update",
    "transfer": "finetune",
}
TOLD_BY = {"schedule": (finetune,), "objective": (finetune, update, mix), "transfer": (finetune,)}


def _room(family):
    """The room of a family, with every file in it read: a member is found even where its line is missing."""
    room = import_module(FAMILIES[family].rpartition(".")[0])
    for module in walk_packages(room.__path__, f"{room.__name__}."):
        import_module(module.name)
    return room


def _every_member():
    for family in GUIDES:
        room = _room(family)
        for kind, path in sorted(members(family).items()):
            module, _, name = path.rpartition(".")
            yield pytest.param(family, room, kind, getattr(import_module(module), name), id=f"{family}-{kind}")


EVERY_MEMBER = pytest.mark.parametrize(("family", "room", "kind", "member"), list(_every_member()))


def test_every_family_has_a_guide():
    """All but the judge, which is an attack."""
    assert set(GUIDES) == set(FAMILIES) - {"judge"}


@EVERY_MEMBER
def test_a_member_is_listed_by_its_room_and_by_poise(family, room, kind, member):
    assert member.__name__ in room.__all__
    assert getattr(room, member.__name__) is member
    assert member.__name__ in poise.__all__


@EVERY_MEMBER
def test_a_member_stands_in_the_reference_and_in_its_guide(family, room, kind, member):
    reference = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    assert f"\n::: {room.__name__}.{member.__name__}\n" in reference
    assert f"`{kind}`" in (DOCS / "guide" / f"{GUIDES[family]}.md").read_text(encoding="utf-8")


@EVERY_MEMBER
def test_the_help_of_a_verb_names_a_member(family, room, kind, member):
    told = " ".join(verb.__doc__ for verb in TOLD_BY.get(family, ()))
    assert family not in TOLD_BY or re.search(rf"\b{kind}\b", told)


@pytest.mark.parametrize("family", GUIDES)
def test_the_base_of_a_family_is_public(family):
    room, _, name = FAMILIES[family].rpartition(".")
    assert getattr(poise, name) is getattr(import_module(room), name)
