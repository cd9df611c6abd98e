"""Parts judged apart and merged, through the command line and through Python."""

from __future__ import annotations

import numpy as np
import pytest

import poise
from poise.cli import main
from poise.core.misuse import Misuse
from poise.evaluation import read_adversarials, read_profile

WORDS = ["--limit", "30", "--suite", "fast", "--points", "0.05"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that tells digits apart and withstands little."""
    run = poise.finetune(
        "small",
        objective=poise.Standard(),
        threat=poise.Threat(epsilon=0.1),
        training=poise.Training(epochs=6, batch_size=32, learning_rate=1e-2),
        augmentation="none",
        limit=300,
        validate_on=0,
        trackers=(),
        out=tmp_path_factory.mktemp("model") / "run",
    )
    return run.address


@pytest.fixture(scope="module")
def parts(tmp_path_factory, model):
    """The profile of 30 digits, and those of its three parts, the first of which was checked."""
    folder = tmp_path_factory.mktemp("parts")
    common = ["profile", model, *WORDS, "--keep-adversarials"]
    assert main([*common, "--soundness", "false", "--out", str(folder / "whole.parquet")]) == 0
    for number, checked in (("1", "true"), ("2", "false"), ("3", "false")):
        words = ["--part", f"{number}/3", "--soundness", checked, "--out", str(folder / f"{number}.parquet")]
        assert main([*common, *words]) == 0
    return folder


def test_merged_parts_are_the_whole(parts, tmp_path, capsys):
    files = [str(parts / f"{number}.parquet") for number in (3, 1, 2)]
    assert main(["merge", *files, "--out", str(tmp_path / "all.parquet")]) == 0
    assert "all.parquet: 30 images" in capsys.readouterr().err
    whole, merged = read_profile(parts / "whole.parquet"), read_profile(tmp_path / "all.parquet")
    order = np.argsort(whole.ids)
    assert merged.header == whole.header
    assert merged.ids == tuple(np.array(whole.ids)[order])
    assert np.array_equal(merged.broken_from, whole.broken_from[order])
    checked = read_profile(parts / "1.parquet").findings
    assert {found.check for found in merged.findings} == {found.check for found in checked}
    kept, alone = read_adversarials(tmp_path / "all.parquet"), read_adversarials(parts / "whole.parquet")
    assert len(alone) > 10
    assert sorted(kept.ids) == sorted(alone.ids)
    assert merged.adversarials.counts == whole.adversarials.counts
    place = {identity: row for row, identity in enumerate(alone.ids)}
    assert (kept.images() - alone.images([place[identity] for identity in kept.ids])).abs().max() < 1e-3


def test_a_part_is_called_a_part(parts, tmp_path, capsys):
    assert len(read_profile(parts / "1.parquet")) == 10
    assert poise.merge([parts / "1.parquet", parts / "2.parquet"], out=tmp_path / "two.parquet").partial
    assert "two.parquet: a part, 20 of 30 images" in capsys.readouterr().err


def test_what_cannot_be_merged_leaves_nothing(parts, tmp_path, capsys):
    words = ["merge", str(parts / "1.parquet"), str(parts / "whole.parquet"), "--out", str(tmp_path / "x.parquet")]
    assert main(words) == 2
    assert "both hold the example" in capsys.readouterr().err
    assert main(["merge", str(parts / "nothing.parquet")]) == 2
    assert (
        main(["merge", str(parts / "1.parquet"), str(parts / "1.parquet"), "--out", str(tmp_path / "x.parquet")]) == 2
    )
    assert "named twice" in capsys.readouterr().err
    with pytest.raises(Misuse, match="exists already"):
        poise.merge([parts / "1.parquet"], out=parts / "2.parquet")
    assert list(tmp_path.iterdir()) == []


def test_images_are_left_out_where_a_part_has_none(parts, model, tmp_path, capsys):
    words = ["profile", model, *WORDS, "--part", "2/3", "--soundness", "false", "--out", str(tmp_path / "2.parquet")]
    assert main(words) == 0
    merged = poise.merge([parts / "1.parquet", tmp_path / "2.parquet"], out=tmp_path / "all.parquet")
    assert merged.adversarials is None
    assert "adversarial images are left out" in capsys.readouterr().err
    assert {found.status for found in merged.findings if found.check == "input-range"} == {"note"}
    assert not (tmp_path / "all.adversarials.parquet").exists()


def test_a_part_is_resumed_as_the_part_it_is(model, tmp_path, capsys, monkeypatch):
    out = ["--out", str(tmp_path / "p.parquet"), "--soundness", "false"]
    monkeypatch.setattr("poise.commands.profile.write_profile", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["profile", model, *WORDS, "--part", "1/3", *out]) == 130
    monkeypatch.undo()
    assert main(["profile", model, *WORDS, "--part", "2/3", *out]) == 2
    assert "was begun with another part" in capsys.readouterr().err
    assert main(["profile", model, *WORDS, "--part", "1/3", *out]) == 0


def test_profiling_again_without_images_removes_those_of_before(model, tmp_path):
    out = ["--out", str(tmp_path / "p.parquet"), "--soundness", "false"]
    assert main(["profile", model, *WORDS, "--keep-adversarials", *out]) == 0
    assert (tmp_path / "p.adversarials.parquet").exists()
    assert main(["profile", model, *WORDS, "--overwrite", *out]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.parquet"]
