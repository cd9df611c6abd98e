from __future__ import annotations

import json
from dataclasses import replace

import pytest

from poise.core.misuse import Misuse
from poise.reporting import report_markdown, report_record, write_report
from poise.reporting.uptake import Uptake, read_uptake
from poise.training import Setting, adaptation
from tests.reporting.page import Page
from tests.reporting.samples import subject

ROWS = [
    {"epoch": epoch, "epsilon": 0.1, "validation/clean": clean, "validation/robust": robust, "train/accuracy": trained}
    for epoch, (clean, robust, trained) in enumerate([(0.1, 0.1, 0.2), (0.6, 0.4, 0.5), (0.6, 0.3, 0.8)])
]
SETTING = Setting(classes=10, epochs=3, target=0.1)


def _read(path, rows, setting) -> Uptake:
    path.write_text(json.dumps(adaptation(rows, setting).record()))
    return read_uptake(path)


def test_a_run_says_when_it_took_up_its_task_and_what_was_the_matter(tmp_path):
    found = _read(tmp_path / "adaptation.json", ROWS, SETTING)
    assert found.sentences("new", 3) == [
        "new had taken up its task after epoch 2: clean accuracy on the validation images was above 20 %."
    ]
    (warning,) = found.warnings("new")
    assert warning.startswith("new: robust validation accuracy was 40.0 % after epoch 2 and is 30.0 %, ")
    assert warning.endswith("on more images.")


def test_weights_that_are_not_the_last_ones_are_named(tmp_path):
    found = _read(tmp_path / "adaptation.json", ROWS, replace(SETTING, keep="best"))
    (told,) = found.sentences("new", 3)
    assert told.endswith("Its weights are those of epoch 2 of 3, the best ones there.")
    assert found.warnings("new") == []


def test_a_task_that_was_never_taken_up(tmp_path):
    (told,) = _read(tmp_path / "adaptation.json", ROWS[:1], SETTING).sentences("new", 1)
    assert "never took up its task" in told


def test_a_run_that_validated_nothing_tells_only_what_was_the_matter(tmp_path):
    struck = {"train/collapsed": 0.5, "train/collapse_own": 0.4, "train/collapse_judged": 0.05}
    found = _read(tmp_path / "adaptation.json", [{"epoch": 0, "epsilon": 0.1, **struck}], SETTING)
    assert found.sentences("new", 1) == []
    (warning,) = found.warnings("new")
    assert "came to withstand the attack that it is trained on far better than the guard's" in warning


def test_what_an_older_version_wrote_is_read_and_what_nobody_wrote_is_refused(tmp_path):
    path = tmp_path / "adaptation.json"
    record = adaptation(ROWS, SETTING).record()
    del record["kept"]
    path.write_text(json.dumps(record))
    assert read_uptake(path).kept is None
    good = adaptation(ROWS, SETTING).record()
    wrong = ({"delay": "two"}, {"kept": 0}, {"threshold": None}, {"remarks": [1]}, {"remarks": None})
    for text in ("", "[]", "{}", *(json.dumps(good | each) for each in wrong)):
        path.write_text(text)
        with pytest.raises(Misuse, match=r"adaptation\.json cannot be read as what a training says of itself"):
            read_uptake(path)


def test_every_report_tells_it_above_the_charts_of_the_training(tmp_path):
    uptake = Uptake(2, 0.2, 1, ("this <b> went wrong",))
    subjects = [replace(subject("new"), uptake=uptake), subject("old")]
    write_report(subjects, tmp_path / "report.html", title="A report")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    markdown = report_markdown(subjects, "A report")
    for text, said in ((page, "this <b> went wrong"), (markdown, "this \\<b\\> went wrong")):
        assert uptake.sentences("new", 3)[0] in text
        assert text.index("epoch 1 of 3") < text.index(said) < text.index("Epsilon used in training")
    assert report_record(subjects, "A report")["uptake"] == [
        {"name": "new", "delay": 2, "threshold": 0.2, "kept": 1, "remarks": ("this <b> went wrong",)}
    ]


def test_a_run_without_a_history_tells_what_it_concluded(tmp_path):
    alone = replace(subject("new"), uptake=Uptake(None, 0.2, None, ()), history=[])
    write_report([alone], tmp_path / "report.html", title="A report")
    assert "new never took up its task" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
