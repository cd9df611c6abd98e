"""A claim for RobustBench holds the profile's figures, and exists only where a leaderboard does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from poise.cli import main
from poise.core.misuse import Misuse
from poise.evaluation import Finding, write_profile
from poise.reporting.claim import OPEN, Entry, claim_issue, claim_record
from tests.reporting.samples import profile

TEN = tuple(f"class {index}" for index in range(10))


def _profile(**changes):
    words = {
        "images": 10_000,
        "epsilons": (0.0, 4 / 255, 8 / 255),
        "suite": "autoattack",
        "data_address": "torchvision:CIFAR10",
        "classes": TEN,
        "whole": 10_000,
    }
    return profile((8534, 7000, 5342), **words | changes)


def test_the_record_holds_the_fields_of_the_zoo_and_the_figures_of_the_profile():
    entry = Entry(
        title="T", authors="A, B", link="https://x", venue="V 2026", architecture="WRN", additional_data=False
    )
    assert claim_record(_profile(), entry) == {
        "link": "https://x",
        "name": "T",
        "authors": "A, B",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar10",
        "venue": "V 2026",
        "architecture": "WRN",
        "eps": "8/255",
        "clean_acc": "85.34",
        "reported": "53.42",
        "autoattack_acc": "53.42",
        "unreliable": False,
    }
    mixed = claim_record(_profile(surrogates=("robust", "standard")), replace(entry, reported=50))
    assert (mixed["number_forward_passes"], mixed["reported"]) == (2, "50.00")


def test_what_only_a_person_knows_is_left_out_visibly():
    record = claim_record(_profile(), Entry())
    still = {name for name, value in record.items() if value == OPEN}
    assert still == {"link", "name", "authors", "additional_data", "venue", "architecture"}
    issue = claim_issue(_profile(surrogates=("robust",)), Entry(additional_data=True))
    assert issue.count(OPEN) == 5
    assert "**Threat Model**: Linf" in issue
    assert "**Robust accuracy**: 53.42%" in issue
    assert "**Additional data**: true" in issue
    assert "autoattack on 10000 images, through robust as well" in issue


@pytest.mark.parametrize(
    ("changes", "dataset", "epsilon"),
    [
        ({"norm": "l2", "epsilons": (0.0, 0.5, 0.5000001)[:2], "data_address": "hf:uoft-cs/cifar10"}, "cifar10", "0.5"),
        ({"classes": tuple(map(str, range(100))), "data_address": "torchvision:CIFAR100?root=x"}, "cifar100", "8/255"),
        (
            {
                "classes": tuple(map(str, range(1000))),
                "data_address": "hf:ILSVRC/imagenet-1k",
                "epsilons": (0.0, 4 / 255),
                "images": 5000,
                "whole": 5000,
                "split": "validation",
            },
            "imagenet",
            "4/255",
        ),
    ],
)
def test_every_leaderboard_is_known(changes, dataset, epsilon):
    held = (4000, 2000) if len(changes.get("epsilons", (0, 0, 0))) == 2 else (4000, 3000, 2000)
    words = {
        "images": 10_000,
        "epsilons": (0.0, 4 / 255, 8 / 255),
        "suite": "autoattack",
        "whole": 10_000,
        "classes": TEN,
    }
    record = claim_record(profile(held, **words | changes), Entry())
    assert (record["dataset"], record["eps"]) == (dataset, epsilon)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"suite": "apgd"}, "of the suite apgd"),
        ({"epsilons": (0.0, 2 / 255, 4 / 255)}, "in linf at 4/255; there are cifar10 linf 8/255"),
        ({"norm": "l2"}, "in l2 at 8/255"),
        ({"data_address": "digits"}, "no leaderboard of RobustBench is on digits"),
        ({"classes": TEN[:9]}, "9 classes"),
        ({"split": "train"}, "test images; this profile is of the split 'train'"),
        ({"whole": 20_000}, "about 10000 images"),
        ({"images": 9_999}, "this profile has 9999"),
    ],
)
def test_what_is_on_no_leaderboard_is_refused(changes, line):
    with pytest.raises(Misuse, match=line):
        claim_record(_profile(**changes), Entry())


def test_open_verdicts_and_objections_are_refused():
    whole = _profile()
    robust_to = whole.robust_to.copy()
    robust_to[np.flatnonzero(robust_to == 2)[0]] = 1
    with pytest.raises(Misuse, match="1 images lack a verdict"):
        claim_record(replace(whole, robust_to=robust_to), Entry())
    finding = Finding(check="zero-gradients", status="block", evidence="none")
    with pytest.raises(Misuse, match="object to this profile: zero-gradients"):
        claim_record(replace(whole, findings=(finding,)), Entry())


def test_the_command_writes_both_and_names_what_is_missing(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("data: torchvision:CIFAR10\n")
    words = [
        "report",
        str(tmp_path),
        "--format",
        "robustbench",
        "--claim.title",
        "T",
        "--claim.additional_data",
        "true",
    ]
    assert main(words) == 2
    assert "after poise profile" in capsys.readouterr().err
    write_profile(_profile(), tmp_path / "profile.parquet")
    assert main(words) == 0
    assert "to be filled in: link, authors, venue, architecture" in capsys.readouterr().err
    record = json.loads((tmp_path / "claim.json").read_text())
    assert (record["name"], record["additional_data"], record["clean_acc"]) == ("T", True, "85.34")
    assert "85.34%" in (tmp_path / "claim.md").read_text()
