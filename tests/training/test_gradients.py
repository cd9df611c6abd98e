from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from poise.core.misuse import Failure
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.objectives import Adversarial, Standard
from poise.schedules import Fixed, Random
from poise.training import Task, Training, train
from tests.models_for_tests import random_images, small_network

OPTIONS = Training(epochs=2, batch_size=16, learning_rate=1e-2)
FULL = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def _task(objective=None, options: Training = OPTIONS, *, normalised: bool = False, schedule=None) -> Task:
    classifier = small_network().double()
    if not normalised:
        classifier.network[1] = torch.nn.Identity()
    classifier.network[4] = torch.nn.Identity()  # dropout draws other masks for other pieces
    images = random_images(small_network(seed=9).eval(), 50)
    return Task(classifier, images, objective or Adversarial(), schedule or Fixed(), Threat(epsilon="0.1"), options)


def _weights(task: Task, path, **options) -> dict[str, torch.Tensor]:
    train(task, RunFolder.create(path), trackers=(), **options)
    return {name: tensor.clone() for name, tensor in task.classifier.state_dict().items()}


class _Greedy(Standard):
    """Ordinary training that has no room for more than five images at a time, and finds out after its backward pass."""

    sizes: ClassVar[list[int]] = []

    def terms(self, step):
        self.sizes.append(len(step.batch))
        terms = super().terms(step)
        if len(step.batch) > 5:
            terms["loss"].backward(retain_graph=True)
            raise RuntimeError(FULL)
        return terms


@pytest.mark.parametrize("schedule", [Fixed(), Random(per_example=True)])
def test_pieces_give_the_steps_of_the_whole_batch(tmp_path, schedule):
    whole = _weights(_task(schedule=schedule), tmp_path / "whole")
    options = replace(OPTIONS, micro_batch=5)
    pieces = _weights(_task(options=options, schedule=schedule), tmp_path / "pieces")
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, atol=1e-12, rtol=0)
    rows = [RunFolder(tmp_path / name).history() for name in ("whole", "pieces")]
    for first, second in zip(*rows, strict=True):
        assert first["train/loss"] == pytest.approx(second["train/loss"], abs=1e-12)


def test_when_memory_runs_out_the_step_is_taken_in_halves_and_the_person_is_told(tmp_path):
    _Greedy.sizes.clear()
    told = []
    greedy = _weights(_task(_Greedy()), tmp_path / "greedy", tell=told.append)
    plain = _weights(_task(Standard()), tmp_path / "plain")
    for name, value in plain.items():
        torch.testing.assert_close(greedy[name], value, atol=1e-12, rtol=0)
    assert _Greedy.sizes[:6] == [16, 8, 4, 4, 4, 4]
    assert max(_Greedy.sizes[6:]) == 4
    assert told == [
        f"out of memory: from here on {now} images at a time in each process instead of {before}; "
        "the effective batch stays the same"
        for before, now in ((16, 8), (8, 4))
    ]


def test_a_batch_norm_with_nothing_to_learn_from_is_named_with_what_helps(tmp_path):
    task = _task(Standard(), replace(OPTIONS, micro_batch=1))
    task.classifier.network.append(torch.nn.BatchNorm1d(3).double())
    with pytest.raises(Failure, match=r"single value a channel.*training\.micro_batch.*training\.batch_norm frozen"):
        train(task, RunFolder.create(tmp_path / "run"), trackers=())


def test_what_a_failed_attempt_did_to_running_statistics_is_undone(tmp_path):
    greedy = _weights(_task(_Greedy(), normalised=True), tmp_path / "greedy")
    pieces = _weights(_task(Standard(), replace(OPTIONS, micro_batch=4), normalised=True), tmp_path / "pieces")
    assert all(torch.equal(greedy[name], value) for name, value in pieces.items())


def test_a_resumed_run_starts_with_the_pieces_that_were_found_to_fit(tmp_path):
    whole = _weights(_task(_Greedy(), normalised=True), tmp_path / "whole")

    def interrupt(progress, _):
        if progress > 0.6:
            raise KeyboardInterrupt

    folder = RunFolder.create(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(_task(_Greedy(), normalised=True), folder, trackers=(), watch=interrupt)
    _Greedy.sizes.clear()
    again = _task(_Greedy(), normalised=True)
    train(again, folder, trackers=())
    assert max(_Greedy.sizes) == 4
    assert all(torch.equal(again.classifier.state_dict()[name], value) for name, value in whole.items())


class _Impossible(Standard):
    def terms(self, step):
        raise RuntimeError(FULL)


class _Faulty(Standard):
    def terms(self, step):
        raise RuntimeError("something else")


def test_memory_for_no_single_image_is_a_failure_and_other_errors_pass(tmp_path):
    with pytest.raises(Failure, match="memory does not hold the training of a single image"):
        _weights(_task(_Impossible()), tmp_path / "a")
    with pytest.raises(RuntimeError, match="something else"):
        _weights(_task(_Faulty()), tmp_path / "b")
