"""Several processes do what one does: gloo on one machine."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import poise
from poise.core.run_folder import RunFolder
from poise.evaluation import read_profile
from poise.schedules import Hinge
from tests.launching import finished, launched

# Three batches of 32 and a rest of 3, of which the second process gets none.
TRAINING = poise.Training(epochs=4, batch_size=32, learning_rate=1e-2, checkpoint_every=2)
OPTIONS = {"limit": 99, "validate_on": 21, "augmentation": "flip", "trackers": ()}
WORDS = [
    "--limit",
    "99",
    "--validate_on",
    "21",
    "--augmentation",
    "flip",
    "--trackers",
    "[]",
    "--threat.epsilon",
    "0.1",
    "--schedule.start",
    "0",
    "--training.epochs",
    "4",
    "--training.batch_size",
    "32",
    "--training.learning_rate",
    "1e-2",
    "--training.checkpoint_every",
    "2",
]
MODEL = "python:tests.models.factories:exact"


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> RunFolder:
    """A double-precision network, fine-tuned robustly by one process."""
    out = tmp_path_factory.mktemp("processes") / "one"
    threat, schedule = poise.Threat(epsilon=0.1), Hinge(start=0.0)
    return poise.finetune(MODEL, threat=threat, schedule=schedule, training=TRAINING, out=out, **OPTIONS).folder


def _same_run(two: RunFolder, one: RunFolder) -> None:
    expected = [{key: value for key, value in row.items() if key != "seconds"} for row in one.history()]
    for found, row in zip(two.history(), expected, strict=True):
        assert {key: value for key, value in found.items() if key != "seconds"} == pytest.approx(row, abs=1e-10, rel=0)
    _same_weights(two.weights, one.weights)


def _same_weights(two: Path, one: Path) -> None:
    weights, reference = load_file(two), load_file(one)
    for name, value in reference.items():
        assert float((weights[name] - value).abs().max()) < 1e-10, name


def test_two_processes_take_the_steps_that_one_takes(one, tmp_path):
    told = finished(launched(2, ["finetune", MODEL, *WORDS, "--out", "two"], tmp_path))
    _same_run(RunFolder(tmp_path / "two"), one)
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    assert told.count("two: 4 epochs, ") == 1


def test_processes_killed_and_resumed_in_another_way_take_the_steps_that_one_takes(one, tmp_path):
    """The weights are in every process, then shared out among them, then in every process again."""
    words, folder = ["finetune", MODEL, *WORDS, "--out", "two"], RunFolder(tmp_path / "two")
    again = [*words, "--resume"]
    for given, way, reached in ((words, "--multi_gpu", "epoch-0000[1-9]*"), (again, "--use_fsdp", "epoch-0000[2-9]*")):
        process = launched(2, given, tmp_path, way=way)
        while process.poll() is None and not list(folder.checkpoints.glob(f"{reached}/position.json")):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert not folder.weights.exists(), told[-3000:]
    finished(launched(2, again, tmp_path))
    _same_run(folder, one)


def test_weights_that_are_shared_out_take_the_same_steps(tmp_path):
    finished(launched(2, [], tmp_path, "tests.commands.sharing", way="--use_fsdp"))
    parts, whole = (RunFolder(tmp_path / name) for name in ("parts", "whole"))
    _same_run(parts, whole)
    _same_weights(*(folder.checkpoints / "epoch-00004-batch-0000000/model.safetensors" for folder in (parts, whole)))
    kept = [[path.name for path in folder.checkpoints.glob("best-*")] for folder in (parts, whole)]
    assert kept[0] == kept[1] == ["best-00000.safetensors"]


def test_what_cannot_be_done_ends_all_processes_and_leaves_nothing(tmp_path):
    (tmp_path / "two").mkdir()
    process = launched(2, ["finetune", MODEL, *WORDS, "--out", "two"], tmp_path)
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "two exists already" in told
    assert list((tmp_path / "two").iterdir()) == []


def test_two_processes_make_the_profile_that_one_makes(tmp_path):
    """Each process attacks half of the images and the main one writes."""
    threat, training = poise.Threat(epsilon=0.1), poise.Training(epochs=10, batch_size=32, learning_rate=5e-3)
    options = {"limit": 120, "validate_on": 0, "trackers": ()}
    run = poise.finetune("small", training=training, threat=threat, out=tmp_path / "run", **options)
    one = poise.profile(run.address, suite="fast", soundness=False, out=tmp_path / "one.parquet")
    words = ["profile", run.address, "--suite", "fast", "--soundness", "false", "--out", "two.parquet"]
    process = launched(2, words, tmp_path)
    journals = set()
    while process.poll() is None:
        journals |= {path.name for path in Path(tmp_path).glob("two.parquet*")}
        time.sleep(0.005)
    finished(process)
    two = read_profile(tmp_path / "two.parquet")
    assert two.header == one.header
    assert two.ids == one.ids
    assert np.array_equal(two.broken_from, one.broken_from)
    assert len(journals - {"two.parquet"}) == 2  # one a process, while they were at work
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "run", "two.parquet"]
