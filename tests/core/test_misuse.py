from __future__ import annotations

import pytest
from torch import nn

from poise.core.misuse import Misuse, check_choice, first_line, kind_and_line
from poise.models.probing import class_count


@pytest.mark.parametrize(
    ("error", "line", "named"),
    [
        (ValueError("no.\nmore"), "no", "ValueError: no"),
        (NotImplementedError(), "NotImplementedError", "NotImplementedError"),
        (RuntimeError("\n\n  deep down \n"), "deep down", "RuntimeError: deep down"),
    ],
)
def test_an_error_is_told_in_a_line_though_it_may_have_none(error, line, named):
    assert first_line(error) == line
    assert kind_and_line(error) == named


def test_a_network_that_raises_without_a_word_is_refused_in_a_line():
    class Bare(nn.Module):
        def forward(self, images):
            raise NotImplementedError

    with pytest.raises(Misuse, match=r"cannot take images of shape \(1, 8, 8\) \(NotImplementedError\)"):
        class_count(Bare(), (1, 8, 8), "python:mine:bare")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("l1nf", "unknown norm 'l1nf'; did you mean 'linf'?"),
        (7, "unknown norm 7; valid: l2, linf"),
        (None, "unknown norm None; valid: l2, linf"),
        (["l2"], "unknown norm ['l2']; valid: l2, linf"),
    ],
)
@pytest.mark.parametrize("allowed", [("linf", "l2"), {"linf": 1, "l2": 2}])
def test_what_is_no_choice_is_refused_with_what_would_have_been(given, told, allowed):
    with pytest.raises(Misuse) as refused:
        check_choice("norm", given, allowed)
    assert str(refused.value) == told


def test_a_choice_passes():
    check_choice("norm", "l2", ("linf", "l2"))
