"""Smoothing by sampling: coverage against a closed form, early stops that change nothing, independence of batches."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from poise.core.batch import Batch
from poise.core.folding import Settled, settled
from poise.core.misuse import Misuse
from poise.evaluation.certificates import sampling as room
from poise.evaluation.certificates.sampling import Sampling, Tally, radii, sampled
from poise.models import smooth
from poise.models.mixing import Blend, MixedClassifier, SlopeGate
from poise.models.small import SmallNetwork
from tests.core.test_folding import trained
from tests.evaluation.certificates.networks import classifier

SIGMA = 0.5
DRAWS = 10_000


class HalfSpace(nn.Module):
    """Two classes on the two sides of a plane at half the first value: a smoothed one is known in closed form."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.classes, self.weight = classes, nn.Parameter(torch.ones(1))

    def forward(self, images):
        side = (images[:, 0, 0, 0] - 0.5) * 40 * self.weight
        rest = torch.full((len(images), self.classes - 2), -1e4)
        return torch.cat([side[:, None], -side[:, None], rest], dim=1)


def _smoothed(vote="hard", classes=2):
    return _over(classifier(HalfSpace(classes), (1, 1, 2), classes), vote)


def _over(inner, vote):
    return smooth(inner, sigma=SIGMA, vote=vote).network


def _batch(*values):
    images = torch.tensor([[[[value, 0.3]]] for value in values], dtype=torch.float32)
    return Batch(images, torch.zeros(len(values), dtype=torch.long), torch.arange(len(values)) * 7 + 3)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("alpha", [1.0, 0.9])
def test_radii_exceed_the_truth_no_more_often_than_the_error_allows(classes, alpha):
    """10,000 simulated tallies of an image at distance 0.6 of a half-space, whose radius is known exactly."""
    distance, error, total = 0.6, 0.05, 400
    share = stats.norm.cdf(distance / SIGMA)
    counts = np.random.default_rng(0).binomial(total, share, DRAWS)
    sums = np.zeros((DRAWS, classes))
    sums[:, 0], sums[:, 1] = counts, total - counts
    tally = Tally(np.zeros(DRAWS, np.int64), np.full(DRAWS, total), sums, sums)
    found = radii(tally, _smoothed(classes=classes), error, alpha)
    rival = stats.norm.ppf(alpha * (1 - share) + 1 - alpha)
    truth = SIGMA / 2 * (stats.norm.ppf(alpha * share) - rival)
    assert (found <= truth).mean() >= 1 - error
    assert (found > 0.5 * truth).mean() > 0.9


def test_looks_in_between_share_the_error_so_that_stopping_early_stays_covered():
    """Paths of votes, judged at every look: the truth is exceeded no more often than the errors add up to."""
    sampling = Sampling(samples=800, confidence=0.95, enough=0.2)
    assert math.fsum(sampling.looks().values()) == pytest.approx(0.05)
    distance = 0.2 - 1e-3
    share = stats.norm.cdf(distance / SIGMA)
    looks = sampling.looks()
    random, steps = np.random.default_rng(2), np.diff([0, *looks])
    counts = np.stack([random.binomial(step, share, DRAWS) for step in steps], axis=1).cumsum(1)
    wrong = np.zeros(DRAWS, bool)
    for place, (count, error) in enumerate(looks.items()):
        sums = np.stack([counts[:, place], count - counts[:, place]], axis=1).astype(float)
        wrong |= (
            radii(Tally(np.zeros(DRAWS, np.int64), np.full(DRAWS, count), sums, sums), _smoothed(), error) > distance
        )
    assert wrong.mean() <= 0.05
    assert wrong.mean() > 0.002


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_sampled_radii_lie_below_the_closed_form_and_near_it(vote):
    distances = (0.05, 0.2, 0.45)
    found = sampled(_smoothed(vote), _batch(*(0.5 + each for each in distances)), Sampling(samples=20_000))
    by_row = {outcome.row: outcome for outcome in found}
    for row, distance in enumerate(distances):
        assert by_row[row].prediction == 0
        assert distance - 0.05 < by_row[row].radius < distance


