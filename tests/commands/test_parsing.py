"""From words to options, where what they mean depends on a run."""

from __future__ import annotations

import pytest

import poise
from poise.commands.parsing import options_in
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    """A run folder that says only what it is meant to withstand."""
    RunFolder(tmp_path).recipe.write_text("# poise finetune --config recipe.yaml\nthreat: {norm: l2, epsilon: '0.5'}\n")
    return f"run:{tmp_path}"


@pytest.mark.parametrize(
    "words",
    [
        "profile {run}",
        "profile --model {run}",
        "profile --model={run}",
        "demo {run}",
        "demo {folder}",
        "demo --model={folder}",
        "update --old run:elsewhere --new {run}",
        "update --new={run} --old=run:elsewhere",
        "mix --standard run:elsewhere --robust {run}",
        "mix --robust={run} --standard run:elsewhere",
    ],
)
def test_a_part_of_a_threat_is_completed_from_the_run_that_is_meant(run, words):
    verb, *rest = words.format(run=run, folder=run.removeprefix("run:")).split()
    assert options_in(verb, [*rest, "--threat.epsilon", "0.25"])["threat"] == poise.Threat(norm="l2", epsilon="0.25")
    assert options_in(verb, [*rest, "--threat.norm=l1"])["threat"] == poise.Threat(norm="l1", epsilon="0.5")
    assert options_in(verb, rest)["threat"] is None


@pytest.mark.parametrize(
    ("kept", "words", "meant"),
    [
        ("", "--threat.epsilon 0.25", "l2 0.25"),
        ("threat: null", "--threat.epsilon 0.25", "l2 0.25"),
        ("threat: {epsilon: 0.25}", "", "l2 0.25"),
        ("threat: {epsilon: 0.25}", "--threat.norm=l1", "l1 0.25"),
        ("threat: {norm: linf}", "", "linf 0.5"),
        ("threat: {norm: linf, epsilon: 0.25}", "--threat.epsilon 0.125", "linf 0.125"),
    ],
)
def test_what_a_recipe_names_of_a_threat_is_completed_too(run, tmp_path, kept, words, meant):
    recipe = tmp_path / "profile.yaml"
    recipe.write_text(f"# poise profile --config recipe.yaml\nmodel: {run}\n{kept}\n")
    for spelt in (["--config", str(recipe)], [f"--config={recipe}"]):
        assert str(options_in("profile", [*spelt, *words.split()])["threat"]) == meant


@pytest.mark.parametrize("words", ["profile", "demo", "mix --standard run:a", "update --old run:a"])
def test_a_part_of_a_threat_does_not_stand_for_the_model_that_is_meant(words):
    verb, *rest = words.split()
    with pytest.raises(Misuse, match=r"^missing: --(model|robust|new) "):
        options_in(verb, [*rest, "--threat.epsilon", "0.25"])
