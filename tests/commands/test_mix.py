"""Mixing two runs, through Python and the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

import poise
from poise.cli import main
from poise.commands.mix import _tried
from poise.commands.mixing.mixtures import capped
from poise.commands.mixing.sweep import Sweep, clean_accuracies, held_out
from poise.core.misuse import Misuse
from poise.data import sample
from poise.evaluation import read_profile, share
from poise.evaluation.frontier import Point, choose, read_frontier
from poise.models import Classifier, load_model
from poise.models.mixing import Blend, MixedClassifier, SlopeGate, shown_alpha
from poise.models.mixing.calibration import calibrated_scale
from tests.models_for_tests import linear_classifier, random_images

QUICK = {"limit": 300, "validate_on": 30}


@pytest.fixture(scope="module")
def branches(tmp_path_factory):
    """A standard and a robust network, of three epochs each, on a few digits."""
    root = tmp_path_factory.mktemp("branches")
    options = {
        "threat": poise.Threat(epsilon=0.1),
        "training": poise.Training(epochs=3, batch_size=64, learning_rate=1e-2),
        "augmentation": "none",
        "schedule": poise.Fixed(),
        "trackers": (),
        "limit": 300,
        "validate_on": 0,
    }
    standard = poise.finetune("small", objective=poise.Standard(), out=root / "standard", **options)
    robust = poise.finetune(
        "small", objective=poise.Adversarial(attack=poise.PGD(steps=2)), out=root / "robust", **options
    )
    return standard.address, robust.address


def test_a_constant_mixture_is_chosen_on_validation_images_and_profiled_like_any_run(branches, tmp_path, capsys):
    words = ["mix", "--standard", branches[0], "--robust", branches[1], "--out", str(tmp_path / "mixed")]
    words += ["--alphas", "0.5,0.9", "--validate-on", "30", "--lose", "100"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert "chosen: alpha 0." in told
    frontier = read_frontier(tmp_path / "mixed" / "frontier.json")
    assert [point.name for point in frontier.points] == ["alpha 0.5", "alpha 0.9", "standard alone", "robust alone"]
    assert (frontier.images, frontier.threat, frontier.suite) == (30, "linf 0.1", "fast")
    kept = {path.stem: read_profile(path) for path in (tmp_path / "mixed" / "sweep").glob("*.parquet")}
    assert {profile.header.split for profile in kept.values()} == {"validation"}
    held = {
        name.rpartition("-")[0].replace("-", " "): profile.robust().mean(axis=0).tolist()
        for name, profile in kept.items()
    }
    assert held["robust within"][0] == held["robust alone"][0]
    held["robust alone"] = min(held["robust alone"], held["robust within"])  # attacked by itself and as mixtures are
    for point in frontier.points:
        assert held[point.name] == pytest.approx([point.clean.value, point.robust.value])
    best = max(frontier.points[:2], key=lambda p: (p.clean.value, p.robust.value, p.alpha_low))
    mixed = load_model(tmp_path / "mixed")
    assert isinstance(mixed, MixedClassifier)
    assert mixed.alpha_low == mixed.alpha_high == best.alpha_low
    assert frontier.points[frontier.chosen] == best
    assert (
        main(["profile", f"run:{tmp_path / 'mixed'}", "--limit", "20", "--suite", "fast", "--soundness", "false"]) == 0
    )
    made = read_profile(tmp_path / "mixed" / "profile.parquet")
    assert (made.header.norm, made.epsilons[-1], len(made)) == ("linf", 0.1, 20)
    assert made.header.surrogates == ("joint", "robust", "standard")
    recipe = ["mix", "--config", str(tmp_path / "mixed" / "recipe.yaml"), "--resume"]
    assert main([*recipe, "--scale_robust", "2"]) == 2
    assert "was started with scale_robust 1.0, not 2.0" in capsys.readouterr().err
    capsys.readouterr()
    assert main([*recipe, "--lose", "20", "--alphas", "1"]) == 0
    assert "profile.parquet is about another model than the one in" in capsys.readouterr().err
    robust = load_model(branches[1].removeprefix("run:"))
    assert load_model(tmp_path / "mixed").alpha_low == 1
    assert (
        read_frontier(tmp_path / "mixed" / "frontier.json").points[0].robust.value == frontier.points[-1].robust.value
    )
    assert load_model(tmp_path / "mixed").robust.digest() == robust.digest()


def test_a_gate_is_trained_alone_and_resumes(branches, tmp_path):
    options = {
        "method": "network",
        "alphas": [0.3, 0.6],
        "lose": 100.0,
        "training": poise.Training(epochs=2, batch_size=64, learning_rate=3e-3),
        "objective": poise.Mixing(steps=2),
        **QUICK,
    }
    run = poise.mix(*branches, out=tmp_path / "gate", **options)
    rows = run.history()
    assert [row["epoch"] for row in rows] == [0, 1]
    assert {"train/gate", "train/told", "train/accuracy"} <= set(rows[0])
    mixed = run.classifier()
    assert mixed.alpha_low in {0.3, 0.6}
    frontier = read_frontier(run.path / "frontier.json")
    bounds = [(point.alpha_low, point.alpha_high) for point in frontier.points[:-2]]
    low = bounds[2][0]
    assert bounds == [(0.3, 1.0), (0.6, 1.0), (low, 0.99), (low, 0.95), (low, 0.9)]
    assert (mixed.alpha_low, mixed.alpha_high) == bounds[frontier.chosen]
    assert (frontier.alphas.low, frontier.alphas.high) == bounds[frontier.chosen]
    for role, address in zip(("standard", "robust"), branches, strict=True):
        assert getattr(mixed, role).digest() == load_model(address.removeprefix("run:")).digest(), "a branch has moved"
    assert "gate" in mixed.surrogates()
    (run.path / "model.safetensors").unlink()
    (run.path / "frontier.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (run.path / "sweep").iterdir()}
    again = poise.mix(*branches, out=tmp_path / "gate", resume=True, **options)
    assert again.classifier().digest() == mixed.digest()
    assert {path: path.stat().st_mtime_ns for path in (run.path / "sweep").iterdir()} == kept
    assert len(again.history()) == 2


def test_a_gate_is_trained_at_the_scale_that_validation_images_ask_for(branches, tmp_path, capsys):
    options = {
        "method": "network",
        "alpha": 0.4,
        "calibrate": True,
        "training": poise.Training(epochs=1, batch_size=64),
        "objective": poise.Mixing(steps=1),
        **QUICK,
    }
    run = poise.mix(*branches, out=tmp_path / "scaled", **options)
    mixed = run.classifier()
    images = sample(poise.open_data("digits", limit=300).validation, 30)
    known = held_out(mixed.robust.eval(), images, poise.Threat(epsilon=0.1), 0)
    expected = calibrated_scale(known, 0.985).blend.scale_robust
    assert expected != 1
    assert mixed.scales == (1.0, expected)
    assert f"calibrated: the robust branch's logits are scaled by {expected:.4g}" in capsys.readouterr().err
    assert (mixed.alpha_low, mixed.alpha_high) == (0.4, 1.0)
    assert not (run.path / "frontier.json").exists()
    (run.path / "model.safetensors").unlink()
    again = poise.mix(*branches, out=tmp_path / "scaled", resume=True, **options)
    assert again.classifier().digest() == mixed.digest()


@pytest.mark.parametrize(("best", "chosen"), [(0.95, (0.6, 0.95)), (1.0, (0.6, 1.0))])
def test_the_choice_is_made_among_all_bounds_of_a_gate(tmp_path, best, chosen):
    """Of the lower bounds 0.6 is the best; an upper one below 1 is taken where it gains something."""

    class Known(Sweep):
        def points(self, mixed, blends, beside=()):
            for blend in blends:
                bounds = blend.alpha_low, blend.alpha_high
                clean = 50 + 20 * (bounds[0] == 0.6) + 10 * (bounds[1] == best)
                yield Point(
                    name=str(bounds),
                    alpha_low=bounds[0],
                    alpha_high=bounds[1],
                    clean=share(clean, 100),
                    robust=share(40, 100),
                )

        def measured(self, classifier, name):
            return Point(name=name, alpha_low=1.0, alpha_high=1.0, clean=share(50, 100), robust=share(40, 100))

    branch = linear_classifier(3, (1, 3, 3))
    mixed = MixedClassifier.of(branch, branch, Blend(alpha_low=0.0, alpha_high=1.0), SlopeGate(1.0))
    sweep = Known(
        images=random_images(branch, 4), threat=poise.Threat(epsilon=0.1), suite="fast", seed=0, folder=tmp_path
    )
    frontier, blend = _tried(sweep, mixed, [replace(mixed.blend, alpha_low=low) for low in (0.5, 0.6, 0.92)], 1.0, 3)
    assert (blend.alpha_low, blend.alpha_high) == chosen
    assert frontier.points[frontier.chosen].name == str(chosen)
    assert [point.alpha_high for point in frontier.points] == [1.0, 1.0, 1.0, 0.99, 0.95, 0.9, 0.0, 1.0]
    assert [each.alpha_high for each in capped(replace(mixed.blend, alpha_low=0.92))] == [0.99, 0.95]


class _Falling(Sweep):
    """Clean accuracy falls with alpha, and robust accuracy is there from 0.72 on."""

    def points(self, mixed, blends, beside=()):
        for blend in blends:
            clean, robust = 1000 - round(500 * blend.alpha_low), 400 if blend.alpha_low >= 0.72 else 300
            yield _point(blend.alpha_low, clean, robust)

    def measured(self, classifier, name):
        return _point(1.0, 500, 400)


def _point(alpha, clean, robust):
    figures = {"clean": share(clean, 1000), "robust": share(robust, 1000)}
    return Point(name=f"alpha {alpha:g}", alpha_low=alpha, alpha_high=alpha, **figures)


@pytest.mark.parametrize(
    ("alphas", "refine", "further"),
    [
        ((0.6, 0.7, 0.8, 0.9), 3, [0.75, 0.725, 0.7125]),  # as often as was asked for
        ((0.9, 0.6), 1, [0.75]),
        ((0.8, 0.9), 3, []),  # nothing below that loses too much
        ((0.6, 0.8), 0, []),
    ],
)
def test_the_choice_is_refined_between_alphas_that_keep_enough_and_too_little(alphas, refine, further, tmp_path):
    branch = linear_classifier(3, (1, 3, 3))
    mixed, threat = MixedClassifier.of(branch, branch, 0.5), poise.Threat(epsilon=0.1)
    sweep = _Falling(images=random_images(branch, 4), threat=threat, suite="fast", seed=0, folder=tmp_path)
    other = replace(Blend.constant(0.71), scale_robust=2.0)  # keeps too little, and is another mixture
    frontier, blend = _tried(sweep, mixed, [*map(Blend.constant, alphas), other], 1.0, refine)
    tried = [point.alpha_low for point in frontier.points[:-2]]
    assert tried == pytest.approx([*alphas, 0.71, *further])
    best = min(alpha for alpha in tried if alpha >= 0.72)
    assert blend == Blend.constant(best)
    assert frontier.points[frontier.chosen].alpha_low == best


def test_refinement_is_named_like_what_it_stands_beside_and_measured_once(branches, tmp_path, capsys):
    options = {"alphas": [0.5, 1.0], "lose": 0.0, "calibrate": True, **QUICK}
    plain = poise.mix(*branches, refine=0, out=tmp_path / "mixed", **options)
    before = read_frontier(plain.path / "frontier.json")
    kept = {path: path.stat().st_mtime_ns for path in (plain.path / "sweep").iterdir()}
    finer = poise.mix(*branches, refine=2, resume=True, out=tmp_path / "mixed", **options)
    after = read_frontier(finer.path / "frontier.json")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    new = [point for point in after.points if point not in before.points]
    assert len(new) == len(after.points) - len(before.points) <= 2
    assert len({", scale " in point.name for point in after.points[:-2]}) == 1
    assert after.points[after.chosen].clean.value >= before.points[before.chosen].clean.value


def test_a_negative_refinement_is_refused(branches, tmp_path):
    with pytest.raises(Misuse, match="refine is a number"):
        poise.mix(*branches, refine=-1, out=tmp_path / "mixed", **QUICK)
    assert not (tmp_path / "mixed").exists()


def test_nonlinear_mixing_needs_no_training_and_is_saved(branches, tmp_path):
    run = poise.mix(*branches, method="nonlinear", lose=100.0, out=tmp_path / "nonlinear", **QUICK)
    mixed = run.classifier()
    assert mixed.blend.sharpening is not None
    assert list(mixed.surrogates()) == ["joint", "robust", "standard", "linear"]
    assert not (run.path / "metrics.jsonl").exists()
    points = json.loads((run.path / "frontier.json").read_text())["points"]
    alphas = [point["alpha_low"] for point in points[:-2]]
    assert len(set(alphas)) > 1
    assert min(alphas) >= 0.5


def test_calibration_brings_a_scale_and_alphas_of_its_own(branches, tmp_path, capsys):
    run = poise.mix(*branches, calibrate=True, alphas=[0.6, 1.0], lose=100.0, out=tmp_path / "calibrated", **QUICK)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("calibrated: alpha ")]
    tried = [point.alpha_low for point in read_frontier(run.path / "frontier.json").points[:-2]]
    assert tried[:2] == [0.6, 1.0]
    assert {shown_alpha(alpha) for alpha in tried[2:]} == {line.split()[2] for line in told}
    assert len(told) == 5
    assert run.classifier().alpha_low in tried


def test_blends_of_one_alpha_and_other_scales_are_measured_once_each(tmp_path):
    standard, robust = (linear_classifier(3, (1, 3, 3), seed) for seed in (2, 11))
    mixed = MixedClassifier.of(standard, robust, 0.6)
    sweep = Sweep(
        images=random_images(robust, 12), threat=poise.Threat(epsilon=0.05), suite="fast", seed=0, folder=tmp_path
    )
    blends = [Blend(alpha_low=0.6, alpha_high=0.6, scale_robust=scale) for scale in (0.5, 1.0, 30.0)]
    found = list(sweep.points(mixed, blends))
    assert [point.name for point in found] == ["alpha 0.6, scale 0.5", "alpha 0.6, scale 1", "alpha 0.6, scale 30"]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 3
    assert {read_profile(path).header.model for path in kept} == {mixed.blended(blend).digest() for blend in blends}
    assert list(sweep.points(mixed, blends)) == found
    assert [point.name for point in sweep.points(mixed, blends[:1])] == ["alpha 0.6"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept


class _Saying(nn.Module):
    """The same logits for every image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def test_clean_accuracy_is_that_of_the_mixture_as_it_will_be_used():
    """Logits that float64 tells apart and float32 does not: the mixture answers in the branches' dtype."""
    made = linear_classifier(3, (1, 3, 3))
    branches = [Classifier(_Saying(0.0, second, -50.0), made.blueprint) for second in (0.0, 1e-9)]
    mixed, images = MixedClassifier.of(*branches, 0.5).eval(), random_images(made, 8)
    alphas = [Blend.constant(alpha) for alpha in (0.0, 0.5, 1.0)]
    with torch.no_grad():
        used = [
            (mixed.at(blend.alpha_low)(images.images(torch.arange(8))).argmax(1) == images.labels).double().mean()
            for blend in alphas
        ]
    assert [each.value for each in clean_accuracies(mixed, alphas, images)] == pytest.approx([float(u) for u in used])
    assert (images.labels == 0).any()


