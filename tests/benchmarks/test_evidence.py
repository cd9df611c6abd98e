"""The evidence page: every question's table from figures of the form that its benchmark writes."""

from __future__ import annotations

import json

import pytest

from benchmarks import evidence
from benchmarks.evidence import Result, digest, remark, written
from benchmarks.run import COSTS, QUESTIONS

E = [0.5, 0.4, 0.6]


class _Pictures:
    """Draws nothing."""

    def __getattr__(self, name):
        return lambda *_: f"(picture of {name})"


def _result(figures, claims=()):
    return Result(
        {
            "command": "python -m benchmarks.x",
            "commit": "abc",
            "date": "2000-01-01",
            "machine": {"kind": "m", "bf16": False, "threads": 1},
            "versions": {"torch": "2"},
            "figures": figures,
            "claims": list(claims),
        }
    )


def _claim(value, floor, interval=None, most=False):
    holds = value <= floor if most else value >= floor
    return {"name": "c", "value": value, "floor": floor, "most": most, "interval": interval, "holds": holds}


OVER_FIXED = {"autoattack": [0.01, -0.02, 0.04], "fast": [0.02, 0.01, 0.03]}


def _transfer(strict=()):
    rows, gains = [], []
    for contender, clean in (("standard", 0.8), ("fixed", 0.6), ("hinge", 0.7)):
        cell = {"backbone": "cnn", "epsilon": "8/255", "contender": contender}
        for seed in (0, 1):
            figures = {key: [clean + 0.01 * seed, 0, 1] for key in ("clean", "robust", "expected")}
            rows.append(
                cell
                | figures
                | {"seed": seed, "delay": None if seed else 2, "reached": 8 / 255, "passes an image": 36, "rate": 0.008}
                | {"seconds": 90.0, "accuracy": [clean, 0.1]}
            )
        over = {"clean over fixed": [0.068, 0.045, 0.091], "robust over fixed": [-0.048, -0.072, -0.024]}
        over |= {"expected over fixed": [0.014, -0.004, 0.033], "clean below standard": [0.1, 0.05, 0.15]}
        gains.append(cell | over)
    checked = {suite: [row | {"expected over fixed": over} for row in strict] for suite, over in OVER_FIXED.items()}
    return {"rows": rows, "gains": gains, "strict": list(strict), "strict gains": checked}


def _model(clean=0.4):
    flips = {f"{kind} flips": [0.04, 0.03, 0.05] for kind in ("clean", "robust", "union")}
    return {"clean": [clean, 0.3, 0.5], "robust": E, "flips by epsilon": {"0": E, "8/255": [0.04, 0, 1]}} | flips


def _updates():
    models = {"naive": _model(), "rcat": _model() | {"robust flips": [0.03, 0, 1]}, "constrained": _model()}
    rows = [
        {"pair": pair, "seed": seed, "old": _model(), "noise floor": _model(), "models": models}
        for pair in ("epochs", "images")
        for seed in (0, 1)
    ]
    return {"rows": rows, "strict": [], "scale": {"seeds": [0, 1]}}


def _frontier():
    point = {"name": "alpha 0.9", "clean": E, "robust": E}
    tried = {"points": [point, point | {"name": "robust alone"}], "chosen": 0}
    branch = {"clean": E, "robust": E, "objections": []}
    mixture = branch | {"won back": E, "given up": E, "tried": tried, "objections": ["block single-step: look out"]}
    scale = {"aim": 0.08, "judged": 400, "suite": "apgd", "validate_on": 500}
    models = {"standard": branch, "robust": branch, "constant": mixture}
    return {"models": models, "scale": scale, "levers": [{"keep": 0.985, "scaled": 0.25, "sharpened": 0.375}]}


def _guarantees():
    certified = {"clean": E, "certified": [E, E]}
    smoothed = certified | {"alpha": 0.9, "seed": 0, "withstood": [E, E], "certified of these": [[0.3, 0, 1], E]}
    smoothed |= {"certified and broken": 0, "certified and wrong as they are": 2}
    bounded = certified | {"alpha": 0.9, "scale": 4.0, "seed": 0, "by": {"probabilities": 0.002, "local": 0.004}}
    second = bounded | {"seed": 1, "by": {"probabilities": 0.003, "local": 0.005}}
    radii = {"smoothed": [0, 0.25], "bounded": [0, 0.1]}
    rows = [bounded, second, bounded | {"alpha": 1.0, "scale": 1.0, "by": {"local": 0.01}}]
    return {"smoothed": [smoothed], "bounded": rows, "radii": radii, "sigma": 0.25, "scale": {"suite": "fast"}}


def _composed():
    limits = [["clean flips at most 2 %", "failed"], ["x", "passed"], ["y", "cannot be judged"]]
    old = {"alpha": 0.9, "clean": E, "robust": E, "objections": ["warn convergence: look out"]}
    new = _model() | {"alpha": 0.9, "gate": {"outcome": "failed", "limits": limits}, "objections": []}
    products = {"yesterday": old, "naive": new}
    return {"rows": [{"seed": 0, "products": products}], "strict": []}


QUESTIONS_MEASURED = {
    "transfer": _transfer(),
    "updates": _updates(),
    "composed": _composed(),
    "frontier": _frontier(),
    "guarantees": _guarantees(),
}


