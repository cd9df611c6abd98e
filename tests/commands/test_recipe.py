from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import yaml

import poise
from poise.attacks import FGSM, PGD, Attack, AutoPGD
from poise.commands.parsing import options_in, options_of
from poise.commands.recipe import (
    expanded,
    import_path,
    members,
    plain,
    read_recipe,
    recipe_text,
    refuse_changes,
    write_recipe,
)
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.objectives import AWP, TRADES, Adversarial, Averaged, Guarded
from poise.schedules import Cosine, Fixed, Hinge, Linear, Schedule
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


def test_an_attack_needs_no_objective_to_be_named_beside_it():
    for attack in ({"kind": "apgd", "steps": 2}, "apgd"):
        inner = expanded({"objective": {"attack": attack}})["objective"]["attack"]
        assert inner["class_path"] == "poise.attacks.auto_pgd.AutoPGD"
        assert inner["init_args"]["steps"] == (2 if isinstance(attack, dict) else 7)


def test_numbers_of_numpy_are_numbers():
    tree = yaml.safe_load(
        recipe_text(
            "finetune",
            {
                "schedule": Hinge(start=np.linspace(0, 0.5, 3)[1], stop=np.float32(0.5)),
                "training": Training(epochs=np.int64(2), learning_rate=np.logspace(-3, -2, 2)[0]),
                "seed": np.int64(3),
                "alphas": list(np.linspace(0.5, 1, 3)),
                "flag": np.bool_(True),
            },
        )
    )
    assert (tree["schedule"]["start"], tree["schedule"]["stop"]) == (0.25, 0.5)
    assert (tree["training"]["epochs"], tree["training"]["learning_rate"]) == (2, 0.001)
    assert (tree["seed"], tree["alphas"], tree["flag"]) == (3, [0.5, 0.75, 1.0], True)


def test_what_no_recipe_can_keep_is_named():
    with pytest.raises(Misuse, match="trackers holds a complex, which a recipe cannot keep"):
        recipe_text("finetune", {"data": "digits", "trackers": [1j]})

    class Power(Schedule):
        """Inherits being a dataclass, and so loses its own argument."""

        def __init__(self, power):
            self.power = power

        def share(self, moment):
            return moment.progress**self.power

    with pytest.raises(Misuse, match=r"Power has an __init__ of its own, whose arguments no recipe could keep"):
        recipe_text("finetune", {"schedule": Power(3.0)})


def test_a_class_of_a_script_is_told_when_it_is_kept_and_when_it_is_missed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from dataclasses import dataclass\n"
        "import poise\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Late(poise.Hinge):\n"
        "    pass\n"
        "training = poise.Training(epochs=1)\n"
        "options = dict(limit=60, validate_on=0, trackers=(), augmentation='none', out='run')\n"
        "poise.finetune('small', schedule=Late(start=0.5), training=training, **options)\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "__main__.Late is defined in a script or a notebook: move it to a module" in " ".join(done.stderr.split())
    with pytest.raises(Misuse, match=r"__main__\.Late was defined in a script or a notebook"):
        expanded(read_recipe(tmp_path / "run" / "recipe.yaml"))


def test_a_changed_option_is_named_alone_however_deep_it_stands(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    write_recipe(folder, "finetune", OPTIONS)
    for options, said in (
        ({"training": Training(epochs=9)}, "training.epochs 2, not 9"),
        ({"objective": Adversarial(attack=PGD(steps=4))}, "objective.attack.steps 3, not 4"),
        ({"objective": Adversarial(attack=FGSM())}, "objective.attack.kind pgd, not fgsm"),
        ({"seed": 2}, "seed 1, not 2"),
    ):
        with pytest.raises(Misuse, match=f"was started with {said};"):
            refuse_changes(folder, OPTIONS | options, ignored=())


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


@dataclass(frozen=True, kw_only=True)
class Opposed(Adversarial):
    """An objective with an attack under a name that recipes do not know."""

    opponent: Attack = PGD()


def test_what_no_recipe_could_read_again_is_not_written_into_one(tmp_path):
    told = (
        rf"opponent of {__name__}\.Opposed holds pgd, which no recipe could read again; .* schedule, objective, attack"
    )
    with pytest.raises(Misuse, match=told):
        poise.finetune("small", "digits", objective=Opposed(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@dataclass(frozen=True, kw_only=True)
class Various(Adversarial):
    """An objective whose other options are whatever a test asks for."""

    several: tuple[Attack, ...] = ()
    by_name: Mapping[str, Attack] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    judge: Attack | None = None
    distance: Any = 1.0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"several": (PGD(), FGSM())}, r"several of .*Various holds \[\{'kind': 'pgd'"),
        ({"by_name": {"first": PGD()}}, r"by_name of .*Various holds \{'first': \{'kind': 'pgd'"),
        ({"judge": poise.Hinge()}, "judge of .*Various holds hinge"),
        ({"judge": {"kind": "harsh"}}, "judge of .*Various holds {'kind': 'harsh'}"),
        ({"distance": "l2"}, "distance of .*Various holds l2"),
    ],
)
def test_a_name_that_tells_a_recipe_something_else_is_refused(options, told):
    with pytest.raises(Misuse, match=rf"{told}.*, which no recipe could read again; recipes know such options by"):
        recipe_text("finetune", {"objective": Various(**options)})


@pytest.mark.parametrize(
    "options", [{}, {"told": {"kind": "harsh"}}, {"judge": FGSM()}, {"distance": 0.5}, {"by_name": {"attack": FGSM()}}]
)
def test_what_a_recipe_keeps_it_reads_again(options):
    text = recipe_text("finetune", {"model": "small", "objective": Various(**options)})
    assert options_of("finetune", yaml.safe_load(text))["objective"] == Various(**options)


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
