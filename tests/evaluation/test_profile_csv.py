from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.evaluation import Finding, read_profile_csv, write_profile_csv
from poise.evaluation.flips import flips, join
from tests.evaluation.flips.tables import BRACKET, made

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(BRACKET, min_size=1, max_size=12), st.lists(WORDS, min_size=12, max_size=12, unique=True), st.data())
def test_a_profile_comes_back_with_its_verdicts(tmp_path, brackets, ids, data):
    margins = data.draw(st.lists(st.floats(allow_nan=False), min_size=len(brackets), max_size=len(brackets)))
    grid = (0.0, 1 / 255, 0.1, 1 / 3)
    described = {"classes": ("a,  b\u3000", 'say "c"\x85', "d\ne\u2028"), "whole": 99, "surrogates": ("robust", "a  b")}
    given_ = made(*zip(*brackets, strict=True), ids=ids[: len(brackets)], grid=grid, seed=3, **described)
    evidence = data.draw(st.text(st.characters(codec="utf-8"), max_size=8))
    found = Finding(check="convergence", status="block", evidence=evidence, overridden=data.draw(st.booleans()))
    given_ = replace(given_, margins=np.array(margins), findings=(found,) * data.draw(st.integers(0, 2)))
    write_profile_csv(given_, tmp_path / "p.csv")
    back = read_profile_csv(tmp_path / "p.csv")
    assert back.header == given_.header
    assert back.partial
    assert (back.ids, back.broken_by, back.findings) == (given_.ids, given_.broken_by, given_.findings)
    for name in ("labels", "predictions", "margins", "robust_to", "broken_from"):
        assert np.array_equal(getattr(back, name), getattr(given_, name)), name


def _read(tmp_path, text):
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    return read_profile_csv(tmp_path / "p.csv")


SHORT = """# norm: linf
# epsilons: 0, 4/255, 8/255
id,label,prediction,broken_from
a,0,0,8/255
b,1,1,
c,1,0,0
d,1,1,4/255
"""

WIDE = """# norm: linf
id,label,prediction,4/255,8/255
a,0,0,1,0
b,1,1,1,1
c,1,0,0,0
d,1,1,0,0
"""


@pytest.mark.parametrize("text", [SHORT, WIDE, WIDE.replace("b,1,1,1,1", "b,1,1,,1"), "\ufeff" + SHORT + "\n\n"])
def test_both_forms_say_the_same(tmp_path, text):
    found = _read(tmp_path, text)
    assert found.epsilons == (0.0, 4 / 255, 8 / 255)
    assert found.broken_from.tolist() == [2, 3, 0, 1]
    assert found.robust_to.tolist() == [1, 2, -1, 0]
    assert found.broken_by == ("unknown", "", "clean", "unknown")
    assert np.isnan(found.margins).all()


def test_open_verdicts_stay_open(tmp_path):
    found = _read(tmp_path, WIDE.replace("a,0,0,1,0", "a,0,0,,0").replace("b,1,1,1,1", "b,1,1,,"))
    assert (found.robust_to.tolist(), found.broken_from.tolist()) == ([0, 0, -1, 0], [2, 3, 0, 1])
    assert found.unsettled == 2


def test_an_output_that_was_no_number_is_wrong_whatever_class_it_named(tmp_path):
    """Profiles hold such rows: the margin is NaN, and the prediction may be the label by chance."""
    wrong = made([-1, 2], [0, 3], labels=[0, 1])
    wrong = replace(wrong, predictions=np.array([0, 1]), margins=np.array([np.nan, 1.0]))
    write_profile_csv(wrong, tmp_path / "p.csv")
    back = read_profile_csv(tmp_path / "p.csv")
    assert back.broken_from.tolist() == [0, 3]
    assert np.isnan(back.margins[0])


