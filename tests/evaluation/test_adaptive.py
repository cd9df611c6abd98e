"""Mixed models are attacked through all that they offer, and planted weaknesses come to light."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from poise.attacks.apgd import APGD
from poise.attacks.search import Search
from poise.attacks.suites import SUITES, adaptive, units
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import InMemory
from poise.evaluation import Examination, examine
from poise.evaluation.brackets import Brackets, Work
from poise.evaluation.profile_file import read_profile, write_profile
from poise.evaluation.soundness.adaptive import Adaptive
from poise.evaluation.soundness.catalogue import inspect_profile
from poise.evaluation.soundness.examined import Examined
from poise.evaluation.soundness.gradients import ZeroGradients
from poise.evaluation.surrogate_brackets import SurrogateBrackets
from poise.models import Blueprint, Classifier, open_model, smooth
from poise.models.mixing import Blend, Gate, MixedClassifier, Sharpening, plan_gate
from poise.models.mixing.surrogates import surrogates_of
from tests.evaluation.soundness.subjects import digits, healthy, subject
from tests.models_for_tests import linear_classifier, random_images

EPSILON = 0.1
_LIKE = {"classes": tuple("0123456789"), "shape": (1, 8, 8)}


@cache
def _images(count: int = 16):
    return digits(count)


def _sound(alpha: float = 0.5) -> MixedClassifier:
    return MixedClassifier.of(healthy(), healthy(), alpha)


class _Underflowing(MixedClassifier):
    """The formula of the official code: the logarithm of float32 probabilities, clamped where they underflow to 0."""

    def forward(self, images, *, with_gate=False):
        p, q = (branch(images).float().mul(300).softmax(1) for branch in (self.standard, self.robust))
        return ((1 - self.alpha_low) * p + self.alpha_low * q).clamp(min=1e-38).log()


class _DeafGate(Gate):
    """A gate that trusts the standard branch whatever it sees, and has long stopped listening."""

    def forward(self, standard, robust):
        return super().forward(standard, robust) - 500


def _planted(kind: str) -> MixedClassifier:
    if kind == "underflow":
        mixed = _sound()
        return _Underflowing(mixed.network, mixed.blueprint)
    standard, robust = healthy(), healthy()
    blend = Blend(alpha_low=0.0, alpha_high=0.9, scale_standard=300.0)
    return MixedClassifier.of(standard, robust, blend, _DeafGate(plan_gate(standard, robust)))


def _judged(model, images, epsilon: float = EPSILON, **options):
    options = {"suite": "fast", "points": ()} | options
    return examine(model, images, Examination(threat=Threat(epsilon=epsilon), **options), model_address="made")


@pytest.mark.parametrize("suite", SUITES)
def test_surrogates_come_after_the_whole_suite_and_repeat_its_gradient_searches(suite):
    own = units(suite, "linf", 10, Stream.seeded(0))
    found = adaptive(own, ("robust", "standard"))
    assert found[: len(own)] == own
    following = [unit for unit in own if any(unit.search.rhythm)]
    for name in ("robust", "standard"):
        through = [unit for unit in found[len(own) :] if unit.through == name]
        assert [(u.search.name, u.rank, u.restart) for u in through] == [
            (u.search.name, u.rank, u.restart) for u in following
        ]
        assert all(unit.search.stream != other.search.stream for unit, other in zip(through, following, strict=True))
    if suite == "autoattack":
        costs = [unit.search.queries for unit in found[len(own) :]]
        names = [unit.name for unit in found[len(own) :]]
        assert names[:2] == ["apgd-ce through robust", "apgd-ce through standard"]
        assert (len(own), len(found)) == (20, 58)
        assert costs == sorted(costs)


@pytest.mark.parametrize("kind", ["underflow", "gate"])
def test_a_planted_weakness_that_hides_its_gradient_is_found_through_the_surrogates(kind):
    """Both models are as weak as the branch that they follow, and APGD on their own output says otherwise."""
    planted, images = _planted(kind), _images()
    weak = _judged(healthy(), images).robust()[:, -1].sum()
    alone = _judged(planted, images, adaptive=False).robust()[:, -1].sum()
    found = _judged(planted, images)
    assert alone >= weak + 4, "the plant hides nothing"
    assert found.robust()[:, -1].sum() <= weak
    assert any("through" in by for by in found.broken_by)


def test_a_smoothed_branch_whose_votes_have_no_gradient_is_attacked_through_soft_ones():
    """The other branch is sure of nothing, so that its gradients lead nowhere."""
    branch = smooth(healthy(), sigma=0.15, samples=8)
    mixed, images = MixedClassifier.of(open_model("small", **_LIKE, seed=4), branch, 0.9).eval(), _images(12)
    blind = MixedClassifier.of(mixed.standard, Classifier(branch.network, branch.blueprint), 0.9).eval()
    alone, found = (_judged(model, images) for model in (blind, mixed))
    assert tuple(mixed.surrogates()) == ("joint", "robust", "standard", "robust soft")
    assert found.robust()[:, -1].sum() <= alone.robust()[:, -1].sum() - 4
    assert any(by.endswith(("through joint", "through robust soft")) for by in found.broken_by)


def test_a_weakness_hidden_in_a_mixture_is_found_under_a_smoothing_of_it():
    planted, images = _planted("gate"), _images()
    weak = _judged(healthy(), images).robust()[:, -1].sum()
    found = _judged(smooth(planted, sigma=1e-3, samples=2, vote="soft").eval(), images)
    assert found.robust()[:, -1].sum() <= weak
    assert any("through inner" in by for by in found.broken_by)


def test_a_saturated_gate_is_pushed_through_its_raw_value():
    """Only the gate stands between the attack and the standard branch, and its sigmoid is flat in float64 already."""
    standard, robust = healthy(), open_model("small", **_LIKE, seed=4)

    class Wall(Gate):
        def forward(self, standard, robust):
            return 2000 + super().forward(standard, robust)

    mixed = MixedClassifier.of(
        standard, robust, Blend(alpha_low=0.0, alpha_high=1.0), Wall(plan_gate(standard, robust))
    ).eval()
    images = _images(4).images(torch.arange(4)).requires_grad_()
    assert (torch.autograd.grad(mixed.alpha(images).sum(), images)[0] == 0).all()
    raw = mixed.surrogates()["gate"](images)
    assert torch.allclose(raw, robust.eval()(images).log_softmax(1), atol=1e-4), "its values are those of the gate"
    own = torch.autograd.grad(raw[:, 0].sum(), images, retain_graph=True)[0]
    gain = (robust(images).log_softmax(1) - standard(images).log_softmax(1))[:, 0].detach() / 4
    pushed = torch.autograd.grad((gain * mixed.network.seen(images)[2]).sum(), images)[0]
    assert pushed.abs().amax() > 0
    plain = torch.autograd.grad(robust(images).log_softmax(1)[:, 0].sum(), images)[0]
    assert torch.allclose(own, plain + pushed, rtol=1e-3, atol=1e-5)


class _Half(nn.Module):
    """A linear map of the left or the right half of an image."""

    def __init__(self, seed: int, scale: float, *, left: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight, self.left = nn.Parameter(scale * torch.randn(4, 32, generator=generator)), left

    def forward(self, images):
        half = images[:, :, :, :4] if self.left else images[:, :, :, 4:]
        return (half.flatten(1) - 0.5) @ self.weight.T


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_weakness_of_both_branches_together_is_found_however_sure_one_of_them_is(scale):
    """Branches that read disjoint halves: an attack on either leaves the other right, one on both breaks nearly all."""
    blueprint = Blueprint(address="made", classes=tuple("abcd"), shape=(1, 8, 8))
    branches = [Classifier(_Half(0, scale, left=True), blueprint), Classifier(_Half(1, 0.25, left=False), blueprint)]
    mixed = MixedClassifier.of(branches[0], branches[1], 0.6).eval()
    images = torch.rand(1000, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = branches[0](images).argmax(1)
    chosen = (labels == branches[1](images).argmax(1)).nonzero()[:40, 0]
    images, labels = images[chosen], labels[chosen]
    ends = torch.zeros(40, dtype=torch.bool)
    for rival in range(4):
        ways = [(branch.network.weight[rival] - branch.network.weight[labels]).sign() for branch in branches]
        way = torch.cat([each.view(-1, 1, 8, 4) for each in ways], dim=3)
        ends |= mixed((images + 0.1 * way).clamp(0, 1)).argmax(1) != labels
    assert ends.sum() >= 36
    data = InMemory("made", blueprint.classes, tuple(map(str, range(40))), labels, images)
    held = torch.from_numpy(_judged(mixed, data).robust()[:, -1])
    assert (held & ends).sum() <= 1
    if scale > 1:
        blind = [name for name in mixed.surrogates() if name != "joint"]
        mixed.surrogates = lambda: {name: surrogates_of(mixed.network)[name] for name in blind}
        assert (torch.from_numpy(_judged(mixed, data).robust()[:, -1]) & ends).sum() >= 15, "nothing is hidden"


def test_branches_are_measured_once_and_in_full_precision():
    sizes = []
    for enabled in (False, True):
        mixed, passes = _sound(), []
        mixed.robust.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            sizes.append([mixed.surrogates()["joint"].sizes for _ in range(2)])
        assert len(passes) == 2, "one for each branch, which are the same network here"
    assert sizes[0] == sizes[1]
    assert sizes[0][0] == sizes[0][1]


def test_a_mixture_from_a_factory_is_attacked_as_one_and_blocked_where_it_hides():
    mixed, images = _sound(), _images(4)
    opened = Classifier(mixed, mixed.blueprint)
    assert tuple(opened.surrogates()) == ("joint", "robust", "standard")
    found = _judged(opened, images)
    assert Adaptive().inspect(Examined(profile=found, model=opened, images=images)).status == "pass"
    hidden = Classifier(nn.Sequential(mixed), mixed.blueprint)
    found = _judged(hidden, images)
    finding = Adaptive().inspect(Examined(profile=found, model=hidden, images=images))
    assert (finding.status, "inside the model is a Mixture" in finding.evidence) == ("block", True)


def _settled(brackets, outcome):
    """An example's bracket after all work, where `outcome` says at which point a unit's image lies, or None."""
    tried = []
    while (work := brackets.next(0)) is not None:
        tried.append(work)
        found = outcome(work)
        if found is None:
            brackets.fail(0, work)
        else:
            brackets.break_at(0, work, found)
    return int(brackets.robust_to[0]), int(brackets.broken_from[0]), tried


@pytest.mark.parametrize("mode", ["bisect", "ascending"])
@pytest.mark.parametrize("own", [1, 2, 5])
def test_no_course_of_attacks_makes_surrogates_raise_a_verdict(mode, own):
    """Whatever each unit finds at each point, however erratic: more units never leave an example with more."""
    lowered, right, points = 0, np.array([True]), 6
    for seed in range(300):
        random = np.random.default_rng(seed)
        falls = random.random((own + 4, points)) < random.random()
        lies_at = random.integers(1, points, (own + 4, points))

        def outcome(work, falls=falls, lies_at=lies_at):
            return int(min(work.point, lies_at[work])) if falls[work] else None

        alone = _settled(Brackets(right, points, own, mode), outcome)
        found = _settled(SurrogateBrackets(right, points, own, own + 4, mode), outcome)
        assert found[2][: len(alone[2])] == alone[2]
        assert found[0] <= alone[0]
        assert found[1] <= alone[1]
        assert found[0] + 1 == found[1]
        assert found[0] == 0 or {Work(unit, found[0]) for unit in range(own + 4)} <= set(found[2])
        assert not falls[:, found[0]].any() or found[0] == 0
        lowered += found[:2] != alone[:2]
    assert lowered > 5


@pytest.mark.parametrize("sharpening", [None, Sharpening(scale=2.0, power=2.0, shift=-0.5, linear_alpha=0.7)])
def test_it_is_never_more_optimistic_than_attacking_the_mixture_alone(sharpening):
    standard, robust = linear_classifier(4, (1, 3, 3), seed=2), linear_classifier(4, (1, 3, 3), seed=11)
    mixed = MixedClassifier.of(standard, robust, replace(Blend.constant(0.6), sharpening=sharpening)).double()
    images = random_images(mixed, 30, seed=2)
    alone, found = (
        _judged(mixed, images, adaptive=with_surrogates, points=(0.02, 0.04), epsilon=0.06)
        for with_surrogates in (False, True)
    )
    assert found.settled
    assert (found.broken_from < len(found.epsilons)).sum() > 0
    assert (found.broken_from <= alone.broken_from).all()
    assert (found.robust_to <= alone.robust_to).all()


def test_verdicts_are_the_worst_over_mixture_and_surrogates_by_brute_force():
    """At one epsilon: robust exactly where APGD, run by hand through each output, finds nothing."""
    from poise.attacks import Problem
    from poise.attacks.driver import run_search
    from tests.evaluation.soundness.subjects import batch

    mixed, images = _sound(0.7), _images(16)
    found = _judged(mixed, images)
    stream = Stream.seeded(0).fold("evaluation")
    search: Search = APGD(norm="linf", stream=stream, steps=10)
    data = batch(images)
    fallen = run_search(search, mixed, Problem.of(data, EPSILON))[1]
    for name, module in mixed.surrogates().items():
        moved = replace(search, stream=stream.fold("through", name))
        fallen = fallen | run_search(moved, mixed, Problem.of(data, EPSILON), module)[1]
    assert (found.robust()[:, -1] == (~fallen).numpy()).all()


def test_success_is_decided_by_the_mixture_and_not_by_the_surrogate():
    """A strong robust branch with nearly all the weight: images that fool the standard branch alone do not count."""
    weak, other = linear_classifier(3, (1, 3, 3), seed=0), linear_classifier(3, (1, 3, 3), seed=5)
    mixed = MixedClassifier.of(weak, other, 0.999)
    images = random_images(other, 40, agree=1.0)
    found, of_robust = _judged(mixed, images, epsilon=0.03), _judged(other, images, epsilon=0.03)
    assert (found.robust()[:, -1] == of_robust.robust()[:, -1]).mean() >= 0.95
    assert _judged(weak, images, epsilon=0.03).robust()[:, -1].sum() < of_robust.robust()[:, -1].sum() - 5


def test_a_profile_without_surrogates_is_blocked_and_the_header_travels(tmp_path):
    mixed, images = _sound(), _images(8)
    alone, found = (_judged(mixed, images, adaptive=adaptive_) for adaptive_ in (False, True))
    checks = {f.check: f for f in inspect_profile(alone, mixed, images, sample=2, steps=2)}
    assert checks["adaptive"].status == "block"
    assert checks["adaptive"].evidence == "3 of 3 surrogate outputs were not attacked: joint, robust, standard"
    assert Adaptive().inspect(Examined(profile=found, model=mixed, images=images)).status == "pass"
    write_profile(found, tmp_path / "p.parquet")
    assert read_profile(tmp_path / "p.parquet").header.surrogates == ("joint", "robust", "standard")
    plain = _judged(healthy(), images)
    assert plain.header.surrogates == ()
    assert Adaptive().inspect(Examined(profile=plain, model=healthy(), images=images)).status == "pass"


def test_a_flat_mixture_is_not_refused_where_its_surrogates_have_gradients():
    flat = MixedClassifier.of(
        healthy(), healthy(), replace(Blend.constant(0.9), sharpening=Sharpening(scale=1e-30, power=4.0, shift=-50.0))
    )
    found = ZeroGradients().inspect(subject(flat))
    assert found.status == "warn"
    assert "0 through every surrogate too" in found.evidence
    flat.surrogates = dict
    assert ZeroGradients().inspect(subject(flat)).status == "block"


def test_an_interrupted_adaptive_examination_ends_as_one_that_was_not(tmp_path):
    mixed, images = copy.deepcopy(_sound(0.6)).double(), _images(12)
    whole = _judged(mixed, images)
    examination = Examination(threat=Threat(epsilon=EPSILON), suite="fast", points=(), batch_size=4)

    def stop(share, facts):
        raise KeyboardInterrupt

    path = tmp_path / "p.parquet"
    with pytest.raises(KeyboardInterrupt):
        examine(mixed, images, examination, model_address="made", journal=path, watch=stop)
    resumed = examine(mixed, images, examination, model_address="made", journal=path)
    assert np.array_equal(resumed.broken_from, whole.broken_from)
    assert resumed.broken_by == whole.broken_by