def test_a_robust_branch_without_mistakes_is_mixed_uncalibrated(branches, tmp_path, capsys):
    run = poise.mix(
        *branches, calibrate=True, alphas=[0.6, 1.0], lose=100.0, out=tmp_path / "plain", limit=300, validate_on=1
    )
    assert "not calibrated: " in capsys.readouterr().err
    assert run.classifier().scales == (1.0, 1.0)


def test_a_given_alpha_is_taken_without_trying(branches, tmp_path):
    run = poise.mix(*branches, alpha=0.75, scale_robust=2.0, out=tmp_path / "given", **QUICK)
    assert (run.classifier().alpha_low, run.classifier().scales) == (0.75, (1.0, 2.0))
    assert not (run.path / "frontier.json").exists()


def test_what_cannot_be_mixed_is_refused_before_anything_is_made(branches, tmp_path):
    out = tmp_path / "none"
    for options, words in (
        ({"alpha": 1.5}, "from 0 to 1"),
        ({"lose": -1.0}, "at least 0; got -1"),
        ({"method": "nonlinear", "alpha": 0.9}, "finds its alphas by calibration"),
        ({"objective": poise.Standard()}, "trained by the objective mixing; got standard"),
        ({"validate_on": 0}, "validate_on must be at least 1"),
        ({"method": "nonlinear", "calibrate": True}, "nonlinear mixing has a scale of its own"),
        ({"method": "nonlinear", "scale_standard": 5.0}, "nonlinear mixing has a scale of its own"),
        ({"alpha": 0.7, "alphas": [0.1, 0.2]}, "leave one of them out"),
    ):
        with pytest.raises(Misuse, match=words):
            poise.mix(*branches, out=out, **options)
    with pytest.raises(Misuse, match="built by foreign code"):
        poise.mix("python:tests.models.factories:digits_network", branches[1], out=out)
    assert not out.exists()


