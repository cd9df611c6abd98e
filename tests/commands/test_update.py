"""Updates: what is trained, compared, chosen and kept, and that neither model is touched."""

from __future__ import annotations

import json

import pytest
import torch

import poise
from poise.cli import main
from poise.commands.updating.regression import flip_figures
from poise.commands.updating.trials import Trial, chosen, objectives_tried
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.data import open_data, sample
from poise.evaluation import Examination, examine, read_profile
from poise.models import load_model, open_model, save_model
from poise.training import trainer
from tests.evaluation.profiles import profile

FIGURES = {"clean", "robust", "clean_flips", "robust_flips", "union_flips"}
L2 = poise.Threat(norm="l2", epsilon=0.5)
ATTACK = poise.PGD(steps=1, step_size=1.25)
TRAINING = poise.Training(epochs=2, batch_size=64, learning_rate=5e-3)
QUICK = {"training": TRAINING, "validate_on": 60, "trackers": (), "augmentation": "none"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two robust networks of little training, on few images."""
    root = tmp_path_factory.mktemp("pair")
    common = {"threat": L2, "schedule": poise.Fixed(), "limit": 200, "objective": poise.Adversarial(attack=ATTACK)}
    return [
        poise.finetune("small", out=root / name, seed=seed, **common | QUICK | {"validate_on": 0})
        for seed, name in enumerate(("old", "new"))
    ]


@pytest.fixture(scope="module")
def updated(pair, tmp_path_factory):
    """An update with two trials."""
    out = tmp_path_factory.mktemp("updated") / "run"
    return _update(pair, out)


def _update(pair, out, **changes):
    objective = poise.RCAT(attack=ATTACK)
    options = {"objective": objective, "grid": [(0.2, 0.7)], "out": out} | QUICK
    return poise.update(pair[0].address, pair[1].address, **options | changes)


def _table(run):
    return json.loads((run.path / "trials.json").read_text())


def test_an_update_tries_every_weight_and_ships_the_one_it_took(updated):
    table = _table(updated)
    assert [row["trial"] for row in table] == ["new", "alpha-0.5-beta-0.4", "alpha-0.2-beta-0.7"]
    assert all(set(row) == FIGURES | {"trial", "chosen"} for row in table)
    taken = [row for row in table if row["chosen"]]
    assert len(taken) == 1
    place = updated.path / "trials" / taken[0]["trial"]
    assert updated.classifier().digest() == load_model(place).digest()
    others = [load_model(path).digest() for path in (updated.path / "trials").iterdir()]
    assert len(set(others)) == 2
    history = updated.history()
    assert history == RunFolder(place).history()
    assert {f"validation/{name}" for name in FIGURES} <= set(history[0])
    assert {"train/distance_old", "train/distance_new", "train/flips"} <= set(history[0])
    assert {name: history[-1][f"validation/{name}"] for name in FIGURES} == {name: taken[0][name] for name in FIGURES}


def test_by_default_no_trial_may_lose_accuracy(updated):
    assert updated.recipe()["tolerance"] == 0
    new, *trials = (Trial(row["trial"], {name: row[name] for name in FIGURES}) for row in _table(updated))
    taken = next(row["trial"] for row in _table(updated) if row["chosen"])
    assert chosen(new, trials, 0.0)[0].name == taken


def test_flips_are_counted_against_the_old_models_own_verdicts(pair, updated):
    """Counted again, image by image, from separate examinations of all three models."""
    images = sample(open_data("digits", limit=200).validation, 60)
    examination = Examination(threat=L2, suite="fast", points=(), seed=0)

    def held(run):
        made = examine(run.classifier().eval(), images, examination, model_address="x")
        return [(bool(right), bool(robust)) for right, robust in made.robust()]

    old, tables = held(pair[0]), {row["trial"]: row for row in _table(updated)}
    for name, run in (("new", pair[1]), (next(n for n, row in tables.items() if row["chosen"]), updated)):
        now = held(run)
        clean = sum(was[0] and not is_[0] for was, is_ in zip(old, now, strict=True))
        robust = sum(was[1] and not is_[1] for was, is_ in zip(old, now, strict=True))
        union = sum((was[0] and not is_[0]) or (was[1] and not is_[1]) for was, is_ in zip(old, now, strict=True))
        assert robust > 0
        found = [tables[name][figure] for figure in ("clean_flips", "robust_flips", "union_flips")]
        assert found == pytest.approx([clean / 60, robust / 60, union / 60])


def test_the_recipe_is_complete_and_gives_the_same_run_again(updated, pair, tmp_path):
    recipe = updated.recipe()
    assert (recipe["data"], recipe["limit"], recipe["threat"]) == ("digits", 200, {"norm": "l2", "epsilon": "0.5"})
    assert (recipe["old"], recipe["new"]) == (pair[0].address, pair[1].address)
    assert recipe["objective"]["kind"] == "rcat"
    assert recipe["objective"]["distance"] == {"kind": "squared"}
    again = tmp_path / "again"
    assert main(["update", "--config", str(updated.folder.recipe), "--out", str(again)]) == 0
    assert load_model(again).digest() == updated.classifier().digest()


class _Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("moment", [2, 8])
def test_an_update_cut_off_in_any_trial_and_resumed_is_the_one_that_was_not(
    pair, updated, tmp_path, monkeypatch, moment
):
    """Two trials of two epochs of three steps; a checkpoint stands at every epoch."""
    step, steps = trainer._Loop._step, 0

    def mortal(self, *args):
        nonlocal steps
        steps += 1
        if steps > moment:
            raise _Killed
        return step(self, *args)

    monkeypatch.setattr(trainer._Loop, "_step", mortal)
    with pytest.raises(_Killed):
        _update(pair, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    resumed = _update(pair, tmp_path / "run", resume=True)
    assert resumed.classifier().digest() == updated.classifier().digest()
    assert _table(resumed) == _table(updated)


def test_old_and_new_are_bit_identical_after_an_update(pair, tmp_path, monkeypatch):
    opened = []

    def opening(address, **options):
        opened.append(open_model(address, **options))
        return opened[-1]

    monkeypatch.setattr("poise.commands.opening.open_model", opening)
    run = _update(pair, tmp_path / "run", grid=[], training=poise.Training(epochs=1, batch_size=64))
    assert len(opened) == 2
    for model, source in zip(opened, pair, strict=True):
        assert model.digest() == load_model(source.path).digest()
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert run.classifier().digest() not in {model.digest() for model in opened}


def test_the_constrained_update_logs_its_multiplier_and_goes_on_with_it(pair, tmp_path, monkeypatch):
    objective = poise.Constrained(attack=ATTACK, bound=0.0, rate=5)
    whole = _update(pair, tmp_path / "whole", objective=objective, grid=None)
    rows = whole.history()
    assert rows[1]["train/multiplier"] > rows[0]["train/multiplier"] > 0
    assert [row["trial"] for row in _table(whole)] == ["new", "constrained"]
    finish = trainer._Loop._finish_epoch

    def mortal(self, *args):
        finish(self, *args)
        raise _Killed

    monkeypatch.setattr(trainer._Loop, "_finish_epoch", mortal)
    with pytest.raises(_Killed):
        _update(pair, tmp_path / "cut", objective=objective, grid=None)
    monkeypatch.undo()
    cut = _update(pair, tmp_path / "cut", objective=objective, grid=None, resume=True)
    assert [row["train/multiplier"] for row in cut.history()] == [row["train/multiplier"] for row in rows]
    assert cut.classifier().digest() == whole.classifier().digest()


def test_naming_a_part_of_the_threat_keeps_the_new_runs_other_part(pair, tmp_path):
    out = tmp_path / "run"
    words = ["update", "--old", pair[0].address, f"--new={pair[1].address}", "--threat.epsilon", "0.25"]
    words += ["--objective", "adversarial", "--objective.attack.steps", "1", "--training.epochs", "1", "--limit", "100"]
    assert main([*words, "--validate-on", "20", "--trackers", "[]", "--out", str(out)]) == 0
    assert RunFolder(out).recipe.read_text().count("norm: l2") == 1
    made = poise.profile(f"run:{out}", suite="fast", soundness=False, limit=10, points=[], out=tmp_path / "p.parquet")
    assert made.header.epsilons == (0.0, 0.25)
    assert read_profile(tmp_path / "p.parquet").header.norm == "l2"


def test_models_of_other_classes_are_refused_before_a_folder_exists(pair, tmp_path):
    other = open_model("small", classes=("a", "b"), shape=(1, 8, 8))
    save_model(other, tmp_path / "other")
    with pytest.raises(Misuse, match="has 2 classes and the data 10"):
        poise.update(f"run:{tmp_path / 'other'}", pair[1].address, out=tmp_path / "run", **QUICK)
    with pytest.raises(Misuse, match="has 2 classes and the data 10"):
        poise.update(pair[0].address, f"run:{tmp_path / 'other'}", "digits", out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_test_images_play_no_part(pair, tmp_path, monkeypatch):
    splits = open_data("digits", limit=200)

    def forbidden(_rows):
        raise AssertionError

    monkeypatch.setattr(splits.test, "pixels", forbidden)
    monkeypatch.setattr("poise.commands.opening.open_data", lambda *_args, **_options: splits)
    run = _update(pair, tmp_path / "run", grid=[], training=poise.Training(epochs=1, batch_size=64))
    assert len(_table(run)) == 2
    with pytest.raises(AssertionError):
        splits.test.images(torch.arange(1))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"validate_on": 0}, "validate_on must be at least 1"),
        ({"tolerance": -0.1}, "tolerance must be a share of at least 0; got -0.1"),
        ({"grid": [(0.8, 0.3)]}, "sum to at most 1; got alpha 0.8 and beta 0.3"),
        ({"grid": [(0.8, 0.1)], "objective": poise.Constrained()}, "Constrained has no weights alpha and beta"),
        ({"training": poise.Training(batch_size=500), "limit": 1}, "too few for a batch"),
    ],
)
def test_what_cannot_be_updated_is_refused_before_a_folder_exists(pair, tmp_path, options, line):
    with pytest.raises(Misuse, match=line):
        _update(pair, tmp_path / "run", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("update", "missing: --old, --new"),
        ("update --old run:nowhere --new run:nowhere", "nowhere is not a run folder"),
        ("update --old small --new small --objective rcta", "unknown objective 'rcta'; did you mean 'rcat'?"),
        ("update --old small --new small --objective.distance kll", "unknown distance 'kll'; did you mean 'kl'?"),
        ("update --old small --new small --objective.beta 0.9", "sum to at most 1"),
        ("update --old small --new small --grid [[0.5]]", "--grid"),
        ("update small small", "unexpected word 'small'"),
    ],
)
def test_the_command_line_refuses_in_one_line(capsys, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    told = capsys.readouterr().err.strip()
    assert line in told
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []


def _trial(name, clean, robust, union):
    return Trial(name, {"clean": clean, "robust": robust, "union_flips": union})


def test_the_choice_is_the_fewest_union_flips_among_those_that_keep_the_accuracies():
    new = _trial("new", 0.9, 0.5, 0.08)
    trials = [
        _trial("loses robust", 0.91, 0.49, 0.01),
        _trial("loses clean", 0.89, 0.55, 0.02),
        _trial("within", 0.895, 0.495, 0.05),
        _trial("same flips, more robust", 0.9, 0.51, 0.05),
        _trial("just beyond", 0.9, 0.4949, 0.015),
        _trial("more flips", 0.95, 0.6, 0.06),
    ]
    assert chosen(new, trials, 0.005) == (trials[3], True)
    assert chosen(new, trials[:3], 0.005) == (trials[2], True)
    assert chosen(new, trials, 0.02) == (trials[0], True)
    fallen = [_trial("far", 0.8, 0.5, 0.0), _trial("near", 0.9, 0.45, 1.0)]
    assert chosen(new, fallen, 0.0) == (fallen[1], False)


def test_trials_are_the_objectives_own_weights_and_those_of_the_grid():
    named = objectives_tried(poise.RCAT(alpha=0.6, beta=0.1), None)
    assert list(named) == [
        f"alpha-{a}-beta-{b}" for a, b in ((0.6, 0.1), (0.75, 0.2), (0.7, 0.2), (0.5, 0.4), (0.3, 0.6))
    ]
    assert len(objectives_tried(poise.RCAT(), None)) == 4
    assert list(objectives_tried(poise.PCAT(), [])) == ["alpha-1-beta-2"]
    assert [each.beta for each in objectives_tried(poise.PCT(), None).values()] == [2, 1, 5, 10]
    assert objectives_tried(poise.Constrained(), None) == {"constrained": poise.Constrained()}


def test_flip_figures_are_counts_over_all_images():
    old = profile([3, 3, 0, 1, 3])
    model = profile([3, 0, 3, 3, 2])
    assert flip_figures(old, model) == {
        "clean": 0.8,
        "robust": 0.6,
        "clean_flips": 0.2,
        "robust_flips": 0.4,
        "union_flips": 0.4,
    }
    with pytest.raises(Misuse, match="the profiles are of different images"):
        flip_figures(old, profile([3, 3]))


def test_an_update_that_flips_more_than_the_model_it_began_from_says_so(pair, tmp_path, capsys):
    wild = poise.Training(epochs=1, batch_size=50, learning_rate=0.3)
    run = _update(pair, tmp_path / "wild", grid=[], tolerance=0.99, training=wild)
    new, taken = _table(run)
    assert taken["union_flips"] > new["union_flips"] > 0
    assert "no trial flips less than the new model as it is" in capsys.readouterr().err
    with pytest.raises(Misuse, match=r"allows any loss; did you mean 0\.05\?"):
        _update(pair, tmp_path / "none", tolerance=5.0)
    assert not (tmp_path / "none").exists()
