"""Profiles and reports in the trackers that followed the training."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from poise import Standard, Training, finetune, profile
from poise.cli import main
from poise.evaluation import accuracy_curve, expected_robustness
from poise.training import trainer  # noqa: F401 - imports accelerate before any test replaces its trackers


def _trained(folder, trackers):
    options = Training(epochs=2, learning_rate=1e-2)
    return finetune(
        "small", limit=120, objective=Standard(), training=options, validate_on=0, trackers=trackers, out=folder
    )


def _figures(found):
    curve = accuracy_curve(found)
    whole = {"profile/clean": curve.clean, "profile/robust": curve.robust}
    whole["profile/expected_robustness"] = expected_robustness(found)
    points = {f"profile/accuracy_at/{level}": each for level, each in zip(("0", "2/255"), curve.accuracy, strict=True)}
    return {name: estimate.value for name, estimate in (whole | points).items()}


def test_tensorboard_gets_figures_and_the_report_by_default(tmp_path, capsys):
    run = _trained(tmp_path / "run", ("tensorboard",))
    words = ["profile", run.address, "--suite", "fast", "--limit", "20", "--soundness", "false"]
    words += ["--threat.epsilon", "2/255", "--points", "2/255"]
    assert main(words) == 0
    assert main(["report", str(run.path), "--title", "Mine"]) == 0
    assert "could not" not in capsys.readouterr().err
    found = EventAccumulator(str(run.path / "tracking")).Reload()
    for name, value in _figures(run.profile()).items():
        (event,) = found.Scalars(name)
        assert (event.step, event.value) == (2, pytest.approx(value))
    assert [event.step for event in found.Scalars("train/loss")] == [0, 1]
    (text,) = found.Tensors("report/text_summary")
    assert b"## Mine" in text.tensor_proto.string_val[0]


def test_nothing_is_sent_where_that_is_said_and_from_elsewhere(tmp_path):
    run = _trained(tmp_path / "run", ("tensorboard",))
    before = sorted((run.path / "tracking").iterdir())
    options = {"suite": "fast", "limit": 10, "soundness": False, "points": ["2/255"]}
    profile(run.address, **options, trackers=())
    profile(run.address, **options, out=tmp_path / "other.parquet")
    assert main(["report", str(run.path), "--trackers", "[]"]) == 0
    assert main(["report", str(run.path), str(run.path), "--out", str(tmp_path / "both.html")]) == 0
    assert sorted((run.path / "tracking").iterdir()) == before


class _Files(GeneralTracker):
    """Stands in for MLflow: runs with names of their own, figures and files."""

    name, requires_logging_directory = "mlflow", False
    runs: dict = {}  # noqa: RUF012 - emptied by the fixture

    def __init__(self, project, run_id=None):
        self.run_id = run_id or f"run-{len(self.runs)}"

    def start(self):
        self.kept = self.runs.setdefault(self.run_id, {"figures": {}, "files": []})

    @property
    def tracker(self):
        return SimpleNamespace(info=SimpleNamespace(run_id=self.run_id))

    def log(self, values, step=None):
        self.kept["figures"] |= {(name, step): value for name, value in values.items()}

    def log_artifact(self, path):
        self.kept["files"].append(path)

    def store_init_configuration(self, values):
        pass

    def finish(self):
        pass


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setattr(_Files, "runs", {})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", _Files)
    monkeypatch.setitem(sys.modules["accelerate.accelerator"].LOGGER_TYPE_TO_CLASS, "mlflow", _Files)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [LoggerType.MLFLOW])
    return _Files


def test_files_reach_the_very_run_of_the_training(files, tmp_path, capsys):
    run = _trained(tmp_path / "run", ("mlflow",))
    other = _trained(tmp_path / "other", ("mlflow",))
    profile(run.address, suite="fast", limit=20, soundness=False, points=["2/255"])
    assert main(["report", str(run.path)]) == 0
    assert set(files.runs) == {"run-0", "run-1"}
    mine = files.runs["run-0"]
    assert mine["files"] == [str(run.folder.profile), str(run.folder.report)]
    assert mine["figures"]["profile/clean", 2] == accuracy_curve(run.profile()).clean.value
    assert files.runs["run-1"]["files"] == []
    assert json.loads((other.path / "tracking" / "runs.json").read_text()) == {"mlflow": "run-1"}
    assert "profile.parquet: attached to the run in mlflow" in capsys.readouterr().err


def test_a_tracker_that_fails_leaves_the_profile_and_is_told(files, tmp_path, monkeypatch, capsys):
    run = _trained(tmp_path / "run", ("mlflow",))

    def fails(self, path):
        raise ConnectionError("no route")

    monkeypatch.setattr(files, "log_artifact", fails)
    assert len(profile(run.address, suite="fast", limit=10, soundness=False, points=["2/255"])) == 10
    assert "could not be attached to mlflow: no route" in capsys.readouterr().err
    assert run.folder.profile.is_file()


def test_trackers_need_a_run_and_a_known_name(tmp_path, capsys):
    words = ["profile", "small", "--weights", "random", "--data", "digits", "--out", str(tmp_path / "p.parquet")]
    assert main([*words, "--trackers", "tensorboard"]) == 2
    assert "small is none" in capsys.readouterr().err
    assert main([*words, "--trackers", "tensorbord"]) == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err
