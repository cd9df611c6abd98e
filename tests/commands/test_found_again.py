from __future__ import annotations

from functools import wraps

import pytest

import poise
from poise.commands.found_again import folder_of, marked, run_in


def test_a_folder_is_found_by_its_own_name_and_number_alone(tmp_path):
    """Another name that begins alike, a bracket that patterns would read, another mark, and work at its end."""
    wanted = tmp_path / "a[1]"
    for name in ("a[1]b", "a[1]-for-b", "a1"):
        marked(tmp_path / name, "mine")
    assert folder_of(wanted, "mine", lambda _: False) == wanted
    marked(wanted, "another")
    second = tmp_path / "a[1]-2"
    assert folder_of(wanted, "mine", lambda _: False) == second
    marked(second, "mine")
    assert folder_of(wanted, "mine", lambda _: False) == second
    assert folder_of(wanted, "mine", lambda folder: folder == second) == tmp_path / "a[1]-3"


def test_an_ended_run_is_found_again_and_not_taken_for_one_with_other_options(tmp_path):
    made = []

    @wraps(poise.finetune)
    def finetune(*arguments, **options):
        made.append(options)
        return poise.finetune(*arguments, **options)

    def again(**changed):
        options = {"objective": poise.Standard(), "limit": 64, "augmentation": "none", "validate_on": 0}
        few = poise.Training(epochs=1, batch_size=32)
        return run_in(finetune, "small", "digits", training=few, out=tmp_path / "run", **(options | changed))

    first = again(trackers=())
    assert again(trackers=["tensorboard"]).address == first.address
    assert len(made) == 1
    for changed, message in (
        ({"objective": poise.Adversarial()}, "objective.kind standard, not adversarial; take another folder"),
        ({"limit": None}, "limit 64, not None"),
        ({"seed": 1}, "seed 0, not 1"),
    ):
        with pytest.raises(poise.Misuse, match=message):
            again(**changed)
    with pytest.raises(poise.Misuse, match="model small, not resnet18"):
        run_in(finetune, "resnet18", "digits", out=tmp_path / "run")
    assert len(made) == 1