def test_fewer_samples_and_more_confidence_prove_less():
    batch = _batch(0.8)
    radius = [
        sampled(_smoothed(), batch, Sampling(samples=samples, confidence=confidence))[0].radius
        for samples, confidence in ((5000, 0.9), (5000, 0.9999), (500, 0.9999))
    ]
    assert radius[0] > radius[1] > radius[2] > 0


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_the_batch_changes_nothing(vote):
    values = [0.52, 0.7, 0.9, 0.3, 0.5]
    whole = {each.row: each for each in sampled(_smoothed(vote), _batch(*values), Sampling(samples=1000))}
    small = Sampling(samples=1000, batch_size=3)
    for row in range(len(values)):
        alone = sampled(_smoothed(vote), _batch(*values).select(torch.tensor([row])), small)[0]
        assert (alone.prediction, alone.total) == (whole[row].prediction, whole[row].total)
        assert alone.radius == pytest.approx(whole[row].radius, abs=1e-7)


def test_giving_up_early_changes_no_verdict(monkeypatch):
    batch, sampling = _batch(0.5, 0.505, 0.51, 0.6, 0.49), Sampling(samples=2000)
    early = {each.row: each for each in sampled(_smoothed(), batch, sampling, 0.7)}
    monkeypatch.setattr(room, "_best_case", lambda tally, most: Tally(tally.classes, *_certain(tally, most)))
    whole = {each.row: each for each in sampled(_smoothed(), batch, sampling, 0.7)}
    assert {row: (each.prediction, each.radius) for row, each in early.items()} == {
        row: (each.prediction, each.radius) for row, each in whole.items()
    }
    assert all(each.total == 2000 for each in whole.values())
    assert early[0].radius == 0
    assert early[0].total < 2000


def _certain(tally, most):
    sums = np.eye(tally.sums.shape[1])[tally.classes] * most
    return np.full_like(tally.total, most), sums, sums


def test_enough_is_enough():
    found = sampled(_smoothed(), _batch(0.9), Sampling(samples=20_000, enough=0.2))[0]
    assert found.total < 5000
    assert 0.2 <= found.radius < 0.4


def test_an_undecided_image_is_abstained_from():
    assert sampled(_smoothed(), _batch(0.5), Sampling(samples=500))[0].radius == 0


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5])
def test_a_mixture_at_or_below_one_half_is_never_certified(alpha):
    assert sampled(_smoothed(), _batch(1.0, 5.0), Sampling(samples=1000), alpha)[0].radius == 0


class Mute(HalfSpace):
    """Says NaN of what lies beyond a bound."""

    def __init__(self, classes, bound):
        super().__init__(classes)
        self.bound = bound

    def forward(self, images):
        return super().forward(images).masked_fill(images[:, 0, 0, :1] > self.bound, torch.nan)


