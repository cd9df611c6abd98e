"""The main road, end to end, through the command line and through Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count

import pytest
import torch
from PIL import Image
from torch import nn

import poise
from poise.cli import main
from poise.commands.opening import Source
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.evaluation import read_profile
from poise.evaluation.frontier import read_frontier
from poise.evaluation.gate import read_gate
from poise.models import load_model, open_model
from poise.training import trainer
from tests.data.pictures_on_disk import saved

SHORT = poise.Training(epochs=2, batch_size=64)
QUICK = ["quickstart", "--epochs", "2", "--suite", "fast", "--limit", "80"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Two quickstarts of two epochs on some of the images, the second one interrupted in the middle of a training."""
    root, steps = tmp_path_factory.mktemp("quick"), count()
    assert main([*QUICK, "--out", str(root / "first")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        step = trainer._Loop._step

        def interrupted(self, *arguments):
            if next(steps) == 10:  # in the third run, half-way
                raise KeyboardInterrupt
            return step(self, *arguments)

        patch.setattr(trainer._Loop, "_step", interrupted)
        again = [*QUICK, "--out", str(root / "again")]
        told = []
        patch.setattr("poise.commands.quickstart.say", told.append)
        assert main(again) == 130
        assert not (root / "again" / "scheduled" / "model.safetensors").exists()
        assert main(again) == 0
        assert told == [f"{root / 'again'}: going on where it was interrupted"]
    return root


CHAPTERS = {"standard": 2, "fixed": 2, "scheduled": 2, "today": 3, "updated": 1, "mixed": 0}
"""The quickstart's runs and, at two epochs, the length of each; a mixture with a constant alpha is not trained."""


def test_quickstart_makes_six_runs_and_a_report(quick):
    page = (quick / "first" / "report.html").read_text()
    for name, epochs in CHAPTERS.items():
        folder = RunFolder.open(quick / "first" / name)
        assert folder.weights.is_file()
        assert folder.metrics.is_file() == bool(epochs)
        assert not epochs or len(folder.history()) == epochs
        assert len(read_profile(folder.profile)) == 80
        assert name in page


def test_the_mixture_joins_the_standard_network_and_the_update(quick):
    recipe = RunFolder(quick / "first" / "mixed").recipe.read_text()
    assert f"standard: run:{(quick / 'first' / 'standard').as_posix()}" in recipe
    assert f"robust: run:{(quick / 'first' / 'updated').as_posix()}" in recipe
    tried = read_frontier(RunFolder(quick / "first" / "mixed").frontier)
    assert load_model(quick / "first" / "mixed").alpha_low == tried.points[tried.chosen].alpha_low


def test_the_gate_judges_both_candidates_by_the_file_beside_them(quick):
    for name in ("today", "updated"):
        found = json.loads((quick / "first" / f"{name}-for-fixed" / "comparison.json").read_text())
        assert found["gate"]["outcome"] in {"passed", "failed", "cannot be judged"}
        assert len(found["gate"]["limits"]) == 3
    assert len(read_gate(quick / "first" / "gate.yaml").limits) == 3


def test_the_update_takes_todays_model_into_yesterdays_place(quick):
    recipe = RunFolder(quick / "first" / "updated").recipe.read_text()
    assert f"old: run:{(quick / 'first' / 'fixed').as_posix()}" in recipe
    assert f"new: run:{(quick / 'first' / 'today').as_posix()}" in recipe
    assert load_model(quick / "first" / "updated").digest() != load_model(quick / "first" / "today").digest()


def test_the_same_seed_gives_the_same_numbers_after_an_interruption_too(quick):
    assert not list(quick.glob("again-*"))
    assert verdicts(quick / "first") == verdicts(quick / "again")


def verdicts(folder):
    found = [read_profile(folder / run / "profile.parquet") for run in CHAPTERS]
    return [(p.header.model, p.margins.tolist(), p.broken_from.tolist()) for p in found]


def test_the_robust_runs_start_from_the_standard_one(quick):
    recipe = (quick / "first" / "fixed" / "recipe.yaml").read_text()
    assert "model: run:" in recipe
    assert "kind: fixed" in recipe
    assert "kind: hinge" in (quick / "first" / "scheduled" / "recipe.yaml").read_text()


def test_another_seed_gives_other_numbers_in_a_new_folder_and_tells_what_is_lost(quick, monkeypatch, capsys):
    monkeypatch.chdir(quick)
    assert main([*QUICK, "--seed", "1", "--out", "first"]) == 0
    assert (quick / "first-2" / "report.html").is_file()
    assert all(
        mine != other for mine, other in zip(verdicts(quick / "first"), verdicts(quick / "first-2"), strict=True)
    )
    told = capsys.readouterr().out
    old, new = (read_profile(quick / "first-2" / name / "profile.parquet") for name in ("fixed", "today"))
    lost = (old.robust() & ~new.robust())[:, [0, -1]]
    figures = [f"{100 * share:.1f}" for share in (*lost.mean(axis=0), lost.any(axis=1).mean())]
    assert "in place of fixed: 80 test images, linf 0.2" in told
    row = next(line for line in told.splitlines() if line.startswith("today"))
    assert row.split()[-3:] == figures


def test_a_recipe_runs_again_and_options_beside_it_win(quick, tmp_path):
    recipe = quick / "first" / "standard" / "recipe.yaml"
    out = tmp_path / "again"
    assert main(["finetune", "--config", str(recipe), "--out", str(out)]) == 0
    assert load_model(out).digest() == load_model(recipe.parent).digest()
    other = tmp_path / "other"
    assert main(["finetune", "--config", str(recipe), "--out", str(other), "--training.epochs", "1"]) == 0
    assert len(RunFolder(other).history()) == 1


def test_a_run_folder_that_exists_is_left_alone(quick, capsys):
    folder = quick / "first" / "standard"
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    assert main(["finetune", "small", "--out", str(folder)]) == 2
    assert "exists already; take up the interrupted run with --resume" in capsys.readouterr().err
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


def test_resuming_with_other_options_is_refused(quick, capsys):
    recipe = quick / "first" / "standard" / "recipe.yaml"
    words = ["finetune", "--config", str(recipe), "--resume", "--seed", "5"]
    assert main(words) == 2
    assert "was started with seed 0, not 5" in capsys.readouterr().err


def test_a_profile_that_exists_is_replaced_only_on_request(quick, tmp_path, capsys):
    run = shutil.copytree(quick / "first" / "fixed", tmp_path / "fixed")
    address = f"run:{run}"
    assert main(["profile", address]) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert main(["profile", address, "--overwrite", "--points", "0.1,1/10", "--suite", "fast", "--limit", "20"]) == 0
    made = read_profile(run / "profile.parquet")
    assert (made.epsilons, made.header.suite, len(made)) == ((0, 0.1, 0.2), "fast", 20)


def test_report_reads_several_runs(quick, tmp_path, capsys):
    runs = [str(quick / "first" / name) for name in ("fixed", "scheduled")]
    assert main(["report", *runs, "--out", str(tmp_path / "r.html")]) == 0
    assert "scheduled" in capsys.readouterr().out
    assert (tmp_path / "r.html").stat().st_size > 100_000


def _pictures(root, count=12):
    """Photographs in miniature: one class is light in the upper half, one in the lower."""
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        for name, rows in (("sky", slice(0, 8)), ("ground", slice(8, 16))):
            picture = torch.rand(16, 16, 3, generator=generator) * 0.3
            picture[rows] += 0.6
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray((picture * 255).byte().numpy()).save(root / name / f"{index:02d}.png")


def test_ones_own_folder_and_a_timm_network_with_local_weights(tmp_path):
    _pictures(tmp_path / "photos", 30)
    pretrained = open_model("timm:test_resnet.r160_in1k", weights="random", classes=("a", "b", "c"), shape=(3, 16, 16))
    torch.save(pretrained.network.state_dict(), tmp_path / "weights.pt")
    run = poise.finetune(
        "timm:test_resnet.r160_in1k",
        f"folder:{tmp_path / 'photos'}",
        weights=str(tmp_path / "weights.pt"),
        threat=poise.Threat(epsilon="4/255"),
        schedule=poise.Hinge(stop=0.6),
        training=poise.Training(epochs=3, batch_size=16, learning_rate=3e-3),
        out=tmp_path / "run",
    )
    assert [row["epsilon"] for row in run.history()] == pytest.approx([0, (1 / 3 - 0.25) / 0.35 * 4 / 255, 4 / 255])
    assert run.classifier().classes == ("ground", "sky")
    assert {"validation/clean", "validation/robust", "train/loss"} <= set(run.history()[0])
    made = poise.profile(run.address, suite="apgd")
    assert made.epsilons == tuple(level / 255 for level in range(5))
    assert run.profile().header.model == run.classifier().digest()


def test_an_unreadable_image_is_named_and_can_be_left_out(tmp_path, capsys):
    _pictures(tmp_path / "photos", 30)
    (tmp_path / "photos" / "sky" / "05.png").write_bytes(b"no picture")
    words = [
        "finetune",
        "small",
        "--data",
        f"folder:{tmp_path / 'photos'}",
        "--training.epochs",
        "1",
        "--validate-on",
        "0",
    ]
    words += ["--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "sky/05.png" in capsys.readouterr().err
    assert main([*words, "--skip-unreadable", "--out", str(tmp_path / "run2")]) == 0
    assert "left out, unreadable: " in capsys.readouterr().err


def test_splits_of_a_source_that_nothing_is_done_with_are_named(tmp_path, capsys):
    address = f"hf:{saved(tmp_path / 'set', train=40, test=8, evaluation=8, extra=9)}"
    assert len(Source(data=address).open().test) == 8
    assert (
        capsys.readouterr().err.strip().endswith("left out, neither train nor validation nor test: evaluation, extra")
    )


def test_images_of_different_sizes_need_a_size(tmp_path, capsys):
    _pictures(tmp_path / "photos", 30)
    Image.new("RGB", (20, 18)).save(tmp_path / "photos" / "sky" / "big.png")
    words = [
        "finetune",
        "small",
        "--data",
        f"folder:{tmp_path / 'photos'}",
        "--training.epochs",
        "1",
        "--validate-on",
        "0",
    ]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "--image-size" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--out", str(tmp_path / "run"), "--image-size", "16"]) == 0


SLOW = [
    sys.executable,
    "-W",
    "ignore",
    "-c",
    """
import time
from pathlib import Path

import poise
from poise.training import trainer

step = trainer._Loop._step

def slow(self, *args):
    time.sleep(0.02)
    print("step", flush=True)
    return step(self, *args)

trainer._Loop._step = slow
options = poise.Training(epochs=3, batch_size=64, checkpoint_every=2)
poise.finetune("small", training=options, limit=600, validate_on=0, trackers=(), threat=poise.Threat(epsilon=0.1),
               out=Path("run"), resume=Path("run").exists())
""",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a fine-tuning that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(SLOW, cwd=folder, check=True, capture_output=True)
    return folder


def test_a_process_killed_again_and_again_in_mid_epoch_resumes_to_the_same_weights(tmp_path, whole):
    """kill -9 on a real process, as a step begins and within one; a checkpoint stands every two of its thirty."""
    cut = tmp_path
    for steps, later in ((4, 0.0), (9, 0.01), (10, 0.03)):
        with subprocess.Popen(SLOW, cwd=cut, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert [process.stdout.readline() for _ in range(steps)] == [b"step\n"] * steps
            time.sleep(later)
            os.kill(process.pid, signal.SIGKILL)
        assert not (cut / "run" / "model.safetensors").exists()
    subprocess.run(SLOW, cwd=cut, check=True, capture_output=True)
    assert load_model(cut / "run").digest() == load_model(whole / "run").digest()
    rows = [json.loads(line)["train/loss"] for line in (cut / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == [
        json.loads(line)["train/loss"] for line in (whole / "run" / "metrics.jsonl").read_text().splitlines()
    ]


def test_python_refuses_as_the_command_line_does(tmp_path):
    with pytest.raises(Misuse, match="no model is of the kind"):
        poise.finetune("nope:x", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        poise.nothing  # noqa: B018
    assert SHORT.epochs == 2


class _Rounded(nn.Module):
    """A classifier of digits whose first act is to round: no gradient reaches the image."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images):
        return self.inner((images * 4).round())


def test_a_model_that_hides_its_gradients_is_refused_until_allowed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.models.factories.rounded", _Rounded, raising=False)
    words = ["profile", "python:tests.models.factories:rounded", "--data", "digits", "--limit", "30", "--suite", "fast"]
    words += ["--threat.epsilon", "0.1", "--out", str(tmp_path / "p.parquet")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "zero-gradients" in told
    assert "--allow zero-gradients" in told
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--allow", "zero-gradients"]) == 0
    findings = {found.check: found for found in read_profile(tmp_path / "p.parquet").findings}
    assert findings["zero-gradients"].overridden
    assert main([*words, "--overwrite", "--allow", "zero-gradient"]) == 2
    assert "did you mean 'zero-gradients'" in capsys.readouterr().err


class _Wavering(nn.Module):
    """A classifier of digits that adds noise to what it says."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images):
        logits = self.inner(images)
        return logits + 0.1 * torch.randn_like(logits)


def test_a_model_that_answers_at_random_is_sent_to_the_suite_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.models.factories.wavering", _Wavering, raising=False)
    words = ["profile", "python:tests.models.factories:wavering", "--data", "digits", "--limit", "10", "--points", "[]"]
    words += ["--threat.epsilon", "0.1", "--out", str(tmp_path / "p.parquet")]
    assert main([*words, "--suite", "fast"]) == 2
    assert "the suite autoattack-rand is made for that" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--suite", "autoattack-rand"]) == 0
    assert "soundness not checked" not in capsys.readouterr().err


def test_an_override_of_checks_that_do_not_run_is_refused(tmp_path, capsys):
    words = ["profile", "small", "--data", "digits", "--allow", "zero-gradients", "--soundness", "false"]
    assert main([*words, "--out", str(tmp_path / "p.parquet")]) == 2
    assert "none run with --soundness false; got zero-gradients" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_a_run_in_one_line_and_the_run_can_go_on(tmp_path):
    """A limit on the size of files stands in for the disk: checkpoints no longer fit."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "poise",
        "finetune",
        "small",
        "--limit",
        "200",
        "--validate-on",
        "0",
    ]
    command += ["--training.epochs", "2", "--out", "run", "--trackers", "[]", "--training.batch_size", "64"]
    limited = ["bash", "-c", 'ulimit -f 200; trap "" XFSZ; exec "$@"', "-", *command]
    full = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    assert full.stderr.splitlines()[-1].startswith("poise: File too large")
    assert "Traceback" not in full.stderr
    assert not list((tmp_path / "run").rglob("*.partial"))
    again = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert load_model(tmp_path / "run").num_classes == 10
