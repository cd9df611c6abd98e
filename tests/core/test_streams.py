from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from poise.core import streams
from poise.core.streams import Stream, example_keys, global_seed

IDS = torch.arange(64)


def test_mixing_function_is_splitmix64():
    """The published first outputs for the state 1234567 (Vigna's reference implementation)."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state = torch.tensor([streams._signed(1234567 + (i + 1) * streams._GOLDEN) for i in range(4)])
    assert [word % 2**64 for word in streams._mix(state).tolist()] == expected


@given(st.permutations(range(12)), st.integers(1, 12))
def test_draws_follow_the_example_not_the_batch(order, size):
    stream, ids = Stream.seeded(3).fold("attack"), torch.arange(100, 112)
    together = stream.normal(ids, (2, 3), step=4)
    rows = torch.tensor(order)[:size]
    assert torch.equal(stream.normal(ids[rows], (2, 3), step=4), together[rows])


def test_steps_may_differ_per_example():
    stream = Stream.seeded(0)
    steps = torch.arange(64)
    mixed = stream.uniform(IDS, (5,), step=steps)
    one_by_one = torch.cat([stream.uniform(IDS[i : i + 1], (5,), step=i) for i in range(64)])
    assert torch.equal(mixed, one_by_one)


def test_every_coordinate_of_the_key_matters():
    base = Stream.seeded(0).fold("a").uniform(IDS, (4,), step=1)
    others = [
        Stream.seeded(1).fold("a").uniform(IDS, (4,), step=1),
        Stream.seeded(0).fold("b").uniform(IDS, (4,), step=1),
        Stream.seeded(0).fold("a", 0).uniform(IDS, (4,), step=1),
        Stream.seeded(0).fold("a").uniform(IDS, (4,), step=2),
        Stream.seeded(0).fold("a").uniform(IDS + 64, (4,), step=1),
    ]
    for other in others:
        assert not (base == other).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_and_normal_have_their_laws(dtype):
    stream = Stream.seeded(11)
    uniform = stream.uniform(torch.arange(500), (200,), dtype=dtype).flatten().double().numpy()
    normal = stream.normal(torch.arange(500), (200,), dtype=dtype).flatten().double().numpy()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 0.001
    assert stats.kstest(normal, "norm").pvalue > 0.001


def test_neighbouring_examples_and_steps_are_uncorrelated():
    stream = Stream.seeded(2)
    values = stream.uniform(torch.arange(1000), (50,), dtype=torch.float64)
    later = stream.uniform(torch.arange(1000), (50,), step=1, dtype=torch.float64)
    pairs = [(values[:-1], values[1:]), (values, later), (values[:, :-1], values[:, 1:])]
    for first, second in pairs:
        stacked = torch.stack([first.flatten(), second.flatten()])
        assert abs(torch.corrcoef(stacked)[0, 1].item()) < 4 / stacked.shape[1] ** 0.5


def test_integers_cover_their_range_evenly():
    counts = Stream.seeded(0).integers(torch.arange(10_000), 7).bincount(minlength=7)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_permutation_is_one_and_changes_with_the_stream():
    first, second = Stream.seeded(0).permutation(100), Stream.seeded(1).permutation(100)
    assert first.sort().values.tolist() == list(range(100))
    assert not torch.equal(first, second)


def test_keys_are_the_same_on_every_machine():
    assert example_keys(["digits/0000"]).tolist() == [streams.hashed("digits/0000")]
    assert streams.hashed("digits/0000") == 8461580220613592336
    assert streams.hashed("a", "b") != streams.hashed("ab")
    assert streams.hashed(1) != streams.hashed("1")


def test_no_draw_touches_the_global_state():
    before = torch.get_rng_state()
    Stream.seeded(0).normal(IDS, (3,))
    with global_seed(Stream.seeded(1)):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_global_seed_repeats():
    draws = []
    for _ in range(2):
        with global_seed(Stream.seeded(1)):
            draws.append(torch.rand(3))
    assert torch.equal(*draws)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarse_dtypes_stay_below_one_and_finite(dtype):
    many = torch.arange(100)
    assert Stream.seeded(0).uniform(many, (1000,), dtype=dtype).max() < 1
    assert Stream.seeded(0).normal(many, (1000,), dtype=dtype).isfinite().all()
