"""What users hit: changed data, second processes, half-finished runs, options that contradict a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import poise
from poise.cli import main
from poise.commands.run import fresh_path
from poise.core.files import held
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.evaluation import read_profile
from poise.models import load_model, open_model

QUICK = {
    "training": poise.Training(epochs=1, batch_size=64),
    "limit": 100,
    "validate_on": 0,
    "trackers": (),
    "augmentation": "none",
}
L2 = poise.Threat(norm="l2", epsilon=0.25)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return poise.finetune("small", threat=L2, out=tmp_path_factory.mktemp("mishaps") / "run", **QUICK)


@pytest.mark.parametrize(
    ("words", "norm", "top"),
    [
        (["--threat.epsilon", "0.5"], "l2", 0.5),
        (["--threat.norm", "l1"], "l1", 0.25),
        ([], "l2", 0.25),
        (["--threat.norm=linf", "--threat.epsilon=4/255"], "linf", 4 / 255),
    ],
)
def test_naming_a_part_of_the_threat_keeps_the_runs_other_part(run, tmp_path, words, norm, top):
    out = tmp_path / "p.parquet"
    common = ["--suite", "fast", "--soundness", "false", "--limit", "10", "--points", "[]", "--out", str(out)]
    assert main(["profile", run.address, *words, *common]) == 0
    header = read_profile(out).header
    assert (header.norm, header.epsilons[-1]) == (norm, top)
    assert (header.split, header.mode, header.proposing) == ("test", "bisect", "fp32")


def test_weights_are_written_last_so_that_a_run_with_them_is_whole(run, tmp_path, monkeypatch):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    monkeypatch.setattr("poise.models.saving.save", _dies)
    with pytest.raises(KeyboardInterrupt):
        poise.finetune("small", threat=L2, out=tmp_path / "run", resume=True, **QUICK)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    poise.finetune("small", threat=L2, out=tmp_path / "run", resume=True, **QUICK)
    assert load_model(tmp_path / "run").digest() == run.classifier().digest()


def _dies(*_args, **_kwargs):
    raise KeyboardInterrupt


def test_resuming_on_other_images_is_refused(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("limit: 100", "limit: 90"))
    with pytest.raises(Misuse, match="is of another run: the training images, or the weights it started from"):
        poise.finetune("small", threat=L2, out=tmp_path / "run", resume=True, **QUICK | {"limit": 90})


def _photos(folder: Path, spoilt: bool = False) -> Path:
    """Ten images of each of two classes; spoilt, one of them cannot be decoded."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for split, count in (("train", 10), ("validation", 2), ("test", 2)):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    if spoilt:
        path = folder / "train" / "cat" / "3.png"
        path.write_bytes(path.read_bytes()[:120])
    return folder


def _killed_after_an_epoch(data: Path, out: Path) -> dict:
    """Options of a run that stopped in its second epoch."""
    options = QUICK | {"training": poise.Training(epochs=3, batch_size=8), "threat": L2, "out": out}
    seen = []

    def validate(*_):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return {"clean": 0.5, "robust": 0.5}

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("poise.commands.fitting.validation.Validation.__call__", validate)
        poise.finetune("small", f"folder:{data}", **options | {"validate_on": 4})
    return options | {"validate_on": 4}


def test_images_that_stand_twice_are_told_by_every_verb_that_learns_or_chooses(tmp_path, capsys):
    photos = _photos(tmp_path / "photos")
    copies = {"test/cat/0.png": "train/cat/1.png", "validation/cat/0.png": "train/dog/2.png"}
    for copy, original in copies.items():
        shutil.copyfile(photos / original, photos / copy)
    lines = (
        "1 test image stands in train too (test/cat/0.png is train/cat/1.png, byte for byte): figures on such images",
        "1 validation image stands in train too, under another class (validation/cat/0.png is train/dog/2.png, byte",
    )
    words = ["--training.epochs", "1", "--validate_on", "4"]
    learning = ["finetune", "small", "--data", f"folder:{photos}", *words, "--out", str(tmp_path / "run")]
    assert main([*learning, "--dry-run"]) == 0
    assert "stands in train too" not in capsys.readouterr().err  # it would take long where images are many
    run = f"run:{tmp_path / 'run'}"
    verbs = {
        "mix": ["--standard", run, "--robust", run, "--alpha", "0.5", "--validate_on", "4"],
        "update": ["--old", run, "--new", run, *words],
    }
    told = [learning, *([verb, *options, "--out", str(tmp_path / verb)] for verb, options in verbs.items())]
    for each in told:
        assert main(each) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert all(said.count(line) == 1 for line in lines), said


