"""Votes of a classifier under Gaussian noise: drawn on the device, bounded with confidence, stopped when hopeless.

The class is chosen from some samples and bounded on others, as in Cohen, Rosenfeld & Kolter (2019). The error is
shared: half for the lower bound of that class, half for the upper bounds of all others together; with two classes one
bound says both. Looks at the samples, at which a radius may be granted, stand at counts fixed beforehand and share the
error among them, so stopping at one is not a choice that the data can abuse. An example is given up as soon as the last
look would grant it nothing even if all samples to come were votes for it. For counted votes the verdict is certain
then, and the same as without stopping; bounds of soft votes weigh their spread too, so that with few samples a small
radius may be forgone.

Noise belongs to the example and to the number of the sample, so results depend on neither batch size nor order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from poise.core.batch import Batch
from poise.core.folding import EstrangedError, settled
from poise.core.misuse import Misuse
from poise.core.modes import evaluating
from poise.core.streams import Stream
from poise.evaluation.certificates import confidence
from poise.evaluation.certificates.radii import others, smoothing_radius
from poise.models.smoothed import Smoothed, gaussian

_PARTS = 16
"""In how many parts the samples come; between them examples are given up."""
_INSIDE = 1 - 1e-9
"""Radii are of closed balls."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a smoothed classifier's votes are bounded.

    Args:
        samples: noisy copies from which bounds are made, at least 100.
        selection: noisy copies from which the class is chosen, at least 1.
        confidence: probability with which each radius holds, strictly between 0 and 1.
        enough: l2 radius beyond which an example needs no more samples; None to use all for as large a radius as
            possible. Where it is given, looks share the error and the last gets half of it.
        batch_size: noisy copies in one forward pass.
        seed: decides the noise.
    """

    samples: int = 10_000
    selection: int = 100
    confidence: float = 0.999
    enough: float | None = None
    batch_size: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("samples", 100), ("selection", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise Misuse(f"{name} must be at least {least}; got {getattr(self, name)}")
        if not 0 < self.confidence < 1:
            raise Misuse(f"confidence must lie strictly between 0 and 1; got {self.confidence}")
        if self.enough is not None and not (math.isfinite(self.enough) and self.enough > 0):
            raise Misuse(f"enough is a radius above 0, or None; got {self.enough}")

    def looks(self) -> dict[int, float]:
        """After how many samples a radius may be granted, with the error that each look may make."""
        error = 1 - self.confidence
        if self.enough is None:
            return {self.samples: error}
        early = sorted({self.samples >> shift for shift in range(1, 8) if self.samples >> shift >= 50})
        return {count: error / 2 / len(early) for count in early} | {self.samples: error / 2}


def first_look(sampling: Sampling) -> int:
    """Samples after which an example may be given up or granted its radius for the first time."""
    return _stops(sampling)[0]


def _stops(sampling: Sampling) -> list[int]:
    """Counts of samples at which examples may end."""
    parts = (-(-sampling.samples * part // _PARTS) for part in range(1, _PARTS + 1))
    return sorted({*sampling.looks(), *parts})


@dataclass(frozen=True)
class Tally:
    """The votes on some examples, one row each.

    Args:
        classes: the class that was chosen.
        total: samples so far.
        sums: of what each class was given: votes, or probabilities.
        squares: sums of their squares.
    """

    classes: Int[np.ndarray, " n"]
    total: Int[np.ndarray, " n"]
    sums: Float[np.ndarray, "n classes"]
    squares: Float[np.ndarray, "n classes"]

    def select(self, rows: Int[np.ndarray, " m"]) -> Tally:
        """The examples at these rows."""
        return Tally(self.classes[rows], self.total[rows], self.sums[rows], self.squares[rows])


def radii(tally: Tally, smoothed: Smoothed, error: float, alpha: float = 1.0) -> Float[np.ndarray, " n"]:
    """The l2 radii that a tally proves; each is too large with a probability of at most `error`.

    Args:
        tally: votes on samples that the class was not chosen from.
        smoothed: the kind of vote and sigma.
        error: shared over all bounds of an example.
        alpha: least weight of the smoothed branch in a mixture.
    """
    counted = smoothed.vote == "hard"
    rows, count = np.arange(len(tally.classes)), tally.sums.shape[1]
    total = tally.total.astype(np.float64)
    own = tally.sums[rows, tally.classes], tally.squares[rows, tally.classes]
    of_lower = np.full(len(rows), error if count == 2 else error / 2)
    low = (
        confidence.vote_lower(own[0], total, of_lower)
        if counted
        else confidence.mean_lower(own[0], own[1], total, of_lower)
    )
    high = np.repeat(1 - low[:, None], count, axis=1)
    if count > 2:
        of_upper, wide = np.full_like(high, error / 2 / (count - 1)), np.repeat(total[:, None], count, axis=1)
        bound = (
            confidence.vote_upper(tally.sums, wide, of_upper)
            if counted
            else confidence.mean_upper(tally.sums, tally.squares, wide, of_upper)
        )
        high = np.minimum(high, bound)
    rivals = others(torch.from_numpy(high), torch.from_numpy(tally.classes))
    return smoothing_radius(torch.from_numpy(low), rivals, smoothed.sigma, alpha).numpy() * _INSIDE


@dataclass(frozen=True)
class Outcome:
    """What became of an example.

    Args:
        row: its row in the batch.
        prediction: the chosen class.
        radius: certified l2 radius; 0 for an abstention.
        total: samples that were drawn for the bounds.
    """

    row: int
    prediction: int
    radius: float
    total: int


@torch.no_grad()
def sampled(smoothed: Smoothed, batch: Batch, sampling: Sampling, alpha: float = 1.0) -> list[Outcome]:
    """Choose a class for every example of a batch and certify it.

    Memory holds one pass of noisy copies beside the batch. The device is waited for sixteen times, or a few times more.

    Args:
        smoothed: the smoothing, on the batch's device.
        batch: images in [0, 1]; labels are not looked at.
        sampling: how many samples, and how sure to be.
        alpha: least weight of the smoothed branch in a mixture; 1 where nothing is mixed.
    """
    if not len(batch):
        return []
    with evaluating(smoothed):
        try:
            return _sampled(_Booth.of(smoothed, batch, sampling.batch_size), batch, sampling, alpha)
        except EstrangedError:  # the same noise once more, and the classifier itself votes
            return _sampled(_Booth(smoothed, smoothed.inner, sampling.batch_size), batch, sampling, alpha)


def _sampled(booth: _Booth, batch: Batch, sampling: Sampling, alpha: float) -> list[Outcome]:
    root = Stream.seeded(sampling.seed).fold("certificate")
    chosen = booth.votes(batch, root.fold("selection"), 0, sampling.selection)
    return list(_bounded(booth, batch, chosen[0].argmax(1), root.fold("bounds"), sampling, alpha))


def _bounded(
    booth: _Booth, batch: Batch, classes: Tensor, stream: Stream, sampling: Sampling, alpha: float
) -> Iterator[Outcome]:
    smoothed = booth.smoothed
    looks, most = sampling.looks(), sampling.samples
    live, count = torch.arange(len(batch), device=batch.ids.device), len(batch)
    nothing = np.zeros((count, smoothed.inner.num_classes))
    tally = Tally(classes.cpu().numpy(), np.zeros(count, np.int64), nothing, nothing)
    done = 0
    for stop in _stops(sampling):
        if not len(live):
            return
        sums, squares = booth.votes(batch.select(live), stream, done, stop)
        tally = replace(
            tally,
            total=tally.total + stop - done,
            sums=tally.sums + sums.cpu().numpy(),
            squares=tally.squares + squares.cpu().numpy(),
        )
        done = stop
        granted = radii(tally, smoothed, looks[stop], alpha) if stop in looks else np.zeros(len(tally.total))
        decided = granted >= (sampling.enough or math.inf) if stop < most else np.ones(len(granted), bool)
        hopeless = radii(_best_case(tally, most), smoothed, looks[most], alpha) == 0
        gone = decided | hopeless
        for place in np.flatnonzero(gone):
            radius = float(granted[place]) if decided[place] else 0.0
            yield Outcome(int(live[place]), int(tally.classes[place]), radius, int(tally.total[place]))
        stay = np.flatnonzero(~gone)
        live, tally = live[torch.from_numpy(stay).to(live.device)], tally.select(stay)


def _best_case(tally: Tally, most: int) -> Tally:
    """The tally at the end if every sample to come spoke for the chosen class alone."""
    rest = (most - tally.total)[:, None] * np.eye(tally.sums.shape[1])[tally.classes]
    return Tally(tally.classes, np.full_like(tally.total, most), tally.sums + rest, tally.squares + rest)


@dataclass(frozen=True)
class _Booth:
    """Where noisy copies vote.

    Args:
        smoothed: the kind of vote and sigma.
        ask: gives their logits: for hard votes, which count classes, sooner than the inner classifier would.
        batch_size: noisy copies in one forward pass.
    """

    smoothed: Smoothed
    ask: nn.Module
    batch_size: int

    @classmethod
    def of(cls, smoothed: Smoothed, batch: Batch, batch_size: int) -> _Booth:
        """For images like those of a batch."""
        inner = smoothed.inner
        ask = settled(inner, batch.images) if smoothed.vote == "hard" else inner
        return cls(smoothed, ask, batch_size)

    def votes(
        self, batch: Batch, stream: Stream, start: int, stop: int
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n classes"]]:
        """Sums, and sums of squares, of what samples start .. stop - 1 give each class."""
        each = max(1, self.batch_size // max(1, len(batch)))
        some = max(1, self.batch_size // each)
        parts = [
            self._of_some(batch.select(rows), stream, range(start, stop), each)
            for rows in torch.split(torch.arange(len(batch), device=batch.ids.device), some)
        ]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _of_some(self, batch: Batch, stream: Stream, numbers: range, each: int) -> tuple[Tensor, Tensor]:
        device, count, smoothed = batch.ids.device, len(batch), self.smoothed
        shape, width = tuple(batch.images.shape[1:]), smoothed.inner.num_classes
        sums = torch.zeros(2, count, width, dtype=torch.float64, device=device)
        for first in range(numbers.start, numbers.stop, each):
            steps = torch.arange(first, min(first + each, numbers.stop), device=device)
            noise = gaussian(stream, batch.ids.repeat_interleave(len(steps)), shape, steps.repeat(count))
            noisy = noise.mul_(smoothed.sigma).view(count, len(steps), *shape).add_(batch.images[:, None])
            shares = smoothed.shares(noisy.flatten(0, 1), self.ask).view(count, len(steps), width)
            given = shares.exp() if smoothed.vote == "soft" else shares
            sums[0] += given.sum(1, dtype=torch.float64)
            sums[1] += given.square().sum(1, dtype=torch.float64)
        return sums[0], sums[1]