def test_what_was_tried_is_kept_where_nothing_can_be_chosen_and_swapped_branches_are_noticed(
    branches, tmp_path, capsys
):
    out = tmp_path / "unreached"
    with pytest.raises(Misuse, match=r"no mixture keeps robust accuracy.*What was tried is in .*frontier\.json"):
        poise.mix(*branches, alphas=[0.0, 0.1], lose=0.0, out=out, **QUICK)
    frontier = read_frontier(out / "frontier.json")
    assert frontier.chosen is None
    assert len(frontier.points) == 4
    assert "are they swapped?" not in capsys.readouterr().err
    run = poise.mix(*branches, alphas=[0.0, 0.1], lose=100.0, out=out, resume=True, **QUICK)
    assert read_frontier(run.path / "frontier.json").chosen is not None
    poise.mix(*reversed(branches), alphas=[0.5], lose=100.0, out=tmp_path / "swapped", **QUICK)
    assert "are they swapped?" in capsys.readouterr().err


def test_a_smoothed_branch_has_no_gate(branches, tmp_path):
    poise.certify(branches[1], sigma=0.1, samples=100, selection=10, limit=4, out=tmp_path / "smoothed")
    with pytest.raises(Misuse, match=r"see an image as \d+, and a gate wants one.*--method constant"):
        poise.mix(branches[0], f"run:{tmp_path / 'smoothed'}", method="network", out=tmp_path / "none", **QUICK)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("alpha", "text"),
    [(0.0, "0"), (0.5, "0.5"), (0.97, "0.97"), (0.99995187, "0.9999519"), (1.0, "1"), (0.00123456, "0.00123")],
)
def test_an_alpha_is_shown_by_what_is_left(alpha, text):
    assert shown_alpha(alpha) == text


def test_two_classes_are_not_mixed_nonlinearly(branches, tmp_path):
    for place in range(20):
        file = tmp_path / "photos" / ("cat", "dog")[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * place).save(file)
    with pytest.raises(Misuse, match=r"at least 3 classes.*got 2.*--method constant --calibrate"):
        poise.mix(*branches, f"folder:{tmp_path / 'photos'}", method="nonlinear", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_constraint_that_no_mixture_meets_is_told_with_the_nearest():
    def point(alpha, clean, robust):
        return Point(
            name=f"alpha {alpha}", alpha_low=alpha, alpha_high=alpha, clean=share(clean, 100), robust=share(robust, 100)
        )

    points = [point(0.5, 95, 20), point(0.7, 90, 48), point(0.8, 90, 49), point(0.9, 80, 50)]
    assert [choose(points, share(50, 100), lose) for lose in (0, 1, 2, 100)] == [3, 2, 2, 0]
    with pytest.raises(Misuse, match=r"within 1 points of 60.0%; the nearest, alpha 0.9, has 50.0%"):
        choose(points, share(60, 100), 1)
