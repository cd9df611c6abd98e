from __future__ import annotations

import time
from unittest.mock import Mock

import pytest
import torch

from poise.core.misuse import Failure, Misuse
from poise.core.norms import inside
from poise.core.threat import Threat
from poise.data import InMemory
from poise.evaluation.certificates.certification import Certification, certify
from poise.evaluation.certificates.sampling import Sampling
from poise.models import smooth
from poise.models.mixing import Blend, MixedClassifier, Sharpening, plan_gate
from poise.models.mixing.gate import Gate
from poise.models.mixing.surrogates import Joint
from tests.commands.page.conftest import CLASSES, network
from tests.commands.page.test_uploads import RAMP, encoded, malformed


def asked(classifier):
    """Counts forward passes of a model and of the parts of a mixture."""
    counter = Mock()
    parts = [classifier, *(getattr(classifier, name) for name in ("standard", "robust") if hasattr(classifier, name))]
    for part in parts:
        part.register_forward_pre_hook(lambda *_: counter() and None)
    return counter


@pytest.mark.parametrize(
    "blend",
    [
        Blend.constant(0.6),
        Blend(alpha_low=0.6, alpha_high=0.6, scale_standard=0.5, scale_robust=3.0),
        Blend(alpha_low=0.6, alpha_high=0.6, sharpening=Sharpening(scale=1.0, power=2.0, shift=-0.5)),
    ],
)
@pytest.mark.parametrize("alpha", [None, 0.0, 0.3, 0.6, 0.999, 1.0])
def test_every_alpha_gives_what_the_mixture_at_that_alpha_says_and_runs_nothing(exhibit_of, blend, alpha):
    classifier = MixedClassifier.of(network(0), network(1), blend)
    exhibit = exhibit_of(classifier)
    shown = exhibit.example(3)
    model = classifier if alpha is None else classifier.at(alpha)
    expected = {"standard": classifier.standard, "robust": classifier.robust, "mixed": model}
    expected = {name: each(shown.image).softmax(1)[0] for name, each in expected.items()}
    counter = asked(classifier)
    found = exhibit.predictions(shown.outputs, alpha)
    assert list(found) == ["standard", "robust", "mixed"]
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each)
    assert not counter.called


def test_a_gate_chooses_alpha_until_a_person_does(exhibit_of):
    branches = network(0), network(1)
    gate = Gate(plan_gate(*branches, width=0.25))
    classifier = MixedClassifier.of(*branches, Blend(alpha_low=0.2, alpha_high=0.9), gate).eval()
    exhibit = exhibit_of(classifier)
    shown = exhibit.example(1)
    assert exhibit.own_alpha(shown.outputs) == pytest.approx(float(classifier.alpha(shown.image)), abs=1e-6)
    own = exhibit.predictions(shown.outputs, None)["mixed"]
    torch.testing.assert_close(own, classifier(shown.image).exp()[0])
    torch.testing.assert_close(
        exhibit.predictions(shown.outputs, 0.4)["mixed"], classifier.at(0.4)(shown.image).exp()[0]
    )
    assert exhibit.attack(shown, None, 51).alpha is None


def test_moving_alpha_takes_a_few_milliseconds(exhibit):
    shown = exhibit.example(0)
    seconds = []
    for step in range(50):
        begun = time.perf_counter()
        exhibit.predictions(shown.outputs, step / 50)
        seconds.append(time.perf_counter() - begun)
    assert sorted(seconds)[25] < 0.05


def test_a_single_model_is_shown_alone(exhibit_of):
    classifier = network(0)
    exhibit = exhibit_of(classifier)
    shown = exhibit.example(2)
    assert exhibit.own_alpha(shown.outputs) is None
    found = exhibit.predictions(shown.outputs, None)
    assert list(found) == ["model"]
    torch.testing.assert_close(found["model"], classifier(shown.image).softmax(1)[0])


def test_an_attack_stays_in_the_ball_of_the_slider_and_changes_what_the_mixture_at_that_alpha_says(exhibit, mixed):
    shown = exhibit.example(0)
    found = exhibit.attack(shown, 0.2, 51)
    attempt = found.attempt
    assert (attempt.threat, attempt.found, found.of, found.alpha) == (Threat(epsilon=0.2), True, "image 0", 0.2)
    assert bool(inside(attempt.image, shown.image, torch.tensor([0.2]), "linf").all())
    assert attempt.label == int(mixed.at(0.2)(shown.image).argmax()) != int(mixed.at(0.2)(attempt.image).argmax())
    torch.testing.assert_close(found.outputs.logits[1], mixed.robust(attempt.image))
    again = exhibit.attack(shown, 0.2, 51)
    assert torch.equal(again.attempt.image, attempt.image)


