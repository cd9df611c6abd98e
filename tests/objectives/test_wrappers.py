"""Objectives around objectives: averaged weights, shifted weights, smoothed labels, a guard."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from poise.attacks import FGSM, PGD, Attack
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.objectives import (
    AWP,
    MART,
    TRADES,
    Adversarial,
    Averaged,
    Guarded,
    LabelSmoothing,
    Objective,
    Standard,
    Step,
)
from poise.objectives.adversarial import attacked, raised
from tests.linear import Linear, batch

STREAM = Stream.seeded(0)


def _step(model: nn.Module, objective: Objective, epsilon: float = 0.1, count: int = 8, shape=(4,)) -> Step:
    return Step(model, batch(count, shape, 3), epsilon, "linf", STREAM, state=objective.begin(model))


def _network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double().train()


@dataclass(frozen=True, kw_only=True)
class _Counting(Adversarial):
    """Remembers how often it advanced."""

    def begin(self, model):
        return {"count": torch.zeros(())}

    def terms(self, step):
        return {**super().terms(step), "count": step.state["count"]}

    def advance(self, model, state, terms):
        return {"count": state["count"] + 1}


def test_a_wrapper_carries_what_the_objective_inside_remembers():
    objective = Averaged(objective=AWP(objective=_Counting()))
    model = _network()
    step = _step(model, objective)
    state = step.state
    for _ in range(3):
        state = objective.advance(model, state, {})
    assert float(objective.terms(replace(step, state=state))["count"]) == 3
    assert "inner/inner/count" in state


class _Comparing(Standard):
    roles = ("old",)


def test_a_wrapper_asks_for_the_references_of_the_objective_inside():
    assert Averaged(objective=AWP(objective=_Comparing())).roles == ("old",)
    assert AWP().roles == ()


def test_averaged_weights_in_closed_form():
    """With d = min(0.5, t / (t + 9)): 0.1, 2/11, 0.25, then at last 0.5."""
    objective, model = Averaged(objective=Standard(), decay=0.5), Linear(3, (4,))
    state, expected = objective.begin(model), model.weight.detach().clone()
    for step in range(1, 13):
        with torch.no_grad():
            model.weight.add_(step)
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        state = objective.advance(model, state, {})
        torch.testing.assert_close(objective.weights(state)["weight"], expected, rtol=0, atol=1e-12)
    assert objective.weights(state).keys() == model.state_dict().keys()


def test_batch_statistics_are_averaged_and_counts_copied():
    objective, model = Averaged(objective=Standard(), decay=0.0), _network()
    state = objective.begin(model)
    model(torch.rand(8, 4, dtype=torch.float64))
    state = objective.advance(model, state, {})
    shown = objective.weights(state)
    assert shown["1.num_batches_tracked"] == 1
    torch.testing.assert_close(shown["1.running_mean"], model[1].running_mean)
    model[1].running_mean.add_(1)
    assert not torch.equal(shown["1.running_mean"], model[1].running_mean)


def test_averaging_changes_no_step():
    plain, averaged = TRADES(attack=PGD(steps=2)), Averaged(objective=TRADES(attack=PGD(steps=2)))
    losses = [objective.terms(_step(_network(), objective))["loss"] for objective in (plain, averaged)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("inner", [Adversarial, TRADES, MART])
def test_awp_has_the_loss_and_the_gradient_at_the_shifted_weights(inner):
    """A copy of the network is shifted by hand, as the paper says, and the loss differentiated there."""
    attack = PGD(steps=2)
    objective, model = AWP(objective=inner(attack=attack), gamma=0.05), _network()
    found: dict[tuple[Attack, Hashable], torch.Tensor] = {}
    plain = inner(attack=attack)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    first = plain.terms(replace(_step(model, plain), found=found))["loss"]
    slopes = torch.autograd.grad(first, list(model.parameters()))
    shifted = _network()
    shifted.load_state_dict(start)
    with torch.no_grad():
        for parameter, slope in zip(shifted.parameters(), slopes, strict=True):
            if parameter.ndim > 1:
                parameter.add_(0.05 * parameter.norm() / slope.norm() * slope)
    expected = plain.terms(replace(_step(shifted, plain), found=found))["loss"]
    expected.backward()
    model.load_state_dict(start)
    loss = objective.terms(_step(model, objective))["loss"]
    loss.backward()
    assert float((loss - expected).detach()) == pytest.approx(0, abs=1e-12)
    assert loss > first
    for own, other in zip(model.parameters(), shifted.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-12)
    for name, value in model.named_parameters():
        assert torch.equal(value, start[name])
    for name, value in shifted.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], value, rtol=0, atol=1e-12)


def test_awp_attacks_the_images_once_and_the_network_as_it_is():
    calls = []

    @dataclass(frozen=True, kw_only=True)
    class Noting(PGD):
        def perturb(self, model, *args):
            calls.append({name: value.detach().clone() for name, value in model.named_parameters()})
            return super().perturb(model, *args)

    objective, model = AWP(objective=Adversarial(attack=Noting(steps=1))), _network()
    objective.terms(_step(model, objective))
    assert len(calls) == 1
    assert all(torch.equal(value, found) for value, found in zip(model.parameters(), calls[0].values(), strict=True))


def test_awp_asks_for_the_prediction_that_trades_attacks_once():
    looks = []
    objective, model = AWP(objective=TRADES(attack=PGD(steps=1))), _network()
    model.register_forward_hook(lambda module, *_: looks.append(module.training))
    objective.terms(_step(model, objective))
    assert looks.count(False) == 2  # clean prediction and one attack step; in train mode clean and attacked, twice
    assert looks.count(True) == 4


def test_awp_without_a_budget_or_a_gamma_is_the_inner_objective():
    model, attack = _network(), PGD(steps=1)
    for gamma, epsilon in ((0.5, 0.0), (0.0, 0.1)):
        objective = AWP(objective=Adversarial(attack=attack), gamma=gamma)
        mine = objective.terms(_step(model, objective, epsilon))["loss"]
        theirs = Adversarial(attack=attack).terms(_step(model, Standard(), epsilon))["loss"]
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_awp_leaves_frozen_weights_where_they_are():
    model = _network()
    model[0].weight.requires_grad_(False)
    objective = AWP(gamma=0.1)
    objective.terms(_step(model, objective))["loss"].backward()
    assert model[0].weight.grad is None
    assert model[3].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("inner", [Standard(), Adversarial(attack=PGD(steps=1)), TRADES(attack=PGD(steps=1))])
def test_smoothed_labels_in_closed_form(inner):
    """The smoothed cross-entropy is 0.8 times the plain one plus 0.2 times the mean over classes."""
    model, objective = Linear(3, (4,)), LabelSmoothing(objective=inner, smoothing=0.2)
    step = replace(_step(model, objective), found={})
    smooth, plain = (float(each.terms(step)["loss"].detach()) for each in (objective, inner))
    images = next(iter(step.found.values()), step.batch.images) if isinstance(inner, Adversarial) else step.batch.images
    logs = model(images).log_softmax(1).detach()
    own = -logs.gather(1, step.batch.labels[:, None]).mean()
    assert smooth - plain == pytest.approx(float(0.2 * (-logs.mean() - own)), abs=1e-12)


def test_attacks_raise_the_plain_loss_whatever_the_smoothing():
    model, attack = _network(), PGD(steps=2)
    objective = LabelSmoothing(objective=Adversarial(attack=attack))
    step = replace(_step(model, objective), found={})
    objective.terms(step)
    assert torch.equal(
        step.found[attack, raised(cross_entropy)], attack.perturb(model, step.batch, 0.1, "linf", STREAM)
    )


class _OneWay(nn.Module):
    """Right on clean images and on small steps, wrong as soon as the mean pixel has risen by more than 0.6 epsilon."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.limit = limit

    def forward(self, images):
        score = self.weight * (self.limit - images.flatten(1).mean(1))
        return torch.stack([score, torch.zeros_like(score)], 1)


