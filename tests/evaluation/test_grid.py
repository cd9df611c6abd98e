from __future__ import annotations

import pytest

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon, Threat
from poise.evaluation import Examination, epsilon_grid


def test_linf_budgets_in_255ths_step_by_one_level():
    assert epsilon_grid(Threat(epsilon="8/255")) == tuple(level / 255 for level in range(9))


@pytest.mark.parametrize("threat", [Threat(norm="l2", epsilon="0.5"), Threat(epsilon="0.03"), Threat(epsilon="40/255")])
def test_other_budgets_step_by_eighths(threat):
    grid = epsilon_grid(threat)
    assert grid == pytest.approx([float(threat.epsilon) * step / 8 for step in range(9)])
    assert grid[-1] == threat.epsilon


def test_chosen_points_gain_zero_and_the_budget():
    assert epsilon_grid(Threat(epsilon="8/255"), ["4/255", 2 / 255]) == (0, 2 / 255, 4 / 255, 8 / 255)
    assert epsilon_grid(Threat(epsilon="8/255"), []) == (0, 8 / 255)


def test_points_beyond_the_budget_are_refused():
    with pytest.raises(Misuse, match="grid point 9/255 lies beyond the threat's epsilon 8/255"):
        epsilon_grid(Threat(epsilon="8/255"), ["9/255"])


def test_a_grid_has_at_most_62_points():
    """The rest of an examination keeps what is known at each point in a bit of one number."""
    many = [float(Epsilon(f"{point}/255")) for point in range(1, 62)]
    assert len(epsilon_grid(Threat(epsilon="61/255"), many)) == 62
    with pytest.raises(Misuse, match="at most 62 points, with 0 and the threat's epsilon; got 63"):
        epsilon_grid(Threat(epsilon="62/255"), many)
    with pytest.raises(Misuse, match="at most 62 points"):
        Examination(threat=Threat(epsilon="62/255"), points=tuple(many))


def test_a_budget_of_zero_is_one_point():
    assert epsilon_grid(Threat(epsilon="0")) == (0,)
