"""A newcomer with the README alone gets from a clone to a report on a folder of images."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from poise.evaluation import read_profile

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "newcomer.sh"


@pytest.fixture
def clone(tmp_path):
    """A folder with sixty photographed digits of three classes, where the set-up has been made already."""
    digits = load_digits()
    for index, label in enumerate(digits.target):
        if label < 3 and index < 200:
            folder = tmp_path / "photos" / ("zero", "one", "two")[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[index] * 15.9).astype("uint8")).save(folder / f"{index:03d}.png")
    commands = {"make": "true", "poise": f'exec "{sys.executable}" -W error::FutureWarning -m poise "$@"'}
    for name, body in commands.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    return tmp_path


def test_the_script_is_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## On your own images\n")[2].partition("\n## ")[0]
    said = re.search(r"^(?:    .+\n)+", section, re.MULTILINE)[0]
    done = SCRIPT.read_text(encoding="utf-8").partition("set -euo pipefail\n\n")[2]
    assert [line.removeprefix("    ") for line in said.splitlines()] == done.splitlines()
    assert len(done.splitlines()) <= 6


def test_the_script_ends_with_a_report_on_the_folder(clone):
    environment = os.environ | {"PATH": f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(SCRIPT)], cwd=clone, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    run = clone / "runs" / "first"
    found = read_profile(run / "profile.parquet")
    assert found.header.classes == ("one", "two", "zero")
    assert found.epsilons[-1] == pytest.approx(4 / 255)
    assert 5 <= len(found) <= 200
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Robust accuracy at linf 4/255" in page or "robust accuracy at linf 4/255" in page
    assert f"{100 * found.robust()[:, 0].mean():.1f}" in page
    assert "first" in done.stdout