@dataclass(frozen=True, kw_only=True)
class _Up(Attack):
    """Raises every pixel by a part of epsilon."""

    part: float = 1.0

    def perturb(self, model, batch, epsilon, norm, stream, loss=cross_entropy):
        return batch.images + self.part * epsilon


def _guarded(count: int = 64, **options) -> tuple[Guarded, Step]:
    """An own attack that never fools the network, and a judge that does at epsilon 0.1, and at 0.01 does not."""
    objective = Guarded(objective=Adversarial(attack=_Up(part=0.5)), judge=_Up(), **options)
    data = batch(count, (4,), 1, dtype=torch.float32)
    data.images.fill_(0.0)
    return objective, Step(_OneWay(0.06), data, 0.1, "linf", STREAM, state=objective.begin(_OneWay(0.06)))


def _run(objective: Objective, step: Step, steps: int, easy: int = 0) -> list[dict[str, float]]:
    """So many steps, the first of them at a tenth of epsilon."""
    rows, state = [], step.state
    for number in range(steps):
        epsilon = step.epsilon * (0.1 if number < easy else 1)
        terms = objective.terms(replace(step, state=state, epsilon=epsilon))
        state = objective.advance(step.model, state, {name: value.detach() for name, value in terms.items()})
        rows.append({name: float(value.detach()) for name, value in terms.items()})
    return rows