@pytest.mark.parametrize("vote", ["hard", "soft"])
@pytest.mark.parametrize("classes", [2, 5])
def test_noise_that_the_network_says_nothing_of_counts_for_no_class(vote, classes):
    """The noise between plane and bound proves; of two classes the other is given the rest; NaN proves nothing."""
    bound, sampling = 1.7, Sampling(samples=2000, selection=50)
    inner = classifier(Mute(classes, bound), (1, 1, 2), classes)
    outcomes = sampled(_over(inner, vote), _batch(0.8, 1.1), sampling)
    for outcome, value in zip(sorted(outcomes, key=lambda each: each.row), (0.8, 1.1), strict=True):
        beyond = stats.norm.cdf((0.5 - value) / SIGMA)
        share = stats.norm.cdf((bound - value) / SIGMA) - beyond
        rival = 1 - share if classes == 2 else beyond
        truth = SIGMA / 2 * (stats.norm.ppf(share) - stats.norm.ppf(rival))
        assert outcome.prediction == 0
        assert 0.6 * truth < outcome.radius < truth
    silent = classifier(Mute(classes, -99.0), (1, 1, 2), classes)
    found = sampled(_over(silent, vote), _batch(0.8), sampling)
    assert [each.radius for each in found] == [0.0]


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_a_mixture_whose_gate_takes_gradients_is_smoothed_and_sampled(vote):
    """Both branches are the same, so that the gate changes nothing."""
    branch, sampling = classifier(HalfSpace(), (1, 1, 2), 2), Sampling(samples=200)
    mixed = MixedClassifier.of(branch, branch, Blend(alpha_low=0.0, alpha_high=1.0), SlopeGate(1.0))
    alone, gated = (sampled(network, _batch(0.9), sampling)[0] for network in (_smoothed(vote), _over(mixed, vote)))
    assert gated.prediction == alone.prediction
    assert gated.radius == pytest.approx(alone.radius, abs=1e-6)
    assert gated.radius > 0


def test_no_images_are_no_trouble():
    batch = _batch(0.5)
    assert sampled(_smoothed(), batch.select(torch.zeros(1, dtype=torch.bool)), Sampling()) == []


def test_memory_holds_one_pass_of_noisy_copies(monkeypatch):
    sizes, smoothing = [], _smoothed()
    shares = smoothing.shares
    monkeypatch.setattr(smoothing, "shares", lambda noisy, ask: sizes.append(len(noisy)) or shares(noisy, ask))
    sampled(smoothing, _batch(*[0.8] * 7), Sampling(samples=1000, batch_size=50))
    assert max(sizes) <= 50
    assert sum(sizes) == 7 * 1100


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"samples": 10}, "samples must be at least 100"),
        ({"selection": 0}, "selection must be at least 1"),
        ({"confidence": 1.0}, "strictly between 0 and 1"),
        ({"enough": 0.0}, "radius above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_impossible_sampling_is_refused(change, line):
    with pytest.raises(Misuse, match=line):
        dataclasses.replace(Sampling(), **change)


def test_a_folded_copy_changes_no_vote(monkeypatch):
    smoothing = smooth(classifier(trained(SmallNetwork(10, 3)), (3, 8, 8), 10), sigma=0.1).network
    batch = Batch(torch.rand(6, 3, 8, 8), torch.zeros(6, dtype=torch.long), torch.arange(6))
    made = []
    monkeypatch.setattr(room, "settled", lambda *given: made.append(settled(*given)) or made[-1])
    found = sampled(smoothing, batch, Sampling(samples=2000))
    assert isinstance(made[0], Settled)
    monkeypatch.setattr(room, "settled", lambda inner, _: inner)
    assert found == sampled(smoothing, batch, Sampling(samples=2000))
    assert any(each.radius > 0 for each in found)


def test_a_copy_that_votes_otherwise_is_let_go_with_all_its_votes(monkeypatch):
    smoothing = smooth(classifier(trained(SmallNetwork(10, 3)), (3, 8, 8), 10), sigma=0.1).network
    batch = Batch(torch.rand(6, 3, 8, 8), torch.zeros(6, dtype=torch.long), torch.arange(6))
    monkeypatch.setattr(room, "settled", lambda inner, _: inner)
    expected = sampled(smoothing, batch, Sampling(samples=2000))
    calls = []

    class Sly(nn.Module):
        """Says what the model says for a while, and then that all are of class 3."""

        def forward(self, images):
            calls.append(len(images))
            logits = smoothing.inner(images)
            return logits if len(calls) < 9 else 100 * nn.functional.one_hot(logits.argmax(1) * 0 + 3, 10).float()

    monkeypatch.setattr(room, "settled", lambda inner, _: Settled(inner, Sly()))
    assert sampled(smoothing, batch, Sampling(samples=2000)) == expected
    assert len(calls) == 9
