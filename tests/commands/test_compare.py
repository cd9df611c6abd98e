from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import poise
from poise.cli import main
from poise.commands.comparing.gallery import pictures_of
from poise.core.misuse import Misuse
from poise.data import open_data
from poise.evaluation import Finding, read_adversarials, read_profile_csv, write_profile, write_profile_csv
from poise.evaluation.flips import Replay
from poise.reporting.comparison.sentences import summary
from tests.evaluation.flips.tables import checked, settled
from tests.reporting.comparison.samples import LABELS, NEW, OLD

L2 = poise.Threat(norm="l2", epsilon=0.5)
QUICK = {
    "training": poise.Training(epochs=3, batch_size=64, learning_rate=1e-2),
    "objective": poise.Standard(),
    "validate_on": 0,
    "trackers": (),
    "augmentation": "none",
}
FILES = ["comparison.html", "comparison.json", "comparison.md", "flipped.csv"]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with old and new as parquet and as CSV, and old again with another seed."""
    monkeypatch.chdir(tmp_path)
    new = checked(settled(NEW, labels=LABELS, model="n" * 32))
    for name, profile in (("old", checked(settled(OLD, labels=LABELS))), ("new", new)):
        write_profile(profile, tmp_path / f"{name}.parquet")
        write_profile_csv(profile, tmp_path / f"{name}.csv")
    write_profile(settled([3, *OLD[1:]], labels=LABELS, seed=1), tmp_path / "again.parquet")
    return tmp_path


def _gate(desk, *limits):
    (desk / "gate.yaml").write_text("limits:\n" + "".join(f"  - {limit}\n" for limit in limits))


KEPT = "{figure: clean_flips, at_most: 20 %}"
BROKEN = "{figure: robust_flips, at: 0.1, at_most: 5 %}"
CLOSE = "{figure: robust_flips, at: 0.3, at_most: 12 %}"


@pytest.mark.parametrize(
    ("limits", "code", "told"),
    [
        ([KEPT], 0, "The gate passes: the limit is kept."),
        ([KEPT, BROKEN], 1, "The gate fails: 1 of 2 limits is broken."),
        ([KEPT, CLOSE], 2, "The gate cannot be judged: for 1 of 2 limits the evidence is not enough."),
        ([CLOSE, BROKEN], 1, "The gate fails: 1 of 2 limits is broken, and 1 cannot be judged."),
    ],
)
def test_exit_codes_say_what_became_of_the_gate(desk, capsys, limits, code, told):
    _gate(desk, *limits)
    words = ["compare", "old.parquet", "new.parquet", "--gate", "gate.yaml", "--out", "out", "--gallery", "0"]
    assert main(words) == code
    assert told in capsys.readouterr().out
    assert sorted(path.name for path in (desk / "out").iterdir()) == [*FILES, "junit.xml"]
    assert json.loads((desk / "out" / "comparison.json").read_text())["gate"]["exit_code"] == code


def test_without_a_gate_it_only_shows(desk, capsys):
    assert main(["compare", "old.parquet", "new.parquet"]) == 0
    told = capsys.readouterr()
    assert "On clean images, 5 of 100 images are lost and 10 gained" in told.out
    assert "gate" not in told.out
    assert sorted(path.name for path in desk.iterdir()) == [
        "again.parquet",
        "new.csv",
        "new.parquet",
        "old.csv",
        "old.parquet",
    ]
    compared = poise.compare("old.parquet", "new.parquet", out="out", gallery=0)
    assert (compared.exit_code, compared.judgement) == (0, None)
    assert sorted(path.name for path in (desk / "out").iterdir()) == FILES


def test_csv_and_parquet_give_the_same_comparison(desk):
    poise.compare("old.csv", "new.csv", out="a", gallery=0)
    poise.compare("old.parquet", "new.parquet", out="b", gallery=0)
    for name in FILES:
        assert (desk / "a" / name).read_text() == (desk / "b" / name).read_text()


def test_run_folders_are_addresses_too(desk, capsys):
    for name in ("old", "new"):
        (desk / "runs" / name).mkdir(parents=True)
        (desk / "runs" / name / "recipe.yaml").write_text("model: small\n")
        write_profile(settled(OLD, labels=LABELS), desk / "runs" / name / "profile.parquet")
    compared = poise.compare("runs/old", "run:runs/new")
    assert (compared.old, compared.new) == ("old", "new")
    (desk / "runs" / "old" / "profile.parquet").unlink()
    assert main(["compare", "runs/old", "runs/new"]) == 2
    assert "runs/old has not been profiled; do so with poise profile run:runs/old" in capsys.readouterr().err
    assert main(["compare", "runs", "runs/new"]) == 2
    assert "runs has no recipe.yaml" in capsys.readouterr().err


def test_profiles_that_do_not_match_are_refused_and_a_gate_says_so_to_machines(desk, capsys):
    write_profile(settled(NEW, labels=LABELS, ids=[f"x{row}" for row in range(100)]), desk / "other.parquet")
    assert main(["compare", "old.parquet", "other.parquet", "--out", "out"]) == 2
    assert "the profiles are of different images: 'image/0'" in capsys.readouterr().err
    assert not (desk / "out").exists()
    _gate(desk, KEPT)
    assert main(["compare", "old.parquet", "other.parquet", "--gate", "gate.yaml", "--out", "out"]) == 2
    assert "The gate cannot be judged" in capsys.readouterr().out
    assert 'errors="1"' in (desk / "out" / "junit.xml").read_text()


def test_a_blocked_profile_passes_no_gate_unless_somebody_overrode_it_and_the_gate_accepts_that(desk, capsys):
    objection = Finding(check="zero-gradients", status="block", evidence="all vanish")
    for overridden, accepted, code in (
        (False, "[zero-gradients]", 2),
        (True, "vanishing", 2),
        (True, "zero-gradients", 0),
    ):
        _gate(desk, f"{KEPT}\noverridden: {accepted}")
        found = replace(objection, overridden=overridden)
        new = checked(settled(NEW, labels=LABELS), found)
        write_profile(new, desk / "new.parquet")
        write_profile_csv(new, desk / "new.csv")
        for name in ("new.parquet", "new.csv"):
            assert main(["compare", "old.parquet", name, "--gate", "gate.yaml"]) == code
            told = " ".join(capsys.readouterr().out.split())
            assert ("zero-gradients: all vanish" in told) == (not overridden)
            assert (
                "Objections to the new profile were overridden when it was made: zero-gradients." in told
            ) == overridden


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["old.parquet", "nothing.parquet"], "there is no profile at nothing.parquet; make one with poise profile"),
        (["nothing.csv", "new.parquet"], "there is no profile at nothing.csv"),
        (["old.parquet", "damaged.parquet"], "damaged.parquet cannot be read as a profile"),
        (["old.parquet", "damaged.csv"], "damaged.csv, line 1: the norm is missing"),
        (["run", "new.parquet"], "run has not been profiled"),
        (["old.parquet", "new.parquet", "--noise", "nothing.parquet"], "there is no profile at nothing.parquet"),
    ],
)
def test_a_gate_says_to_machines_that_a_profile_cannot_be_read(desk, words, reason):
    """Without a gate it is one line on standard error, and no file."""
    (desk / "damaged.parquet").write_bytes((desk / "new.parquet").read_bytes()[:-100])
    (desk / "damaged.csv").write_text("id,label\n")
    (desk / "run").mkdir()
    (desk / "run" / "recipe.yaml").write_text("model: small\n")
    _gate(desk, KEPT, BROKEN)
    assert main(["compare", *words, "--out", "out"]) == 2
    assert not (desk / "out").exists()
    assert main(["compare", *words, "--gate", "gate.yaml", "--out", "out"]) == 2
    assert 'errors="2"' in (desk / "out" / "junit.xml").read_text()
    assert reason in (desk / "out" / "comparison.md").read_text()
    assert reason in json.loads((desk / "out" / "comparison.json").read_text())["obstacle"]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_profiles_that_no_check_looked_at_pass_a_gate_only_if_it_says_so(judged, tmp_path, monkeypatch, ending):
    """What was made with --soundness false, and sent through CSV as well."""
    monkeypatch.chdir(tmp_path)
    for run, name in zip(judged, ("old", "new"), strict=True):
        write = write_profile_csv if ending == "csv" else write_profile
        write(run.profile(), tmp_path / f"{name}.{ending}")
    words = ["compare", f"old.{ending}", f"new.{ending}", "--gate", "gate.yaml", "--out", "out", "--gallery", "0"]
    _gate(tmp_path, "{figure: robust_flips, at: 0.1, at_most: 100 %}")
    assert main(words) == 2
    told = (tmp_path / "out" / "comparison.md").read_text()
    assert "no soundness check has looked at the old profile; no soundness check has looked at the new profile" in told
    assert "images are lost" in told
    (tmp_path / "gate.yaml").write_text((tmp_path / "gate.yaml").read_text() + "unchecked: allow\n")
    assert main(words) == 0


def test_noise_is_found_by_its_model_and_shown_beside(desk, capsys):
    assert main(["compare", "old.parquet", "new.parquet", "--noise", "again.parquet"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Attack noise of the old model (seeds 0 and 1) alone makes 0.50" in told
    assert main(["compare", "old.parquet", "new.parquet", "--noise", "again.parquet,new.parquet"]) == 2
    assert "both profiles of the new model have seed 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("compare", "missing: --old, --new"),
        ("compare old.parquet", "missing: --new"),
        ("compare a b c", "unexpected word 'c'"),
        ("compare old.parquet nothing.parquet", "there is no profile at nothing.parquet"),
        ("compare old.parquet nothing.csv", "there is no profile at nothing.csv"),
        ("compare old.parquet new.parquet --gate nothing.yaml", "there is no gate at nothing.yaml"),
        ("compare old.parquet new.parquet --gat x", "unknown option '--gat'; did you mean '--gate'?"),
        ("compare old.parquet new.parquet --gallery -1", "gallery must be at least 0"),
    ],
)
def test_misuse_is_one_readable_line(desk, capsys, words, line):
    assert main(words.split()) == 2
    told = capsys.readouterr().err.strip()
    assert line in told
    assert "\n" not in told


class _Kept:
    """Adversarial images of every other example."""

    def __init__(self, ids):
        self.ids = ids[::2]

    def images(self, rows):
        return torch.stack([torch.full((1, 8, 8), row / 1000) for row in rows])


def test_pictures_are_those_of_the_lost_ids_whatever_the_order_of_the_rows(desk, capsys):
    images = open_data("digits", limit=40).test
    rows = torch.arange(39, -1, -1)
    judged = images.select(rows)
    known = {"ids": judged.ids, "labels": judged.labels.numpy(), "classes": judged.classes, "data_address": "digits"}
    broken = np.full(40, 4)
    write_profile(settled(broken, data=judged.digest(), **known), desk / "old.parquet")
    write_profile(settled(np.where(np.arange(40) % 13 == 0, 1, 4), data=judged.digest(), **known), desk / "new.parquet")
    compared = poise.compare("old.parquet", "new.parquet", out="out")
    assert (desk / "out" / "comparison.html").read_text().count("<img ") == 4
    pictures = pictures_of(compared, None, 3, _Kept(judged.ids))
    assert [picture.change.id for picture in pictures] == sorted(judged.ids[row] for row in (0, 13, 26, 39))[:3]
    for picture in pictures:
        row = images.ids.index(picture.change.id)
        assert torch.equal(torch.from_numpy(picture.clean), images.images(torch.tensor([row]))[0])
        place = judged.ids.index(picture.change.id)
        assert (picture.adversarial is None) == (place % 2 == 1)
        if picture.adversarial is not None:
            assert picture.adversarial.max() == pytest.approx(place / 2 / 1000)
    capsys.readouterr()
    for address, line in (("nope:x", "unknown kind of data"), ("folder:none", "there is no folder none")):
        assert pictures_of(compared, address, 3) == ()
        assert line in capsys.readouterr().err
    other = replace(compared.pair.old, header=replace(compared.pair.old.header, data="e" * 32))
    changed = replace(compared, pair=replace(compared.pair, old=other))
    assert pictures_of(changed, None, 3) == ()
    assert "holds other images than the profile was made on" in capsys.readouterr().err


@pytest.mark.usefixtures("desk")
def test_the_page_shows_the_images_that_the_new_models_profile_kept(tmp_path):
    """Against an old model that is always right: every image that is lost, and beside it the one that fools the new."""
    run = poise.finetune("small", "digits", threat=L2, out="runs/new", **QUICK)
    new = poise.profile(run.address, suite="fast", limit=20, soundness=False, keep_adversarials=True)
    points, count = len(new.epsilons), len(new)
    perfect = {
        "header": replace(new.header, model="o" * 32),
        "predictions": new.labels,
        "robust_to": np.full(count, points - 1),
        "broken_from": np.full(count, points),
        "broken_by": ("",) * count,
        "adversarials": None,
    }
    write_profile(replace(new, **perfect), tmp_path / "old.parquet")
    compared = poise.compare("old.parquet", "runs/new", out="out", gallery=100)
    kept = read_adversarials(run.folder.profile)
    lost = [change.id for change in compared.changes]
    assert set(kept.ids) & set(lost)
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<img ") == len(lost) + len(set(kept.ids) & set(lost))
    assert page.count("adversarial for the new model") == len(set(kept.ids) & set(lost))


def test_exported_profiles_are_read_back(desk):
    assert len(read_profile_csv(desk / "old.csv")) == 100
    with pytest.raises(Misuse):
        poise.compare("old.parquet", "new.parquet", gallery=-1)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Two runs, the first with its adversarial images kept; the second was judged by a weak suite."""
    root = tmp_path_factory.mktemp("replay")
    runs = [poise.finetune("small", "digits", limit=200, seed=seed, out=root / str(seed), **QUICK) for seed in (0, 1)]
    for run in runs:
        poise.profile(
            run.address,
            threat=poise.Threat(epsilon=0.1),
            suite="fast",
            limit=30,
            points=[],
            soundness=False,
            keep_adversarials=run is runs[0],
        )
    return runs


