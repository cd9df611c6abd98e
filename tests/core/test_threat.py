from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon, Threat


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.5", 0.5), (" 4 / 255 ", 4 / 255), ("0", 0.0), ("3e-2", 0.03)]
)
def test_epsilon_reads_fractions_and_numbers(text, value):
    assert float(Epsilon(text)) == value


@pytest.mark.parametrize(
    ("value", "text"), [(8 / 255, "8/255"), (0.5, "0.5"), (0.0, "0"), (1.0, "1"), (0.2, "0.2"), (3.0, "3")]
)
def test_epsilon_is_written_as_people_write_it(value, text):
    assert str(Epsilon(value)) == text


@given(st.floats(0, 1e6))
def test_epsilon_survives_writing_and_reading(value):
    assert float(Epsilon(str(Epsilon(value)))) == value


@pytest.mark.parametrize("bad", ["eight", "8/0", "-1/255", "nan", "inf", "", "1/2/3"])
def test_epsilon_refuses_what_is_no_budget(bad):
    with pytest.raises(Misuse, match="epsilon must be"):
        Epsilon(bad)


def test_threat_takes_text_and_normalises_it():
    assert Threat(epsilon="4/255").epsilon == 4 / 255
    assert str(Threat(norm="l2", epsilon="0.5")) == "l2 0.5"


def test_eight_is_recognised_as_eight_of_255():
    with pytest.raises(Misuse, match=r"epsilon 8 is larger than the whole image range .* did you mean 8/255\?"):
        Threat(epsilon="8")


def test_l2_budgets_may_exceed_one():
    assert Threat(norm="l2", epsilon="3").epsilon == 3


@pytest.mark.usefixtures("unchecked")
def test_unknown_norm_names_the_nearest():
    with pytest.raises(Misuse, match="did you mean 'linf'"):
        Threat(norm="inf")
