"""Dry runs: what they count is what a real run does, and they leave nothing behind."""

from __future__ import annotations

import pytest
import torch

import poise
from poise.cli import main
from poise.commands.rehearsal.demand import filled
from poise.commands.rehearsal.estimate import Rehearsal, Work
from poise.commands.rehearsal.passes import Pace, Passes
from poise.core.folding import Shadow
from poise.core.misuse import Misuse
from poise.models import Classifier, open_model

LIMIT = 70
"""Two batches of 32 and one of 6."""
TINY = {
    "data": "digits",
    "threat": poise.Threat(epsilon=0.1),
    "training": poise.Training(epochs=4, batch_size=32),
    "augmentation": "none",
    "limit": LIMIT,
}
PGD = poise.PGD(steps=3)


@pytest.fixture
def passed(monkeypatch):
    """Images that went forward, and backward, through any classifier."""
    found = {"forward": 0, "backward": 0}
    forward = Classifier.forward

    def counted(self, images):
        logits = forward(self, images)
        found["forward"] += len(images)
        if logits.requires_grad:
            logits.register_hook(lambda _: found.update(backward=found["backward"] + len(images)))
        return logits

    monkeypatch.setattr(Classifier, "forward", counted)
    monkeypatch.setattr(Shadow, "of", lambda *_: None)  # it looks at two images an epoch, which no estimate counts
    return found


def _most(works):
    return sum((work.most for work in works), Passes())


