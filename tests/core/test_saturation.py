from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.core.saturation import time_to_gain

waits = pytest.mark.parametrize("waits", [True, False], ids=["newton", "sorting"])


def _gained(speed, stops, time):
    return (speed * stops.minimum(time)).sum(1, keepdim=True)


def _case(seed, size):
    generator = torch.Generator().manual_seed(seed)
    speed, stops, share = torch.rand(3, 20, size, generator=generator, dtype=torch.float64)
    stops = (5 * stops).round() * torch.rand(20, 1, generator=generator, dtype=torch.float64)  # many stop together
    speed[:4, ::2] = 0
    return speed, stops, share[:, :1] * (speed * stops).sum(1, keepdim=True)


@waits
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
def test_what_is_gained_by_then_is_the_goal_and_not_sooner(waits, seed, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poise.core.saturation.on_host", lambda _: waits)
        speed, stops, goal = _case(seed, size)
        time = time_to_gain(speed, stops, goal)
    torch.testing.assert_close(_gained(speed, stops, time), goal, rtol=1e-12, atol=1e-14)
    sooner = _gained(speed, stops, time * (1 - 1e-6))
    assert ((sooner < goal) | (goal < 1e-12)).all()


@waits
def test_a_goal_out_of_reach_is_never_gained_and_none_at_once(waits, monkeypatch):
    monkeypatch.setattr("poise.core.saturation.on_host", lambda _: waits)
    speed, stops = torch.tensor([[1.0, 2.0]] * 3), torch.tensor([[0.5, 0.0], [1.0, 3.0], [0.0, 0.0]])
    time = time_to_gain(speed, stops, torch.tensor([[9.0], [0.0], [1.0]]))
    assert time[1].item() == 0
    assert (time[[0, 2]] >= stops[[0, 2]]).all()
    assert time.isfinite().all()
    assert time.dtype == torch.float32
