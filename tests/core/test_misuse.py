from __future__ import annotations

import pytest
from torch import nn

from poise.core.misuse import Misuse, first_line, kind_and_line
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