def test_a_run_goes_on_where_its_data_have_moved_and_not_on_others(tmp_path):
    photos = _photos(tmp_path / "photos")
    options = _killed_after_an_epoch(photos, tmp_path / "run")
    moved = photos.rename(tmp_path / "moved")
    others = shutil.copytree(moved, tmp_path / "others")
    Image.new("RGB", (8, 8)).save(others / "train" / "cat" / "0.png")
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(Misuse, match=r"cannot go on with data folder:.*others: the training images, or the weights"):
        poise.finetune("small", f"folder:{others}", resume=True, **options)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before
    with pytest.raises(Misuse, match="was started with augmentation none, not flip"):
        poise.finetune("small", f"folder:{moved}", resume=True, **options | {"augmentation": "flip"})
    run = poise.finetune("small", f"folder:{moved}", resume=True, **options)
    assert [row["epoch"] for row in run.history()] == [0, 1, 2]
    assert f"data: folder:{moved}" in run.folder.recipe.read_text()


def test_while_nothing_is_trained_a_run_may_be_resumed_otherwise(tmp_path):
    photos = f"folder:{_photos(tmp_path / 'photos', spoilt=True)}"
    with pytest.raises(Misuse, match="--skip-unreadable"):
        poise.finetune("small", photos, out=tmp_path / "run", **QUICK)
    run = poise.finetune("small", photos, out=tmp_path / "run", resume=True, skip_unreadable=True, **QUICK)
    assert "skip_unreadable: true" in run.folder.recipe.read_text()
    assert len(run.history()) == 1


def test_an_ended_run_says_that_nothing_is_left_to_do(run, tmp_path, capsys):
    shutil.copytree(run.path, tmp_path / "run")
    poise.finetune("small", threat=L2, out=tmp_path / "run", resume=True, **QUICK)
    assert "has ended already: there is nothing left to do" in capsys.readouterr().err


def test_the_data_that_were_found_are_told(tmp_path, capsys):
    poise.finetune("small", f"folder:{_photos(tmp_path / 'photos')}", out=tmp_path / "run", **QUICK)
    assert "photos: 2 classes, images: 20 train, 4 validation, 4 test" in capsys.readouterr().err


def test_a_profile_is_written_as_its_file_is_named(run, tmp_path):
    common = {"limit": 6, "suite": "fast", "soundness": False, "points": []}
    table, text = tmp_path / "p.parquet", tmp_path / "p.csv"
    for path in (table, text):
        poise.profile(run.address, out=path, **common)
    assert text.read_text().startswith("# ")
    first, second = poise.read_profile(str(table)), poise.read_profile(text)
    assert np.array_equal(first.broken_from, second.broken_from)
    assert first.ids == second.ids
    assert poise.compare(str(table), str(text)).pair is not None
    with pytest.raises(Misuse, match=r"as \.parquet, or as \.csv"):
        poise.profile(run.address, out=tmp_path / "p.txt", **common)
    with pytest.raises(Misuse, match="does not say where adversarial images are kept"):
        poise.profile(run.address, out=tmp_path / "q.csv", keep_adversarials=True, **common)
    with pytest.raises(Misuse, match=r"kept in a profile that ends in \.parquet"):
        poise.certify(run.address, out=tmp_path / "q.csv", limit=2)


def test_a_report_is_written_as_its_file_is_named(run, tmp_path):
    for name, start in (("r.html", "<!DOCTYPE html>"), ("r.md", "#"), ("r.json", "{")):
        assert poise.report(run.path, out=tmp_path / name).read_text().startswith(start)
    assert poise.report(run.address, out=tmp_path / "again.md").is_file()
    with pytest.raises(Misuse, match=r"r\.pdf, so say --format"):
        poise.report(run.path, out=tmp_path / "r.pdf")
    with pytest.raises(Misuse, match=r"r\.json is named like json, and --format says markdown"):
        poise.report(run.path, out=tmp_path / "r.json", format="markdown")


def test_a_threat_is_a_threat(run):
    with pytest.raises(Misuse, match=r"threat must be a poise\.Threat, .* got '4/255'"):
        poise.profile(run.address, threat="4/255")
    with pytest.raises(Misuse, match=r"training must be a poise\.Training"):
        poise.finetune("small", training=3)


