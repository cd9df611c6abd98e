"""Schedules, attacks and objectives of other people: what breaks its promise is named, before it does harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from poise.attacks import FGSM, Attack
from poise.core.losses import cross_entropy
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.objectives import MART, TRADES, Adversarial, Averaged, Guarded, Objective, Standard
from poise.schedules import Fixed, Schedule
from poise.training import Task, Training, check_task, train
from tests.models_for_tests import random_images, small_network

pytestmark = pytest.mark.usefixtures("unchecked")


def _task(*, schedule: Schedule | None = None, objective: Objective | None = None, norm: str = "linf") -> Task:
    return Task(
        small_network(),
        random_images(small_network(seed=9).eval(), 20),
        objective or Adversarial(attack=FGSM()),
        schedule or Fixed(),
        Threat(norm=norm, epsilon=0.1),
        Training(epochs=2, batch_size=10),
        "none",
    )


@dataclass(frozen=True, kw_only=True)
class _Said(Schedule):
    """Says whatever it is told to say, and its mean only where it is told one."""

    says: Callable[[int], object]
    on_average: float | None = None

    def share(self, moment):
        return self.says(len(moment.ids))

    def mean(self, moment):
        return super().mean(moment) if self.on_average is None else self.on_average


@pytest.mark.parametrize(
    "says",
    [
        lambda _: 2.0,
        lambda _: -0.5,
        lambda _: float("nan"),
        lambda count: torch.full((count,), 1.5),
        lambda count: torch.full((count + 1,), 0.5),
        lambda count: torch.full((count,), torch.nan),
    ],
)
def test_a_schedule_that_leaves_the_target_is_named(tmp_path, says):
    schedule = _Said(says=says, on_average=1.0)
    with pytest.raises(Misuse, match=r"the schedule _Said must say which share of the target epsilon .* in \[0, 1\]"):
        train(_task(schedule=schedule), RunFolder.create(tmp_path / "run"), trackers=())


def test_a_schedule_of_a_share_for_each_example_must_say_their_mean(tmp_path):
    each = _Said(says=lambda count: torch.full((count,), 0.5))
    with pytest.raises(Misuse, match=r"_Said gives every example a share of its own, and must say their mean"):
        train(_task(schedule=each), RunFolder.create(tmp_path / "silent"), trackers=())
    folder = RunFolder.create(tmp_path / "saying")
    train(_task(schedule=_Said(says=each.says, on_average=0.5)), folder, trackers=())
    assert [row["epsilon"] for row in folder.history()] == pytest.approx([0.05, 0.05])


def test_whole_numbers_are_shares_too(tmp_path):
    shares = []

    @dataclass(frozen=True, kw_only=True)
    class Watching(Adversarial):
        def terms(self, step):
            shares.append(step.share)
            return super().terms(step)

    folder = RunFolder.create(tmp_path / "run")
    train(_task(schedule=_Said(says=lambda _: 0), objective=Watching(attack=FGSM())), folder, trackers=())
    assert [row["epsilon"] for row in folder.history()] == [0.0, 0.0]
    assert set(shares) == {0.0}


@dataclass(frozen=True, kw_only=True)
class _Answering(Attack):
    """Answers whatever is made of the images."""

    make: Callable[[torch.Tensor], torch.Tensor]

    def perturb(self, model, batch, epsilon, norm, stream, loss=cross_entropy):
        return self.make(batch.images)


BROKEN = {
    "outside their ball": lambda images: (images + 0.3).clamp(0, 1),
    "or \\[0, 1\\]": lambda images: images + 0.09,
    "no numbers": lambda images: images * torch.nan,
    "of shape": lambda images: images[:, :, :-1],
    "carry gradients": lambda images: images.clone().requires_grad_(),
}


@pytest.mark.parametrize("words", BROKEN)
@pytest.mark.parametrize(
    "around", [Adversarial, TRADES, MART, lambda attack: Averaged(objective=TRADES(attack=attack))]
)
def test_an_attack_that_breaks_its_promise_is_named_before_any_step(words, around):
    with pytest.raises(Misuse, match=rf"the attack tests\.training\.test_others\._Answering answers with .*{words}"):
        check_task(_task(objective=around(attack=_Answering(make=BROKEN[words]))))


def test_a_judge_is_tried_too_and_what_keeps_its_promise_passes():
    lawful = _Answering(make=lambda images: (images + 0.1).clamp(0, 1))
    check_task(_task(objective=Adversarial(attack=lawful)))
    broken = Guarded(objective=Adversarial(attack=lawful), judge=_Answering(make=BROKEN["outside their ball"]))
    with pytest.raises(Misuse, match="_Answering answers with"):
        check_task(_task(objective=broken))
    small = _Answering(make=lambda images: (images + 0.001).clamp(0, 1))
    for norm in ("l2", "l1"):
        check_task(_task(objective=Adversarial(attack=small), norm=norm))


@dataclass(frozen=True, kw_only=True)
class _Opposed(Standard):
    opponent: Attack


def test_an_attack_under_any_name_is_tried():
    with pytest.raises(Misuse, match="_Answering answers with"):
        check_task(_task(objective=_Opposed(opponent=_Answering(make=BROKEN["outside their ball"]))))


@pytest.mark.parametrize("kind", [Adversarial, TRADES, MART])
def test_what_is_no_attack_is_refused(kind):
    with pytest.raises(Misuse, match=rf"the attack of {kind.__name__} must be a poise\.attacks\.Attack; got 'pgd'"):
        check_task(_task(objective=kind(attack="pgd")))


@dataclass(frozen=True, kw_only=True)
class _Terms(Standard):
    """Returns what is made of the usual terms."""

    make: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]

    def terms(self, step):
        return self.make(dict(super().terms(step)))


@pytest.mark.parametrize(
    ("make", "returned"),
    [
        (lambda terms: {"lss": terms["loss"]}, "lss"),
        (lambda _: {}, "nothing"),
        (lambda terms: {"loss": terms["loss"].expand(3)}, "loss"),
        (lambda terms: {"loss": terms["loss"].detach(), "accuracy": terms["accuracy"]}, "loss, accuracy"),
    ],
)
def test_an_objective_without_a_loss_is_told_what_it_returned(tmp_path, make, returned):
    with pytest.raises(Misuse, match=rf"the objective _Terms must return a 'loss', .*; it returned {returned}$"):
        train(_task(objective=_Terms(make=make)), RunFolder.create(tmp_path / "run"), trackers=())
