"""The gate and the workflow that users copy."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from poise.cli import main
from poise.evaluation import write_profile
from poise.evaluation.gate import FIGURES, read_gate
from tests.evaluation.flips.tables import checked, settled

RECIPES = Path(__file__).parents[2] / "recipes" / "release-gate"


def test_the_gate_is_read_and_says_what_it_says():
    gate = read_gate(RECIPES / "gate.yaml")
    assert (gate.confidence, gate.joint, gate.grid, gate.unchecked) == (0.95, "none", "old", "refuse")
    assert len(gate.limits) == 9
    assert [str(limit) for limit in gate.limits][:2] == ["clean flips at most 2 %", "robust flips at 8/255 at most 4 %"]
    assert {limit.figure for limit in gate.limits} <= FIGURES.keys()


def test_the_workflows_command_runs_as_it_stands(tmp_path, monkeypatch):
    """On profiles of 3,000 images, one of a model that is better throughout and one of a model that is not."""
    workflow = yaml.safe_load((RECIPES / "release-gate.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    assert workflow[True].keys() == {"pull_request"}  # YAML reads "on" so
    (command,) = [step["run"] for step in steps if step.get("run", "").startswith("poise ")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gate.yaml").write_text((RECIPES / "gate.yaml").read_text(encoding="utf-8"))
    grid = (0.0, 4 / 255, 8 / 255)
    old = [3] * 1500 + [1] * 1200 + [0] * 300
    for new, code in (([3] * 1480 + [1] * 20 + [2] * 1200 + [1] * 300, 0), ([3] * 1300 + [1] * 1400 + [0] * 300, 1)):
        for name, broken_from in (("old", old), ("new", new)):
            write_profile(checked(settled(broken_from, grid=grid)), tmp_path / "models" / name / "profile.parquet")
        assert main(shlex.split(command)[1:]) == code
        assert (tmp_path / "comparison" / "comparison.md").is_file()
    (tmp_path / "models" / "new" / "profile.parquet").unlink()
    (tmp_path / "comparison" / "comparison.md").unlink()
    assert main(shlex.split(command)[1:]) == 2
    assert "there is no profile at" in (tmp_path / "comparison" / "comparison.md").read_text()
    assert all(step["if"] == "always()" for step in steps[-3:])
