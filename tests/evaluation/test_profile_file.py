from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.evaluation import Finding, Header, Profile, profile_of, read_profile, write_profile
from tests.evaluation.profiles import header, profile


def _same(first: Profile, second: Profile) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("ids", "labels", "predictions", "margins", "robust_to", "broken_from", "broken_by")
    )


def test_a_profile_comes_back_as_it_went(tmp_path):
    made = profile([0, 1, 2, 3], (0.0, 1 / 255, 0.2), versions={"torch": "2"}, classes=("ja", "n\u00e9"))
    write_profile(made, tmp_path / "p.parquet")
    back = read_profile(tmp_path / "p.parquet")
    assert back.header == made.header
    assert _same(back, made)
    assert back.settled


def test_any_tool_can_read_the_table(tmp_path):
    write_profile(profile([0, 2]), tmp_path / "p.parquet")
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert rows[1] == {
        "id": "image/1",
        "label": 1,
        "prediction": 1,
        "robust_to": 1,
        "broken_from": 2,
        "margin": 2.0,
        "broken_by": "pgd",
    }


def test_what_is_between_is_not_settled():
    assert not profile([2], robust_to=[0]).settled


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "p.parquet"
    write_profile(profile([0, 1]), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Misuse, match=r"p\.parquet cannot be read as a profile"):
        read_profile(path)


def test_a_foreign_table_is_refused_by_name(tmp_path):
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "f.parquet")
    with pytest.raises(Misuse, match=r"f\.parquet is a parquet file, but no profile"):
        read_profile(tmp_path / "f.parquet")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(Misuse, match="make one with poise profile"):
        read_profile(tmp_path / "none.parquet")


@pytest.mark.parametrize("grid", [(), (0.1, 0.2), (0.0, 0.2, 0.1), (0.0, 0.0)])
def test_a_grid_that_does_not_rise_from_zero_is_refused(grid):
    with pytest.raises(Misuse, match="grid rises from 0"):
        header(grid)
    assert Header


def test_what_soundness_checks_found_travels_with_the_profile(tmp_path):
    findings = (
        Finding(check="train-mode", status="block", evidence="2 modules", overridden=True),
        Finding(check="monotone", status="pass", evidence="fine"),
    )
    write_profile(replace(profile([0, 1]), findings=findings), tmp_path / "p.parquet")
    assert read_profile(tmp_path / "p.parquet").findings == findings


@pytest.mark.parametrize(
    ("column", "values", "line"),
    [
        ("prediction", [1, 0, 1, 0], "the prediction contradicts the verdict on the clean image: 'image/1'"),
        ("prediction", [0, 9, 0, 1], "a class is none of the classes: 'image/1'"),
        ("robust_to", [-1, 99, 0, 1], "a verdict is not on the grid: 'image/1'"),
        ("robust_to", [-1, 0, 2, 2], "an image withstands an epsilon beyond one that breaks it: 'image/2'"),
        ("broken_from", [0, 1, 2, 4], "a verdict is not on the grid: 'image/3'"),
        ("broken_from", [-5, 1, 2, 3], "a verdict is not on the grid: 'image/0'"),
        ("broken_by", ["clean", "pgd", "pgd", "x"], "the attack that broke it contradicts the verdict: 'image/3'"),
    ],
)
def test_rows_that_no_examination_writes_are_refused(tmp_path, column, values, line):
    path = tmp_path / "p.parquet"
    write_profile(profile([0, 1, 2, 3], (0.0, 0.1, 0.2), classes=("a", "b")), path)
    table = pq.read_table(path)
    read_profile(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table[column].type)), path)
    with pytest.raises(Misuse, match=f"p.parquet is damaged: {line}"):
        read_profile(path)


def test_a_part_is_not_larger_than_the_whole():
    made = profile([0, 1])
    with pytest.raises(Misuse, match="a profile of 2 images says that there are 1 in all"):
        replace(made, header=replace(made.header, whole=1))


def test_a_profile_in_a_run_folder_is_of_the_model_in_it(tmp_path):
    run = RunFolder(tmp_path)
    assert profile_of(run) is None
    made = profile([0, 1])
    write_profile(made, run.profile)
    assert profile_of(run).header == made.header
    run.model.write_text(json.dumps({"digest": made.header.model}))
    assert profile_of(run).header == made.header
    run.model.write_text(json.dumps({"digest": "another"}))
    with pytest.raises(Misuse, match="is about another model than the one in"):
        profile_of(run)