def _page(known=None, **questions):
    return written("small", questions, {}, known or {}, _Pictures())


def test_a_page_without_results_says_how_to_measure_each():
    page = _page()
    for name in QUESTIONS:
        assert f"python -m benchmarks.{name} --scale small --data ADDRESS --jobs 2" in page
    for words in COSTS.values():
        assert f"python -m benchmarks.{words[0]}" in page
    assert "benchmarks.curve --variant cifar10" in page


def test_every_question_has_its_table():
    assert set(QUESTIONS_MEASURED) == set(QUESTIONS)
    page = _page(**{name: _result(figures, [_claim(2.0, 1.0)]) for name, figures in QUESTIONS_MEASURED.items()})
    for line in (
        (
            "| hinge | 70.5 (70.0 to 71.0) | +10.0 [+5.0, +15.0] | 70.5 (70.0 to 71.0) | 70.5 (70.0 to 71.0) | "
            "2, never | 8, 8 | 36 | 1.5 | 0.008 |"
        ),
        "| hinge | +6.8 [+4.5, +9.1] | -4.8 [-7.2, -2.4] | +1.4 [-0.4, +3.3] |",
        "| 3.0 (3.0 to 3.0) | 4.0 (4.0 to 4.0) | 25.0 (25.0 to 25.0) |",
        "| naive | 50.0 | 4.0 |",
        "are cut by 25.0 [25.0, 25.0] % with RCAT",
        (
            "| constant | alpha 0.9 | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | "
            "block single-step: look out |"
        ),
        "| 0.9 | 30 of 50 | 50 of 50 | 0 | 2 |",
        "| 0.9 | 50.0 | 50.0 | 50.0 |",
        "| 0.9 | 4 | 50.0 (50.0 to 50.0) | 50.0 (50.0 to 50.0) | 50.0 (50.0 to 50.0) | 2.50 | 4.50 |",
        "| 1 | 1 | 50.0 | 50.0 | 50.0 |  | 10.00 |",
        "failed: clean flips at most 2 %; y (cannot be judged) |",
        "warn convergence: look out |",
        "commit abc of 2000-01-01",
        "(picture of frontier)",
        "| 98.5 | 25.0 | 37.5 |",
    ):
        assert line in page, line
    assert "Not measured on this machine at this scale" not in page.partition("## Are the verdicts")[0]


def test_the_strict_check_shows_robustness_and_the_whole_curve():
    both = {"robust": [0.3, 0, 1], "expected": [0.5, 0, 1]}
    row = {"backbone": "vit", "epsilon": "8/255", "contender": "hinge", "seed": 0, "images": 100}
    strict = row | {"autoattack": both, "fast": both | {"robust": [0.4, 0, 1]}}
    page = _page(transfer=_result(_transfer([strict])))
    assert (
        "| vit | 8/255 | hinge | 30.0 | 40.0 | 50.0 | 50.0 | +1.0 [-2.0, +4.0] | +2.0 [+1.0, +3.0] | 1 x 100 |" in page
    )


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        (_claim(2.0, 1.0), "| c | 2 | at least 1 | yes |"),
        (_claim(2.0, 1.0, most=True), "| c | 2 | at most 1 | **no** |"),
        (_claim(1.4, 0.0, [-0.4, 3.3]), "| c | 1.4 [-0.4, 3.3] | at least 0 | yes, within chance |"),
        (_claim(1.4, 2.0, [0.4, 3.3]), "| c | 1.4 [0.4, 3.3] | at least 2 | **no**, within chance |"),
        (_claim(1.4, 0.0, [0.4, 3.3]), "| c | 1.4 [0.4, 3.3] | at least 0 | yes |"),
    ],
)
def test_a_claim_says_whether_chance_could_have_made_it(claim, told):
    assert told in _page(frontier=_result(_frontier(), [claim]))


def test_a_remark_stands_under_no_other_figures_than_those_it_is_about(capsys):
    result, other = _result(_composed()), _result(_composed() | {"strict": [], "more": 1})
    known = {"composed": {"of": digest([result]), "text": "What I think."}}
    assert remark(known, "composed", [result]) == "What I think."
    assert "What I think." in _page(known, composed=result)
    assert "What I think." not in _page(known, composed=other)
    assert f"the remark on composed is left out: it is about the figures {digest([result])}" in capsys.readouterr().out


def test_the_page_is_of_the_largest_scale_that_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    assert evidence.largest("m") == "small"
    for name in ("transfer-small", "composed-medium", "transfer-quick"):
        (tmp_path / f"{name}.m.json").write_text(json.dumps({}))
    assert evidence.largest("m") == "medium"


def test_the_committed_page_is_what_the_committed_results_give(tmp_path, monkeypatch):
    """Whoever measures anew writes the page anew."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sys.argv", ["evidence", "--machine", "x86_64-2cpu", "--page", str(tmp_path / "evidence.md")])
    assert evidence.main() == 0
    kept = evidence.ROOT / "docs" / "evidence.md"
    assert (tmp_path / "evidence.md").read_text() == kept.read_text()
    for picture in (tmp_path / "images").iterdir():
        assert (kept.parent / "images" / picture.name).is_file()