@pytest.mark.parametrize(
    ("objective", "each"),
    [
        (poise.Standard(), 1 + 1 + 1 + 1),
        (poise.Adversarial(attack=PGD), 1 + 1 + 4 + 4),
        (poise.Adversarial(attack=poise.PGD(steps=4, steps_follow=True)), 1 + 1 + 3 + 5),
        (poise.TRADES(attack=PGD), None),
        (poise.MART(attack=PGD), None),
        (poise.AWP(objective=poise.Adversarial(attack=PGD)), None),
        (poise.Averaged(objective=poise.Adversarial(attack=poise.FGSM())), 1 + 1 + 2 + 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_training_takes_the_passes_that_were_counted(objective, each, passed, tmp_path):
    options = {**TINY, "objective": objective, "schedule": poise.Hinge(start=0.25, stop=0.75), "validate_on": 0}
    work, *others = poise.rehearse("finetune", model="small", trackers=(), **options).works
    assert others == []
    assert work.least is None
    passed.update(forward=0, backward=0)
    open_model("small", classes=("a", "b"), shape=(1, 8, 8))
    passed.update(forward=-passed["forward"])
    poise.finetune("small", trackers=(), out=tmp_path / "run", **options)
    assert (work.most.forward, work.most.backward + work.most.update) == (passed["forward"], passed["backward"])
    if each is not None:
        assert work.most.forward == each * LIMIT


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_schedule_that_draws_takes_the_passes_that_were_counted(seed, passed, tmp_path):
    """Each of its draws asks for another number of attack steps."""
    objective = poise.Adversarial(attack=poise.PGD(steps=8, steps_follow=True))
    options = {**TINY, "objective": objective, "schedule": poise.Random(every="step"), "validate_on": 0, "seed": seed}
    (work,) = poise.rehearse("finetune", model="small", trackers=(), **options).works
    passed.update(forward=0, backward=0)
    open_model("small", classes=("a", "b"), shape=(1, 8, 8))
    passed.update(forward=-passed["forward"])
    poise.finetune("small", trackers=(), out=tmp_path / "run", **options)
    assert (work.most.forward, work.most.backward + work.most.update) == (passed["forward"], passed["backward"])


def test_an_update_counts_every_trial_and_both_models_beside_it(passed, tmp_path):
    options = {**TINY, "trackers": (), "validate_on": 0}
    pair = [
        poise.finetune("small", schedule=poise.Fixed(), seed=seed, out=tmp_path / str(seed), **options)
        for seed in range(2)
    ]
    addresses = {"old": pair[0].address, "new": pair[1].address}
    options = {**TINY, "objective": poise.RCAT(attack=PGD), "grid": [(0.3, 0.2)], "validate_on": 10, "trackers": ()}
    *training, validation = poise.rehearse("update", **addresses, **options).works
    assert [work.label.split(",")[0] for work in training] == [
        "training",
        "the old model beside it",
        "the new model beside it",
    ] * 2
    passed.update(forward=0, backward=0)
    poise.update(**addresses, out=tmp_path / "updated", **options)
    trained = _most(training)
    assert trained.forward + validation.least.forward <= passed["forward"]
    assert trained.backward + trained.update <= passed["backward"]
    looks = 2 + 2 * TINY["training"].epochs
    assert (validation.least, validation.most) == (
        Passes(forward=10 * looks),
        Passes(forward=10 * looks * (1 + 11), backward=10 * looks * 11),
    )


def test_a_schedule_that_listens_leaves_a_range():
    options = {**TINY, "schedule": poise.Automatic(), "objective": poise.Adversarial(attack=PGD), "validate_on": 10}
    training, validation = poise.rehearse("finetune", model="small", **options).works
    assert (training.least.forward, training.most.forward) == (4 * LIMIT, 4 * 4 * LIMIT)
    assert validation.least.forward == 4 * 10


def test_an_image_that_withstands_everything_takes_the_passes_that_were_counted(passed, tmp_path):
    words = {
        "model": "python:tests.models.factories:stubborn_network",
        "data": "digits",
        "threat": poise.Threat(epsilon=0.1),
        "suite": "apgd",
        "points": [0.02, 0.05],
        "soundness": False,
        "limit": 40,
    }
    (work,) = poise.rehearse("profile", **words).works
    each = work.most * (1 / 40)
    passed.update(forward=0, backward=0)
    made = poise.profile(**words, out=tmp_path / "profile.parquet")
    right = int((made.broken_from > 0).sum())
    assert 0 < right < 40
    assert (made.broken_from[made.broken_from > 0] == 4).all()
    assert each.forward == 1 + (1 + 1) * 101 + 9 * 101  # halving twice (0.05, then 0.1), then the targets
    assert work.least == Passes(forward=40)
    assert passed["backward"] == right * each.backward
    aside = passed["forward"] - 40 - right * (each.forward - 1)
    assert 0 <= aside <= 8  # images that a faster stand-in is compared on


def test_smoothing_takes_at_most_the_copies_that_were_counted(passed, tmp_path):
    words = {"model": "small", "data": "digits", "sigma": 0.5, "samples": 400, "selection": 20, "limit": 12}
    (work,) = poise.rehearse("certify", **words).works
    assert (work.least.forward, work.most.forward) == (12 * (20 + 25), 12 * (20 + 400))
    passed.update(forward=0, backward=0)
    poise.certify(**words, out=tmp_path / "smoothed")
    assert passed["forward"] >= work.least.forward


def test_a_mixture_counts_branches_and_all_that_is_tried():
    words = {"standard": "small", "robust": "small", "data": "digits", "limit": LIMIT, "validate_on": 10}
    words |= {"threat": poise.Threat(epsilon=0.1)}
    assert poise.rehearse("mix", alpha=0.5, **words).works == ()
    one, other, tried, further = poise.rehearse("mix", alphas=[0.5, 0.8, 0.9], **words).works
    assert one.most == other.most == Passes(forward=10 * 12, backward=10 * 11)
    assert tried.least == Passes(forward=3 * 10)
    assert tried.most == Passes(forward=3 * 10 * (12 + 3 * 22), backward=3 * 10 * 4 * 11)
    assert (further.label, further.least, further.most) == ("a further alpha, 10 images, 3 times", Passes(), tried.most)
    assert len(poise.rehearse("mix", alphas=[0.5, 0.8, 0.9], refine=0, **words).works) == 3
    gate, *_ = poise.rehearse("mix", method="network", training=poise.Training(epochs=2), **words).works
    assert gate.label.startswith("training, 2 epochs")


@pytest.mark.parametrize(("alphas", "tried"), [(None, 7 + 3), ([0.92], 1 + 2)])
def test_a_gate_counts_its_calibration_and_the_bounds_on_both_sides(alphas, tried):
    words = {"standard": "small", "robust": "small", "data": "digits", "limit": LIMIT, "validate_on": 10}
    words |= {"threat": poise.Threat(epsilon=0.1), "method": "network", "training": poise.Training(epochs=1)}
    _, calibration, _, _, mixtures, _, _ = poise.rehearse("mix", alphas=alphas, calibrate=True, **words).works
    assert calibration.label.startswith("calibration")
    assert mixtures.least == Passes(forward=tried * 10)


VERBS = {
    "finetune": "small --data digits --trackers []",
    "update": "--old small --new small --data digits",
    "mix": "--standard small --robust small --data digits",
    "profile": "small --data digits --suite fast --soundness false",
    "certify": "small --data digits --sigma 0.5 --samples 100",
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_prints_the_recipe_and_makes_nothing(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    assert main([verb, *VERBS[verb].split(), "--limit", "40", "--dry-run"]) == 0
    assert torch.equal(torch.get_rng_state(), state)
    told = capsys.readouterr().out
    assert told.startswith(f"# poise {verb} --config recipe.yaml\n")
    for words in ("\nlimit: 40\n", "\ndata: digits\n", "forward and", "ms forward", "in all: ", "not in it:"):
        assert words in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_refuses_what_the_command_refuses(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    out = [] if verb == "profile" else ["--out", "there"]
    if verb == "profile":
        (tmp_path / "there.parquet").touch()
        out = ["--out", "there.parquet"]
    assert main([verb, *VERBS[verb].split(), "--limit", "40", "--dry-run", *out]) == 2
    refused = capsys.readouterr().err
    assert main([verb, *VERBS[verb].split(), "--limit", "40", *out]) == 2
    assert refused.splitlines()[-1] == capsys.readouterr().err.splitlines()[-1]


def test_a_search_counts_all_its_trials(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yaml").write_text(
        "model: small\ndata: digits\nlimit: 70\nvalidate_on: 10\naugmentation: none\n"
        "schedule: {kind: fixed}\nobjective: {kind: adversarial, attack: {kind: pgd, steps: 3}}\n"
        "training: {epochs: 2, learning_rate: {from: 1.0e-4, to: 1.0e-2, log: true}}\n"
    )
    training, validation = poise.rehearse("tune", recipe="search.yaml", trials=5, maximise="robust").works
    assert training.most.forward == 5 * 2 * LIMIT * 4
    assert validation.least == Passes(forward=5 * 2 * 10)
    assert [path.name for path in tmp_path.iterdir()] == ["search.yaml"]


def test_verbs_without_long_work_have_no_dry_run(capsys):
    with pytest.raises(Misuse, match="report does no long work"):
        poise.rehearse("report", runs=["a"])
    assert main(["report", "a", "--dry-run"]) == 2
    assert "unknown option '--dry-run'" in capsys.readouterr().err


def test_seconds_are_passes_times_pace():
    pace = Pace(forward=0.001, backward=0.002, update=0.004, batch=8)
    work = Work("training", pace, Passes(1000, 500, 250), Passes(1000))
    assert work.range == (1.0, 3.0)
    assert (work * 3).range == (3.0, 9.0)
    assert "in all: 1.0 s to 3.0 s" in str(Rehearsal("model: small\n", (work,)))
    assert "in all: 60 min to 3.0 h" in str(Rehearsal("", (work * 3600,)))


def test_places_between_equal_neighbours_are_not_asked():
    asked = []

    def ask(place):
        asked.append(place)
        return place >= 5.5

    places = [float(place) for place in range(100)]
    assert filled(places, ask) == {place: place >= 5.5 for place in places}
    assert len(asked) < 12