def test_imported_profiles_can_be_compared_with_each_other_and_say_what_they_do_not_know(tmp_path):
    old, new = _read(tmp_path, SHORT), _read(tmp_path, WIDE.replace("b,1,1,1,1", "b,1,0,0,0"))
    pair = join(old, new)
    assert [(each.lost.certain, each.union.certain) for each in flips(pair)] == [(1, 1), (1, 1), (1, 1)]
    assert pair.classes == ("0", "1")
    assert "The old profile does not say which images and attacks it was made with." in pair.notes


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1: the norm is missing"),
        ("id,label,prediction\n", "line 1: the norm is missing"),
        ("# norm: l3\n", "line 1: unknown norm 'l3'; did you mean 'l1'|line 1: unknown norm 'l3'; valid: l1, l2, linf"),
        ("# norm: linf\n# nrom: l2\n", "line 2: .*'nrom' is unknown; did you mean 'norm'"),
        ("# norm: linf\n# norm: l2\n", "line 2: .*'norm' stands there twice"),
        ("# a remark\n", "line 1: a description reads"),
        ("# norm: linf\n# seed: x\n", "line 2: seed is a whole number"),
        (
            SHORT.replace("# norm: linf\n", "# norm: linf\n# whole: 1\n"),
            "line 9: 4 examples, and '# whole: 1' says that there are no more",
        ),
        ("# norm: linf\n# classes: cat, dog\n", "line 2: classes are a JSON list"),
        ("# norm: linf\n# findings: none\n", "line 2: findings are a JSON list as poise writes it; "),
        ("# norm: linf\n# findings: 3\n", "line 2: findings are a JSON list as poise writes it; "),
        ('# norm: linf\n# findings: [{"check": "a"}]\n', "line 2: findings are .*; not a finding of a soundness check"),
        ("# norm: linf\n# epsilons: 0, x\n", "line 2: epsilon must be"),
        ("# norm: linf\n", "line 2: a header with id, label, prediction is needed"),
        (SHORT.replace("id,label", "name,label"), "line 3: .*id is missing"),
        (SHORT.replace("id,label", "id,id"), "line 3: .*label is missing"),
        (WIDE.replace("4/255,8/255", "4/255,4/255"), "line 2: the column '4/255' stands there twice"),
        (WIDE.replace("4/255,8/255", "8/255,4/255"), "line 2: epsilons rise from 0; got 0, 8/255, 4/255"),
        (WIDE.replace("4/255,8/255", "4/255,blue"), "line 2: epsilon must be a number or a fraction"),
        (SHORT.replace("0, 4/255", "1/255, 4/255"), "line 3: epsilons rise from 0"),
        (SHORT.replace("broken_from", "broken_form"), "line 3: epsilon must be a number or a fraction"),
        (SHORT.replace("broken_from", "broken_from,x"), "line 3: unknown column 'x'"),
        (SHORT.replace("# epsilons: 0, 4/255, 8/255\n", ""), "line 2: broken_from needs the grid"),
        (SHORT.replace("broken_from", "robust_to"), "line 3: robust_to says nothing"),
        (WIDE.replace("linf", "linf\n# epsilons: 0, 1/255"), "line 3: .*not those of"),
        (SHORT.replace("b,1,1,", "b,1,1"), "line 5: there are 3 cells below 4 headings"),
        (SHORT.replace("b,1,1,", "a,1,1,"), "line 5: 'a' stands there twice, first in line 4"),
        (SHORT.replace("b,1,1,", ",1,1,"), "line 5: the id is empty"),
        (SHORT.replace("b,1,1,", "b,-1,1,"), "line 5: label is a whole number"),
        (SHORT.replace("b,1,1,", "b,1,1.0,"), "line 5: prediction is a whole number"),
        (SHORT.replace("b,1,1,", "b,1,1,2/255"), "line 5: 2/255 is not on the grid: 0, 4/255, 8/255"),
        (SHORT.replace("b,1,1,", "b,1,0,"), "line 5: prediction 0 of label 1 contradicts"),
        (SHORT.replace("b,1,1,", "b,1,1,0"), "line 5: prediction 1 of label 1 contradicts"),
        (WIDE.replace("b,1,1,1,1", "b,1,1,0,1"), "line 4: robust beyond an epsilon at which it is broken"),
        (WIDE.replace("b,1,1,1,1", "b,1,0,1,0"), "line 4: robust beyond"),
        (WIDE.replace("b,1,1,1,1", "b,1,1,2,1"), "line 4: a verdict is 1 for withstood.* got '2'"),
        (SHORT.replace("linf", 'linf\n# classes: ["a"]', 1), "line 6: classes go from 0 to 0; got 1"),
        (WIDE.split("a,0", maxsplit=1)[0], "line 3: there is no example below the header"),
        (SHORT + '"e,1,1,\n', "line 8: unexpected end of data"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(tmp_path, text, line):
    with pytest.raises(Misuse, match=rf"p\.csv, ({line})") as refused:
        _read(tmp_path, text)
    assert "\n" not in str(refused.value)


def test_files_that_are_not_there_or_no_text_are_refused_by_name(tmp_path):
    with pytest.raises(Misuse, match="there is no profile at"):
        read_profile_csv(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Misuse, match=r"p\.csv cannot be read as CSV"):
        read_profile_csv(tmp_path / "p.csv")
