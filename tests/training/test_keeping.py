"""Trainings that end with the weights of their best epoch, and which epoch that is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from poise.attacks import PGD
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.objectives import Adversarial, Averaged, Standard
from poise.schedules import Hinge
from poise.training import Task, Training, check_task, kept, train
from poise.training.journal import Journal
from tests.models_for_tests import random_images, small_network

ROBUST, CLEAN = (0.1, 0.5, 0.3, 0.5, 0.2), (0.5, 0.5, 0.5, 0.5, 0.5)
TASK = Task(
    small_network(),
    random_images(small_network(seed=9).eval(), 40),
    Adversarial(attack=PGD(steps=2)),
    Hinge(),
    Threat(epsilon="0.1"),
    Training(epochs=len(ROBUST), batch_size=16, learning_rate=1e-2, checkpoint_every=2),
    "flip",
    keep="best",
)


def _task(**changes) -> Task:
    return replace(TASK, classifier=small_network(), **changes)


def _state(classifier) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in classifier.state_dict().items()}


class _Judge:
    """Finds in each epoch what it is told to find, and remembers the weights that it was shown."""

    def __init__(self, robust=ROBUST, clean=CLEAN) -> None:
        self.robust, self.clean = robust, clean
        self.shown: dict[int, dict[str, torch.Tensor]] = {}
        self.epoch = -1

    def __call__(self, classifier, epsilon):
        self.epoch += 1
        self.shown[self.epoch] = _state(classifier)
        return {"clean": self.clean[self.epoch], "robust": self.robust[self.epoch]}


def _same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _left(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.checkpoints.glob("*best*"))


def _row(epoch, robust, clean):
    return {"epoch": epoch, "validation/robust": robust, "validation/clean": clean}


def test_the_best_epoch_withstands_most_then_is_right_most_often_and_then_is_the_first():
    rows = [_row(0, 0.2, 0.9), _row(1, 0.4, 0.6), _row(2, 0.4, 0.7), _row(3, 0.4, 0.7), _row(4, 0.3, 0.8)]
    assert kept(rows, "best", attacked=True) is rows[2]
    assert kept(rows, "best", attacked=False) is rows[0]
    assert kept(rows, "last", attacked=True) is rows[4]
    with pytest.raises(Misuse, match="validation does not measure validation/robust"):
        kept([{"epoch": 0, "validation/clean": 0.5}], "best", attacked=True)


@pytest.mark.parametrize("objective", [TASK.objective, Averaged(objective=TASK.objective, decay=0.5)], ids=repr)
def test_a_training_ends_with_the_weights_that_were_found_best(tmp_path, objective):
    """Those that validation saw, which with averaged weights are not those of the step."""
    judge, task, folder = _Judge(), _task(objective=objective), RunFolder.create(tmp_path / "run")
    train(task, folder, validate=judge, trackers=())
    assert _same(_state(task.classifier), judge.shown[1])
    assert not _same(judge.shown[1], judge.shown[4])
    assert _left(folder) == ["best-00001.safetensors"]
    assert [row["validation/robust"] for row in folder.history()] == list(ROBUST)


def test_the_last_weights_are_kept_where_nothing_else_is_asked_for(tmp_path):
    judge, task, folder = _Judge(), _task(keep="last"), RunFolder.create(tmp_path / "run")
    train(task, folder, validate=judge, trackers=())
    assert _same(_state(task.classifier), judge.shown[4])
    assert _left(folder) == []


def test_without_attacks_clean_accuracy_decides(tmp_path):
    clean = (0.2, 0.6, 0.7, 0.5, 0.4)
    judge, task = _Judge(clean=clean), _task(objective=Standard())
    train(task, RunFolder.create(tmp_path / "run"), validate=judge, trackers=())
    assert _same(_state(task.classifier), judge.shown[2])


class _Killed(Exception):  # noqa: N818
    pass


def _until_it_ends(folder: RunFolder, judge: _Judge, **listening) -> tuple[Task, int]:
    """Resume a training until nothing kills it any more."""
    for times in range(20):
        task = _task()
        judge.epoch = len(folder.history()) - 1
        try:
            train(task, folder, validate=judge, trackers=(), **listening)
        except _Killed:
            continue
        return task, times
    pytest.fail("it never ended")


@pytest.mark.parametrize("at", [2, 4, 5, 8, 11, 14])
def test_a_run_killed_between_steps_ends_with_the_same_weights(tmp_path, at):
    whole = _task()
    train(whole, RunFolder.create(tmp_path / "whole"), validate=_Judge(), trackers=())
    folder, steps = RunFolder.create(tmp_path / "cut"), []

    def kill(share, facts):
        steps.append(share)
        if len(steps) == at:
            raise _Killed

    task, times = _until_it_ends(folder, _Judge(), watch=kill)
    assert times == 1
    assert _same(_state(task.classifier), _state(whole.classifier))
    assert _left(folder) == ["best-00001.safetensors"]


@pytest.mark.parametrize("epoch", range(len(ROBUST)))
def test_a_run_killed_after_the_best_weights_were_written_and_before_it_is_noted(tmp_path, monkeypatch, epoch):
    """The weights of the epoch before are still there for whoever resumes, and are gone in the end."""
    whole = _task()
    train(whole, RunFolder.create(tmp_path / "whole"), validate=_Judge(), trackers=())
    written, write = [], Journal.write

    def kill(journal, row):
        written.append(row["epoch"])
        if written.count(epoch) == 1 and row["epoch"] == epoch:
            raise _Killed
        write(journal, row)

    monkeypatch.setattr(Journal, "write", kill)
    folder = RunFolder.create(tmp_path / "cut")
    task, times = _until_it_ends(folder, _Judge())
    assert times == 1
    assert _same(_state(task.classifier), _state(whole.classifier))
    assert _left(folder) == ["best-00001.safetensors"]


def test_a_run_killed_after_its_last_epoch_still_ends_with_the_best_weights(tmp_path):
    judge, folder = _Judge(), RunFolder.create(tmp_path / "run")
    train(_task(), folder, validate=judge, trackers=())
    again = _task()
    train(again, folder, validate=judge, trackers=())
    assert _same(_state(again.classifier), judge.shown[1])


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"none")])
def test_best_weights_that_are_gone_are_named(tmp_path, damage):
    folder = RunFolder.create(tmp_path / "run")
    train(_task(), folder, validate=_Judge(), trackers=())
    damage(folder.checkpoints / "best-00001.safetensors")
    with pytest.raises(
        Misuse, match=r"best-00001\.safetensors holds the best weights and cannot be read: .*start anew"
    ):
        train(_task(), folder, validate=_Judge(), trackers=())


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_kept_is_refused_before_anything_is_trained(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(Misuse, match="the best weights are found by validation; there is none"):
        train(_task(), folder, trackers=())
    with pytest.raises(Misuse, match="unknown keep 'first'; valid: best, last"):
        check_task(_task(keep="first"))
    assert list(folder.path.iterdir()) == []