def test_a_mixture_is_attacked_through_its_other_outputs_too(exhibit_of, monkeypatch):
    exhibit = exhibit_of(MixedClassifier.of(network(0), network(1), 0.5), steps=3)
    tried = []

    def nothing(search, model, problem, through=None):
        tried.append(through)
        return problem.images, torch.tensor([False])

    monkeypatch.setattr("poise.commands.page.attacking.run_search", nothing)
    found = exhibit.attack(exhibit.example(0), None, 10)
    assert not found.attempt.found
    assert tried[0] is None
    assert isinstance(tried[1], Joint)
    assert tried[2:] == [exhibit.classifier.robust, exhibit.classifier.standard]


@pytest.mark.parametrize(("value", "line"), [(0.0, "nothing to attack"), (-1, "between 0 and"), (500, "between 0 and")])
def test_an_epsilon_that_the_slider_does_not_have_is_refused(exhibit, value, line):
    with pytest.raises(Misuse, match=line):
        exhibit.attack(exhibit.example(0), None, value)


def test_an_attack_whose_time_is_up_stops_and_leaves_the_model_ready(exhibit_of):
    classifier = network(0)
    exhibit = exhibit_of(classifier, steps=100_000, timeout=0.3, threat=Threat(epsilon=1e-6))
    shown = exhibit.example(0)
    counter = asked(classifier)
    begun = time.perf_counter()
    with pytest.raises(Failure, match=r"stopped after 0.3 s"):
        exhibit.attack(shown, None, exhibit.scale.start)
    assert time.perf_counter() - begun < 2
    calls = counter.call_count
    assert calls > 5
    time.sleep(0.2)
    assert counter.call_count == calls
    assert not any(module.training for module in classifier.modules())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    torch.testing.assert_close(exhibit.predictions(exhibit.example(0).outputs, None)["model"].sum(), torch.tensor(1.0))


@pytest.mark.parametrize("alpha", [None, 0.9])
def test_a_radius_is_the_certificates_own_for_the_alpha_that_is_shown(exhibit, mixed, alpha):
    shown = exhibit.example(4)
    model = mixed if alpha is None else mixed.at(alpha)
    alone = InMemory("x", CLASSES, ("x",), model(shown.image).argmax(1), shown.image)
    expected = certify(model, alone, Certification(method="local", norm="linf")).radii[0]
    assert expected > 0
    assert exhibit.prove(shown, alpha).radius == expected


def test_below_a_half_nothing_is_proven(exhibit):
    proof = exhibit.prove(exhibit.example(4), 0.3)
    assert (proof.radius, proof.alpha) == (0.0, 0.3)


def test_what_cannot_be_certified_says_why(exhibit_of):
    classifier = MixedClassifier.of(
        network(0),
        network(1),
        Blend(alpha_low=0.6, alpha_high=0.6, sharpening=Sharpening(scale=1.0, power=2.0, shift=-0.5)),
    )
    exhibit = exhibit_of(classifier)
    assert "nonlinearity" in exhibit.prove(exhibit.example(0), None).reason
    off = exhibit_of(network(0), certification=None)
    assert "switched off" in off.prove(off.example(0), None).reason


def test_a_smoothed_model_is_certified_by_sampling(exhibit_of):
    sampling = Sampling(samples=200)
    exhibit = exhibit_of(
        smooth(network(0), sigma=0.02),
        certification=Certification(method="smoothing", sampling=sampling),
        threat=Threat(norm="l2", epsilon=0.5),
    )
    proof = exhibit.prove(exhibit.example(0), None)
    assert proof.certificate.confidence == 0.999
    assert proof.radius > 0


def test_an_upload_is_shown_without_a_label_and_a_thousand_malformed_ones_change_nothing(exhibit):
    before = exhibit.upload(encoded(RAMP))
    assert before.label is None
    refused = 0
    for content in malformed(1000):
        try:
            exhibit.upload(content)
        except Misuse:
            refused += 1
    assert refused > 700
    after = exhibit.upload(encoded(RAMP))
    assert after.name == before.name
    assert all(torch.equal(*pair) for pair in zip(after.outputs.logits, before.outputs.logits, strict=True))
    assert exhibit.attack(after, None, 51).of == before.name


@pytest.mark.parametrize("options", [{"steps": 0}, {"timeout": 0}, {"threat": Threat(epsilon=0)}])
def test_what_cannot_be_shown_is_refused(exhibit_of, options):
    with pytest.raises(Misuse):
        exhibit_of(network(0), **options)


def test_rows_that_are_not_there_are_refused(exhibit):
    with pytest.raises(Misuse, match="there are 10 images"):
        exhibit.example(10)