def test_a_guard_notices_a_collapse_and_compares_as_often_as_asked():
    rows = _run(*_guarded(every=3), 7, easy=1)
    assert [row["compared"] for row in rows] == [64, 0, 0, 64, 0, 0, 64]
    assert [row["collapsed"] for row in rows] == [0, 0, 0, 0, 1, 1, 1]
    assert [(row["own_attack"], row["judged"]) for row in rows] == [(1, 1)] * 3 + [(1, 0)] * 4
    assert {(row["collapse_own"], row["collapse_judged"]) for row in rows[4:]} == {(1, 0)}
    assert {row["accuracy"] for row in rows} == {1}


def test_a_network_that_has_yet_to_learn_has_not_collapsed():
    """Its own attack leaves everything and the judge's nothing from the first step on: nothing was lost."""
    assert {row["collapsed"] for row in _run(*_guarded(every=1), 5)} == {0}


def test_a_network_that_gains_against_the_judge_has_not_collapsed():
    """The judge comes to find far more than the weak attack does, and still less than it did."""
    objective, step = _guarded(every=1)
    state = dict(step.state)
    for own, judged in ((0.2, 0.15), (0.6, 0.4), (0.95, 0.6)):
        terms = {"compared": 64.0, "own_attack": own, "judged": judged}
        state = objective.advance(step.model, state, {name: torch.tensor(value) for name, value in terms.items()})
        assert state["collapsed"] == 0
    terms = {"compared": torch.tensor(64.0), "own_attack": torch.tensor(0.99), "judged": torch.tensor(0.29)}
    assert objective.advance(step.model, state, terms)["collapsed"] == 1


def test_a_guard_draws_no_conclusion_from_a_few_images():
    """Batches of 16: four of them make a comparison, and what comes after it another."""
    rows = _run(*_guarded(count=16, every=1), 10, easy=5)
    assert [row["collapsed"] for row in rows] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert rows[-1]["collapse_judged"] == 0.25
    whole, step = _guarded(count=16, every=1)
    assert [row["collapsed"] for row in _run(whole, replace(step, whole=64), 3, easy=1)] == [0, 0, 1]


def test_a_guard_may_switch_to_the_judges_attack():
    rows = _run(*_guarded(every=2, switch=True), 6, easy=1)
    assert [row["accuracy"] for row in rows] == [1, 1, 1, 0, 0, 0]
    assert [row["compared"] for row in rows] == [64, 0, 64, 0, 0, 0]


def test_a_guard_is_silent_where_the_judge_finds_little_more():
    objective, step = _guarded(every=1)
    objective = replace(objective, judge=_Up(part=0.55))
    assert [row["collapsed"] for row in _run(objective, step, 3, easy=1)] == [0, 0, 0]


def test_a_guard_rests_without_a_budget():
    objective, step = _guarded(every=2, switch=True)
    rows = _run(objective, replace(step, epsilon=0.0), 3)
    assert [row["compared"] for row in rows] == [0, 0, 0]
    assert [row["judged"] for row in rows] == [1, 1, 1]