def test_resuming_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(Misuse, match="does not exist"):
        poise.finetune("small", out=tmp_path / "nothing", resume=True, **QUICK)
    with pytest.raises(Misuse, match="say which run to resume"):
        poise.finetune("small", resume=True, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_work_is_left_to_the_process_that_has_it(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with held(tmp_path / "run"), pytest.raises(Misuse, match="another process is at work"):
        poise.finetune("small", threat=L2, out=tmp_path / "run", resume=True, **QUICK)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"validate_on": -1}, "validate_on must be at least 0"),
        ({"trackers": ("wandbb",)}, "unknown tracker 'wandbb'; did you mean 'wandb'"),
        ({"augmentation": "flp"}, "flp"),
        ({"schedule": "hinge"}, "schedule must be a poise.Schedule; got 'hinge'"),
        ({"threat": "8/255"}, "threat must be a poise.Threat; got '8/255'"),
        ({"training": poise.Training(precision="fp16")}, "fp16 needs a GPU"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_trained_is_refused_before_a_folder_exists(tmp_path, options, line):
    if torch.cuda.is_available() and "training" in options:
        pytest.skip("there is a GPU")
    with pytest.raises(Misuse, match=line):
        poise.finetune("small", out=tmp_path / "run", **QUICK | options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unchecked")
def test_what_no_recipe_can_keep_leaves_no_folder(tmp_path):
    with pytest.raises(Misuse, match="no recipe could keep"):
        poise.finetune("small", schedule=_Own(2.0), out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


class _Own(poise.Hinge):
    """A schedule with an argument that it forgot to declare."""

    def __init__(self, power):
        super().__init__()
        object.__setattr__(self, "power", power)


def test_a_budget_as_long_as_the_box_is_told(run, tmp_path, capsys):
    few = {"suite": "fast", "soundness": False, "points": [], "limit": 4}
    for norm, epsilon, told in (("l2", 8, True), ("l2", 7.9, False), ("l1", 64, True), ("linf", 1, True)):
        threat = poise.Threat(norm=norm, epsilon=epsilon)
        poise.profile(run.address, threat=threat, out=tmp_path / f"{norm}-{epsilon}.parquet", **few)
        assert ("nothing withstands it" in capsys.readouterr().err) == told
    poise.finetune("small", threat=poise.Threat(norm="l2", epsilon=8), out=tmp_path / "run", **QUICK)
    assert "turns any image of shape (1, 8, 8) into any other" in capsys.readouterr().err


def test_a_profile_takes_numbers_of_numpy(run, tmp_path):
    few = {"suite": "fast", "soundness": False, "points": [], "out": tmp_path / "p.parquet"}
    made = poise.profile(run.address, limit=np.int64(6), seed=np.int64(1), **few)
    assert (len(made), made.header.seed) == (6, 1)


@pytest.mark.usefixtures("unchecked")
def test_a_module_is_no_address(run):
    for verb in (poise.profile, poise.finetune):
        with pytest.raises(Misuse, match=r"a model is named by its address, .*; got Linear\. One in memory is judged"):
            verb(nn.Linear(2, 2))
    with pytest.raises(Misuse, match="the limit must be a whole number of at least 1; got '60'"):
        poise.profile(run.address, limit="60")


def test_a_file_is_not_said_to_be_absent(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"")
    with pytest.raises(Misuse, match="is a file, and no run folder"):
        poise.report(tmp_path / "p.parquet")


@pytest.mark.usefixtures("unchecked")
def test_counts_are_whole_numbers():
    with pytest.raises(Misuse, match=r"epochs must be a whole number of at least 1; got 1\.5"):
        poise.Training(epochs=1.5)


class _Broken(nn.Module):
    """Says NaN of every image whose first pixel is dark."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images):
        logits = self.inner(images)
        return torch.where(images[:, 0, 0, :1] < 0.5, torch.nan, logits)


def test_an_output_that_is_no_number_is_wrong_and_never_robust(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.models.factories.broken", _Broken, raising=False)
    made = poise.profile(
        "python:tests.models.factories:broken",
        "digits",
        suite="fast",
        soundness=False,
        limit=30,
        out=tmp_path / "p.parquet",
    )
    assert np.isnan(made.margins).all()
    assert (made.broken_from == 0).all()


def test_a_model_is_checked_on_images_of_all_classes_of_a_folder_that_is_sorted(tmp_path, monkeypatch):
    seen = []
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog", "eel"):
        for split, count in (("train", 20), ("test", 40)):
            folder = Path("pets") / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(folder / f"{number}.png")
    monkeypatch.setattr("poise.commands.profile.inspect_model", lambda model, batch, *_: seen.append(batch) or ())
    poise.profile(
        "small", "folder:pets", weights="random", suite="fast", threat=poise.Threat(epsilon=0.0), out="p.parquet"
    )
    assert set(seen[0].labels.tolist()) == {0, 1, 2}


def test_a_double_precision_model_is_profiled_in_double_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.models.factories.double",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(),
        raising=False,
    )
    made = poise.profile(
        "python:tests.models.factories:double", "digits", suite="fast", limit=30, out=tmp_path / "p.parquet"
    )
    assert made.settled


def test_a_network_of_other_classes_is_not_judged_with_a_random_head(tmp_path, capsys):
    network = open_model("timm:test_resnet.r160_in1k", weights="random", classes=("a", "b", "c"), shape=(1, 8, 8))
    torch.save(network.network.state_dict(), tmp_path / "w.pt")
    words = ["profile", "timm:test_resnet.r160_in1k", "--weights", str(tmp_path / "w.pt"), "--data", "digits"]
    assert main([*words, "--out", str(tmp_path / "p.parquet")]) == 2
    assert "a random head has nothing to judge" in capsys.readouterr().err
    assert not (tmp_path / "p.parquet").exists()


def test_paths_may_be_text_and_numbered_files_keep_their_ending(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = poise.finetune("small", out="run", threat=L2, **QUICK)
    assert again.classifier().digest() == run.classifier().digest()
    assert poise.report("run", out="page.html") == Path("page.html")
    (tmp_path / "a.b").mkdir()
    assert [fresh_path(Path(name)).name for name in ("page.html", "a.b", "new")] == ["page-2.html", "a.b-2", "new"]


def test_a_limit_of_the_runs_recipe_can_be_changed(run, tmp_path):
    made = poise.profile(run.address, limit=7, suite="fast", soundness=False, out=tmp_path / "p.parquet")
    assert len(made) == 7
    with pytest.raises(Misuse):
        poise.profile(run.address, limit=0, suite="fast", out=tmp_path / "q.parquet")
    assert RunFolder.open(run.path)


def test_a_replaced_head_is_told_of_once(tmp_path, capsys):
    """By the run that replaces it, and not by every command that looks at the run."""
    photos = f"folder:{_photos(tmp_path / 'photos')}"
    poise.finetune("timm:test_resnet", photos, weights="random", out=tmp_path / "first", **QUICK)
    shutil.rmtree(tmp_path / "photos" / "train" / "dog")
    for split in ("validation", "test"):
        (tmp_path / "photos" / split / "dog").rename(tmp_path / "photos" / split / "horse")
    shutil.copytree(tmp_path / "photos" / "train" / "cat", tmp_path / "photos" / "train" / "horse")
    capsys.readouterr()
    run = poise.finetune(f"run:{tmp_path / 'first'}", photos, out=tmp_path / "second", **QUICK)
    assert capsys.readouterr().err.count("head replaced") == 1
    poise.profile(run.address, suite="fast", points=[], soundness=False)
    poise.finetune(run.address, photos, out=tmp_path / "third", **QUICK)
    assert "head replaced" not in capsys.readouterr().err


def test_a_recipe_of_another_verb_is_called_that(run, capsys):
    assert main(["profile", "--config", str(run.folder.recipe)]) == 2
    assert "this is a recipe of poise finetune" in capsys.readouterr().err


def test_other_images_are_told_with_the_options_that_choose_them(run, tmp_path, monkeypatch):
    few = {"suite": "fast", "soundness": False, "points": []}
    poise.profile(run.address, limit=6, out=tmp_path / "p.parquet", **few)
    with pytest.raises(Misuse, match=r"of other images \(6, here 4\); ask for the same \(--limit, --split, --data\)"):
        poise.certify(run.address, limit=4, out=tmp_path / "p.parquet")
    monkeypatch.setattr("poise.commands.profile.write_profile", _dies)
    with pytest.raises(KeyboardInterrupt):
        poise.profile(run.address, limit=6, out=tmp_path / "q.parquet", **few)
    with pytest.raises(Misuse, match=r"begun with other images .* \(the same --data, --limit and --split\)"):
        poise.profile(run.address, limit=4, out=tmp_path / "q.parquet", **few)
