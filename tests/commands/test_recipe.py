from __future__ import annotations

from dataclasses import dataclass

import pytest
import yaml

from poise.attacks import FGSM, PGD, AutoPGD
from poise.commands.parsing import options_in, options_of
from poise.commands.recipe import expanded, import_path, members, plain, read_recipe, recipe_text
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.objectives import AWP, TRADES, Adversarial, Averaged, Guarded
from poise.schedules import Cosine, Fixed, Hinge, Linear
from poise.training import Training

OPTIONS = {
    "model": "small",
    "threat": Threat(epsilon="8/255"),
    "schedule": Hinge(start=0.1, stop=0.6),
    "objective": Adversarial(attack=PGD(steps=3)),
    "training": Training(epochs=2),
    "seed": 1,
}


def test_families_know_their_members():
    assert set(members("schedule")) >= {"fixed", "hinge"}
    assert set(members("objective")) >= {"trades", "mart", "averaged", "awp", "labelsmoothing", "guarded"}
    assert "wrapper" not in members("objective")
    assert members("attack")["pgd"] == "poise.attacks.pgd.PGD"
    assert import_path("schedule", "Hinge") == "poise.schedules.hinge.Hinge"


def test_a_class_of_the_users_own_takes_no_members_name():
    class Hinge(Fixed):
        """Another one."""

    assert members("schedule")["hinge"] == "poise.schedules.hinge.Hinge"
    assert members("schedule")["fixed"] == "poise.schedules.fixed.Fixed"
    assert plain(Hinge())["kind"].endswith("<locals>.Hinge")


def test_recipes_are_what_people_write():
    tree = yaml.safe_load(recipe_text("finetune", OPTIONS))
    assert tree["threat"] == {"norm": "linf", "epsilon": "8/255"}
    assert tree["schedule"] == {"kind": "hinge", "every": "epoch", "start": 0.1, "stop": 0.6}
    assert tree["objective"]["attack"]["kind"] == "pgd"
    assert tree["objective"]["attack"]["steps"] == 3


def test_what_was_written_expands_to_import_paths():
    tree = expanded(yaml.safe_load(recipe_text("finetune", OPTIONS)))
    assert tree["schedule"]["class_path"] == "poise.schedules.hinge.Hinge"
    assert tree["schedule"]["init_args"] == {"every": "epoch", "start": 0.1, "stop": 0.6}
    inner = tree["objective"]["init_args"]["attack"]
    assert inner["class_path"] == "poise.attacks.pgd.PGD"
    assert inner["init_args"]["steps"] == 3
    fixed = {"class_path": "poise.schedules.fixed.Fixed", "init_args": {"every": "epoch"}}
    assert expanded({"schedule": "fixed"}) == {"schedule": fixed}


def test_members_may_stand_inside_members():
    options = {"objective": Guarded(objective=Averaged(objective=TRADES(beta=3.0)), judge=AutoPGD(steps=2))}
    tree = yaml.safe_load(recipe_text("finetune", options))
    assert tree["objective"]["kind"] == "guarded"
    assert tree["objective"]["judge"] == {
        "kind": "apgd",
        "model_mode": "eval",
        "steps": 2,
        "random_start": True,
        "steps_follow": False,
    }
    assert tree["objective"]["objective"]["objective"]["kind"] == "trades"
    inner = expanded(tree)["objective"]["init_args"]
    assert inner["judge"]["class_path"] == "poise.attacks.auto_pgd.AutoPGD"
    assert inner["objective"]["init_args"]["objective"]["init_args"]["beta"] == 3


@dataclass(frozen=True, kw_only=True)
class Mine(Fixed):
    """A schedule of a user's own."""


def test_a_class_of_the_users_own_stands_by_its_import_path():
    written = plain({"schedule": Mine()})["schedule"]
    assert written["kind"] == f"{__name__}.Mine"
    assert expanded({"schedule": written})["schedule"]["class_path"] == f"{__name__}.Mine"


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "a: [", "\x00"])
def test_what_is_no_recipe_is_refused_by_name(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(Misuse, match=r"r\.yaml"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--objective.attack", "fgsm"], "objective", Adversarial(attack=FGSM())),
        (["--objective.attack=apgd"], "objective", Adversarial(attack=AutoPGD())),
        (["--schedule", "linear"], "schedule", Linear()),
        (["--schedule.stop", "0.5", "--schedule", "linear"], "schedule", Linear(stop=0.5)),
        (["--schedule.stop", "0.5"], "schedule", Hinge(stop=0.5)),
        (
            ["--objective.objective.attack", "fgsm", "--objective.objective", "trades", "--objective", "awp"],
            "objective",
            AWP(objective=TRADES(attack=FGSM())),
        ),
    ],
)
def test_another_kind_has_defaults_of_its_own_wherever_it_stands(words, name, expected):
    assert options_in("finetune", ["small", *words])[name] == expected


def test_a_recipe_changes_what_it_names_and_nothing_else(tmp_path):
    tree = {
        "model": "small",
        "objective": {"kind": "guarded", "objective": {"attack": {"kind": "fgsm", "step_size": 1}}},
    }
    expected = Guarded(objective=Adversarial(attack=FGSM(step_size=1.0)))
    assert options_of("finetune", tree)["objective"] == expected
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**tree, "schedule": {"kind": "hinge", "start": 0.1}}))
    found = options_in("finetune", ["--schedule", "cosine", "--config", str(path), "--schedule.stop", "0.6"])
    assert (found["objective"], found["schedule"]) == (expected, Cosine(start=0.25, stop=0.6))
