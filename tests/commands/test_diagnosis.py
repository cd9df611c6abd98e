"""What a fine-tuning says about itself, on real runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import poise
from poise.cli import main
from poise.commands.fitting.validation import Validation
from poise.core.misuse import Misuse

QUICK = {"limit": 200, "validate_on": 60, "trackers": (), "augmentation": "none"}
T = poise.Threat(epsilon="0.2")
OPTIONS = poise.Training(epochs=4, batch_size=32, learning_rate=1e-2)


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    return poise.finetune(
        "small",
        threat=T,
        objective=poise.Standard(),
        schedule=poise.Fixed(),
        training=OPTIONS,
        out=tmp_path_factory.mktemp("diagnosis") / "standard",
        **QUICK,
    )


def test_a_run_keeps_its_delay_and_its_gap(standard, tmp_path, capsys):
    words = ["finetune", standard.address, "--limit", "200", "--validate-on", "60", "--trackers", "[]"]
    words += ["--augmentation", "none", "--threat.epsilon", "0.02", "--training.epochs", "2", "--out"]
    assert main([*words, str(tmp_path / "run"), "--compare-with", standard.address]) == 0
    found = json.loads((tmp_path / "run" / "adaptation.json").read_text())
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert found["delay"] == 1  # it starts from a network that knows the task
    assert found["clean"] == last["validation/clean"]
    assert found["gap"] == pytest.approx(standard.history()[-1]["validation/clean"] - last["validation/clean"])
    told = capsys.readouterr().err
    assert "above 20 % clean from epoch 1" in told
    assert "standard fine-tuning" in told


def test_a_run_that_stays_at_chance_says_so_once_and_while_it_runs(tmp_path, capsys):
    """A random network attacked at a budget that leaves nothing to see, at a learning rate that moves nothing."""
    run = poise.finetune(
        "small",
        threat=poise.Threat(epsilon=0.9),
        schedule=poise.Fixed(),
        objective=poise.Adversarial(attack=poise.FGSM()),
        training=poise.Training(epochs=6, batch_size=64, learning_rate=1e-6),
        out=tmp_path / "run",
        **QUICK,
    )
    told = capsys.readouterr().err
    assert "schedule fixed, objective adversarial, images attacked by fgsm with the network in eval mode" in told
    assert told.count("the network does not take up the task") == 1
    assert told.index("after 2 of 6 epochs") < told.index("never above 20 % clean")
    assert json.loads(run.folder.adaptation.read_text())["delay"] is None


def test_a_comparison_that_says_nothing_is_refused_before_anything_is_made(standard, tmp_path):
    def refused(words, **changes):
        with pytest.raises(Misuse, match=words):
            poise.finetune("small", threat=T, out=tmp_path / "run", **QUICK | changes)
        assert not (tmp_path / "run").exists()

    refused("as run:FOLDER; got 'timm:x'", compare_with="timm:x")
    refused("does not exist", compare_with="run:nowhere")
    refused(
        "validated on other images: its validate_on is 60, here it is 50",
        compare_with=standard.address,
        validate_on=50,
    )
    robust = poise.finetune(
        "small", threat=T, out=tmp_path / "robust", training=poise.Training(epochs=1), **QUICK | {"limit": 40}
    )
    refused("was trained with the objective adversarial", compare_with=robust.address)


def test_a_run_ends_with_its_best_weights_and_says_whose_they_are(tmp_path, monkeypatch, capsys):
    """Validation is made to find the second epoch of four the best."""
    measure, rows = Validation.__call__, []

    def found(validation, classifier, epsilon):
        rows.append(classifier.digest())
        return measure(validation, classifier, epsilon) | {"robust": (0.1, 0.4, 0.3, 0.2)[len(rows) - 1]}

    monkeypatch.setattr(Validation, "__call__", found)
    run = poise.finetune("small", threat=T, training=OPTIONS, keep="best", out=tmp_path / "run", **QUICK)
    assert run.classifier().digest() == rows[1] != rows[3]
    kept = json.loads(run.folder.adaptation.read_text())
    assert (kept["kept"], kept["robust"]) == (2, 0.4)
    assert kept["clean"] == run.history()[1]["validation/clean"]
    assert "with the weights kept, of epoch 2," in capsys.readouterr().err
    with pytest.raises(Misuse, match="the best weights are found by validation; give it some images"):
        poise.finetune("small", threat=T, keep="best", out=tmp_path / "none", **QUICK | {"validate_on": 0})
    assert not (tmp_path / "none").exists()


def test_the_gap_is_to_the_weights_that_the_standard_run_kept(tmp_path, monkeypatch):
    measure, clean = Validation.__call__, [0.9, 0.7, 0.6, 0.5]

    def found(validation, classifier, epsilon):
        return measure(validation, classifier, epsilon) | {"clean": clean.pop(0)}

    with monkeypatch.context() as patched:
        patched.setattr(Validation, "__call__", found)
        options = {"threat": T, "objective": poise.Standard(), "schedule": poise.Fixed(), "training": OPTIONS}
        standard = poise.finetune("small", keep="best", out=tmp_path / "standard", **options, **QUICK)
    run = poise.finetune(
        "small",
        threat=T,
        training=replace(OPTIONS, epochs=1),
        compare_with=standard.address,
        out=tmp_path / "run",
        **QUICK,
    )
    found_gap = json.loads(run.folder.adaptation.read_text())["gap"]
    assert found_gap == pytest.approx(0.9 - run.history()[-1]["validation/clean"])


def test_an_uneven_task_counts_as_learned_above_the_share_of_its_largest_class(tmp_path, capsys):
    """Random images, four in five of one class: a network that says that class knows nothing."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 100), ("validation", 100), ("test", 20)):
        for name, share in (("many", 0.8), ("few", 0.1), ("fewer", 0.1)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(int(count * share)):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    run = poise.finetune(
        "small",
        f"folder:{tmp_path / 'data'}",
        threat=T,
        schedule=poise.Fixed(),
        objective=poise.Adversarial(attack=poise.FGSM()),
        training=replace(OPTIONS, epochs=2),
        out=tmp_path / "run",
        **QUICK | {"validate_on": 100},
    )
    found = json.loads(run.folder.adaptation.read_text())
    assert found["clean"] > 0.5  # above any threshold that goes by the number of classes alone
    assert found["delay"] is None
    assert found["threshold"] == pytest.approx((1 + stats.beta.ppf(0.025 / 3, 80, 21)) / 2)
    assert "does not take up the task" in capsys.readouterr().err


def test_two_validation_images_of_one_class_make_no_largest_class(tmp_path, capsys):
    for split, count in (("train", 20), ("validation", 2), ("test", 2)):
        for label, name in enumerate(("dark", "grey", "light")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):  # those of validation that are looked at come first: all dark
                Image.new("RGB", (8, 8), (number, 100 * label, 100 * label)).save(folder / f"{number}.png")
    run = poise.finetune(
        "small",
        f"folder:{tmp_path / 'data'}",
        threat=T,
        objective=poise.Standard(),
        training=replace(OPTIONS, epochs=6, learning_rate=1e-2, batch_size=20),
        out=tmp_path / "run",
        **QUICK | {"validate_on": 2},
    )
    found = json.loads(run.folder.adaptation.read_text())
    assert found["clean"] == 1.0
    assert found["threshold"] == pytest.approx(2 / 3)
    assert found["delay"] is not None
    assert "does not take up the task" not in capsys.readouterr().err.split("epochs")[-1]