def test_a_guard_compares_images_that_the_step_has_found():
    """Its own attack is not run again; only the judge's is added."""
    model, calls = _network(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    objective = Guarded(judge=PGD(steps=3), every=1)
    objective.terms(_step(model, objective))
    assert len(calls) == 1 + 1 + 3 + 2  # FGSM, the training pass, the judge's steps, two looks


@dataclass(frozen=True, kw_only=True)
class _Twofold(Adversarial):
    """Adversarial training that attacks in a second way too, which raises something else than cross-entropy."""

    attack: Attack = FGSM()
    second: Attack = PGD(steps=3)

    def terms(self, step):
        downwards = attacked(self.second, step, lambda logits, labels: -cross_entropy(logits, labels))
        return {**super().terms(step), "second": downwards.mean()}


@pytest.mark.parametrize("second", [PGD(steps=3), FGSM()])
def test_images_found_with_another_loss_are_not_taken_for_an_attacks_own(second):
    """Images that were moved towards their class, not away from it, neither train nor judge the network."""
    judged = []
    for inner in (Adversarial(attack=FGSM()), _Twofold(second=second)):
        objective = Guarded(objective=inner, judge=PGD(steps=3), every=1)
        terms = objective.terms(_step(Linear(3, (4,)), objective, epsilon=0.3, count=40))
        judged.append({name: float(terms[name].detach()) for name in ("own_attack", "judged", "loss")})
    assert judged[1] == judged[0]
    assert judged[0]["judged"] < 0.3


def test_a_guard_of_trades_looks_at_the_images_that_trades_has_found():
    model, calls = Linear(3, (4,)), []
    objective = Guarded(objective=TRADES(attack=FGSM()), judge=PGD(steps=3), every=1)
    model.register_forward_hook(lambda *_: calls.append(1))
    objective.terms(_step(model, objective))
    assert (
        len(calls) == 1 + 1 + 2 + 3 + 2
    )  # the clean prediction, FGSM, clean and attacked, the judge's steps, two looks


def test_a_guard_switches_within_other_wrappers():
    objective = Guarded(objective=LabelSmoothing(objective=TRADES(attack=FGSM())), judge=PGD(steps=2), switch=True)
    model = _network()
    step = _step(model, objective)
    state = dict(step.state) | {"collapsed": torch.ones((), dtype=torch.float64)}
    step = replace(step, state=state, found={})
    objective.terms(step)
    assert [attack for attack, _ in step.found] == [PGD(steps=2)]


def test_a_guard_judges_the_network_as_it_is_wherever_weights_are_shifted():
    found = []
    for objective in (
        Guarded(objective=AWP(objective=Adversarial(attack=FGSM()), gamma=0.5), judge=PGD(steps=3)),
        AWP(objective=Guarded(objective=Adversarial(attack=FGSM()), judge=PGD(steps=3)), gamma=0.5),
    ):
        terms = objective.terms(_step(_network(), objective, epsilon=0.5, count=40))
        found.append({name: float(terms[name].detach()) for name in ("own_attack", "judged", "loss")})
    assert found[0] == pytest.approx(found[1])


class _Unsmoothable(Objective):
    def terms(self, step):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Averaged(decay=1.0), r"decay of averaged weights must be in \[0, 1\); got 1.0"),
        (lambda: AWP(gamma=-0.1), "gamma of AWP"),
        (lambda: LabelSmoothing(smoothing=1.1), r"label smoothing must be in \[0, 1\]"),
        (lambda: LabelSmoothing(objective=AWP(objective=_Unsmoothable())), "_Unsmoothable takes no smoothed labels"),
        (lambda: Guarded(objective=Standard()), "Standard has no attack that could be guarded"),
        (lambda: Guarded(every=0), "at least 1; got 0"),
        (lambda: Guarded(objective=TRADES()), r"must be another attack than its own; both are PGD\(.*steps=10"),
        (lambda: Guarded(objective=AWP(objective=Adversarial(attack=FGSM())), judge=FGSM()), "must be another attack"),
        (lambda: Guarded(gap=0.0), r"a difference in accuracy in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(Misuse, match=words):
        make()
