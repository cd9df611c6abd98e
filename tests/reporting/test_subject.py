from __future__ import annotations

import json

import pytest

from poise.core.misuse import Misuse
from poise.evaluation import write_profile
from poise.reporting import read_subject
from tests.reporting.samples import history, profile


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "fine-tuned"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("data: digits\n")
    return folder


def test_a_complete_run_is_read(run):
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history(3)))
    write_profile(profile((9, 8, 5)), run / "profile.parquet")
    found = read_subject(run)
    assert found.name == "fine-tuned"
    assert found.history == history(3)
    assert found.recipe == "data: digits\n"
    assert found.seconds == 4.5
    assert found.profile is not None
    assert found.profile.robust().sum(axis=0).tolist() == [9, 8, 5]


def test_what_a_run_lacks_is_missing_and_no_error(run):
    found = read_subject(run, name="old")
    assert (found.name, found.profile, found.history, found.seconds) == ("old", None, [], None)


def test_rows_without_seconds_add_nothing(run):
    (run / "metrics.jsonl").write_text('{"epoch": 0, "seconds": 1.25}\n{"epoch": 1}\n{"epoch": 2, "seconds": NaN}\n')
    assert read_subject(run).seconds == 1.25


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(Misuse, match="no run folder"):
        read_subject(tmp_path)
