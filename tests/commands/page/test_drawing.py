from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from poise.commands.page import drawing
from poise.commands.page.answers import Proof
from poise.commands.page.scale import Scale
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.evaluation.certificates.certificate import Certificate
from tests.commands.page.conftest import CLASSES

LINF = Scale.of(Threat(epsilon="8/255"))


@pytest.mark.parametrize(
    ("threat", "start", "step", "maximum"),
    [
        (Threat(epsilon="8/255"), 8, 0.1, 16),
        (Threat(epsilon=0.2), 51, 1, 102),
        (Threat(epsilon=0.9), 229.5, 2, 255),
        (Threat(norm="l2", epsilon=0.5), 0.5, 0.005, 1),
        (Threat(norm="l1", epsilon=12), 12, 0.2, 24),
    ],
)
def test_the_slider_goes_to_twice_the_epsilon_in_round_steps(threat, start, step, maximum):
    scale = Scale.of(threat)
    assert (scale.start, scale.step, scale.maximum) == pytest.approx((start, step, maximum))
    assert float(scale.epsilon(scale.start)) == pytest.approx(threat.epsilon)


@pytest.mark.parametrize("value", [-0.1, 16.2, float("nan")])
def test_values_beyond_the_slider_are_refused(value):
    with pytest.raises(Misuse, match="lies between 0 and 16"):
        LINF.epsilon(value)


def test_a_radius_has_its_place_on_the_slider():
    assert LINF.place(4 / 255) == pytest.approx(0.25)
    assert LINF.place(1.0) == 1


@pytest.mark.parametrize(("largest", "factor"), [(0.5, 1), (0.1, 5), (8 / 255, 10), (0.001, 500), (0.0, 1), (0.9, 0.5)])
def test_perturbations_are_amplified_by_a_round_factor_that_clips_nothing(largest, factor):
    delta = torch.tensor([[[0.0, -largest, largest / 3]]])
    assert drawing.amplification(delta) == pytest.approx(factor)
    assert float((0.5 + drawing.amplification(delta) * delta).abs().max()) <= 1


def shown_and_attacked(exhibit):
    shown = exhibit.example(0)
    attacked = replace(exhibit, steps=3).attack(shown, None, 51)
    return shown, replace(attacked, attempt=replace(attacked.attempt, found=True))


def test_pictures_state_the_factor_and_the_length(exhibit):
    shown, attacked = shown_and_attacked(exhibit)
    assert drawing.pictures(shown, None).count("<img") == 1
    told = drawing.pictures(shown, attacked)
    assert told.count("<img") == 3
    size = float((attacked.attempt.image - shown.image).abs().max())
    assert f"linf length {size:.3g}" in told
    assert f"perturbation times {drawing.amplification(attacked.attempt.image - shown.image):g}" in told


def test_predictions_stand_side_by_side_with_names_escaped():
    clean = {"standard": torch.tensor([0.7, 0.2, 0.1]), "mixed": torch.tensor([0.1, 0.25, 0.65])}
    told = drawing.predictions(CLASSES, clean, None, 0.6)
    assert "<b>owl</b>" not in told
    assert re.findall(r"<span>(.*?)</span>", told)[6:8] == ["&lt;b&gt;owl&lt;/b&gt;", "65.0%"]
    assert "mixed, alpha 0.6" in told
    assert told.count("<tr>") == 2
    assert drawing.predictions(CLASSES, clean, clean, 0.6).count("<tr>") == 3


def test_a_verdict_says_what_was_found_and_that_finding_nothing_proves_nothing(exhibit):
    shown, attacked = shown_and_attacked(exhibit)
    told = drawing.verdict(("a", "b", "c"), shown, attacked, 2)
    assert f"from {'abc'[attacked.attempt.label]} to c (apgd-ce, 3 steps" in told
    vain = replace(attacked, alpha=0.25, attempt=replace(attacked.attempt, found=False))
    told = drawing.verdict(("a", "b", "c"), shown, vain, 2)
    assert "did not change the prediction of the mixture at alpha 0.25" in told
    assert "another one might" in told


def proof(radius):
    certificate = Certificate(method="local", norm="linf", radii=np.array([radius]), facts={"mean": 3})
    return Proof(of="x", alpha=None, certificate=certificate)


@pytest.mark.parametrize(
    ("value", "line"), [(3.9, "no attack can change the prediction"), (4.1, "an attack may succeed")]
)
def test_the_mark_stands_at_the_radius_and_the_sentence_follows_epsilon(value, line):
    told = drawing.standing(LINF, proof(4 / 255), value)
    assert "--certified: 0.250000" in told
    assert "linf 0.0157, 4/255 (local, linf)" in told
    assert line in told


def test_without_a_proof_there_is_no_mark():
    assert "--certified" not in drawing.standing(LINF, None, 1)
    told = drawing.standing(LINF, Proof(of="x", alpha=None, reason="a <layer> without a rule"), 1)
    assert "--certified" not in told
    assert "a &lt;layer&gt; without a rule" in told
    assert "nothing could be proven" in drawing.standing(LINF, proof(0.0), 1)


def test_refusals_are_escaped():
    assert drawing.refusal("") == ""
    assert "<script>" not in drawing.refusal("<script>")
