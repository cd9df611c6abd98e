from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch

from poise.cli import main


def test_doctor_says_versions_devices_and_speed_and_names_no_folder(capsys):
    state = torch.get_rng_state()
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    facts = dict(line.strip().split("  ", 1) for line in told.splitlines() if line.startswith("  "))
    assert facts["torch"].strip() == version("torch")
    assert facts["pyautoattack"].strip() in {
        "not installed",
        *([version("pyautoattack")] if _has("pyautoattack") else []),
    }
    assert "pytest" not in facts
    assert int(facts["cores"]) >= 1
    assert float(facts["cpu fp32"].removesuffix(" ms")) > 0
    assert str(Path.cwd()) not in told
    assert str(Path.home()) not in told
    assert torch.equal(torch.get_rng_state(), state)


def _has(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
