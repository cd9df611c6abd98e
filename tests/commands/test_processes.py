from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

import poise
from poise.evaluation import read_profile


def test_two_processes_make_the_profile_that_one_makes(tmp_path):
    """gloo on one machine; each process attacks half of the images and the main one writes."""
    run = poise.finetune(
        "small",
        training=poise.Training(epochs=1, batch_size=64),
        threat=poise.Threat(epsilon=0.1),
        limit=120,
        validate_on=0,
        trackers=(),
        out=tmp_path / "run",
    )
    options = {"suite": "fast", "soundness": False, "keep_adversarials": True}
    one = poise.profile(run.address, **options, out=tmp_path / "one.parquet")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "poise"]
    words = ["profile", run.address, "--suite", "fast", "--soundness", "false", "--keep-adversarials"]
    words += ["--out", str(tmp_path / "two.parquet")]
    ended = subprocess.run(
        [*launch, *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    two = read_profile(tmp_path / "two.parquet")
    assert two.header == one.header
    assert two.ids == one.ids
    assert np.array_equal(two.broken_from, one.broken_from)
    kept = [poise.read_adversarials(tmp_path / f"{name}.parquet") for name in ("one", "two")]
    assert kept[0].ids == kept[1].ids
    assert len(kept[0]) > 5
    files = ["one.adversarials.parquet", "one.parquet", "run", "two.adversarials.parquet", "two.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