def test_a_replay_shows_the_new_model_what_broke_the_old_one(judged, tmp_path, capsys):
    old, new = (str(run.path) for run in judged)
    assert main(["compare", old, new, "--replay", "--out", str(tmp_path / "c")]) == 0
    kept = read_adversarials(judged[0].path / "profile.parquet")
    labels = dict(zip(judged[1].profile().ids, judged[1].profile().labels.tolist(), strict=True))
    with torch.no_grad():
        said = judged[1].classifier().eval()(kept.images()).argmax(1).tolist()
    fooled = [identity for identity, prediction in zip(kept.ids, said, strict=True) if prediction != labels[identity]]
    record = json.loads((tmp_path / "c" / "comparison.json").read_text())["replay"]
    assert record["fooled"] == fooled
    assert 0 < len(fooled) <= record["images"] == len(kept)
    told = f"Of {len(kept)} images that break the old model, {100 * len(fooled) / len(kept):.1f}"
    for text in (capsys.readouterr().out.replace("\n", " "), (tmp_path / "c" / "comparison.html").read_text()):
        assert told in text


def test_a_replay_needs_kept_images_and_the_very_model(judged, desk, tmp_path, capsys):
    old, new = (str(run.path) for run in judged)
    assert main(["compare", new, old, "--replay"]) == 2
    assert "was profiled without --keep-adversarials, so there is nothing to replay" in capsys.readouterr().err
    other = tmp_path / "other.parquet"
    profile = judged[1].profile()
    write_profile(replace(profile, header=replace(profile.header, model="f" * 32)), other)
    assert main(["compare", old, str(other), "--replay"]) == 2
    assert "is another model than the new profile is about" in capsys.readouterr().err
    write_profile(replace(profile, header=replace(profile.header, model_address="")), other)
    assert main(["compare", old, str(other), "--replay"]) == 2
    assert "does not say which model it is about" in capsys.readouterr().err


def test_what_the_new_profile_overlooked_is_said(desk):
    found = poise.compare("old.parquet", "new.parquet")
    ids = tuple(found.pair.new.ids[:7])
    replayed = Replay(ids=ids, fooled=np.ones(7, dtype=bool), within=np.ones(7, dtype=int), overlooked=ids)
    said = summary(replace(found, replayed=replayed))[-2:]
    assert said[0].startswith("Of 7 images that break the old model, 100.0")
    assert "too kind: 7 of these images break it" in said[1]
    assert f"({', '.join(ids[:5])}, ...)" in said[1]


def test_no_verdict_of_an_earlier_comparison_is_left(desk):
    _gate(desk, KEPT)
    words = ["compare", "old.parquet", "new.parquet", "--out", "c"]
    assert main([*words, "--gate", "gate.yaml"]) == 0
    assert (desk / "c" / "junit.xml").is_file()
    assert main(words) == 0
    assert not (desk / "c" / "junit.xml").exists()
    assert main([*words, "--gate", "gate.yaml"]) == 0
    assert main([*words, "--gate", "none.yaml"]) == 2
    assert not (desk / "c" / "junit.xml").exists()


def test_a_profile_that_the_replay_proves_wrong_is_not_judged(judged, tmp_path, monkeypatch, capsys):
    (tmp_path / "gate.yaml").write_text(f"limits: [{KEPT.replace('20 %', '100 %')}]\nunchecked: allow\n")
    old, new = (str(run.path) for run in judged)
    words = ["compare", old, new, "--replay", "--gate", str(tmp_path / "gate.yaml")]
    for overlooked, code in ((0, 0), (1, 2)):
        monkeypatch.setattr(
            "poise.commands.compare._replayed",
            lambda pair, *_, count=overlooked: Replay(
                ids=pair.old.ids[:1],
                fooled=np.ones(1, dtype=bool),
                within=np.ones(1, dtype=int),
                overlooked=pair.old.ids[:count],
            ),
        )
        assert main(words) == code
        said = " ".join(capsys.readouterr().out.split())
        assert ("cannot be judged" in said) == (code == 2)


def test_a_run_whose_model_was_exchanged_is_not_judged_by_its_old_profile(judged, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(judged[1].path, run)
    assert main(["compare", str(judged[0].path), str(run)]) == 0
    for name in ("model.json", "model.safetensors"):
        shutil.copy(judged[0].path / name, run / name)
    capsys.readouterr()
    for words in (["compare", str(judged[0].path), str(run)], ["report", str(run)], ["export", f"run:{run}"]):
        assert main(words) == 2
        assert "profile.parquet is about another model than the one in" in capsys.readouterr().err
    assert not (run / "report.html").exists()
    assert not (run / "model.onnx").exists()
