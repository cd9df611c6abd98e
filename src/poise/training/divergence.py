"""What an epoch's terms sum to, since when they are no numbers, and what to say then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.core.misuse import Failure
from poise.training.options import Training


class Diverged(Failure):
    """Loss or weights are no longer finite numbers; the last checkpoint is from before."""


class Tally:
    """Totals of an epoch's terms, kept on the device so that no step waits for it.

    Args:
        device: where the terms come from.
        totals: totals so far, of an interrupted epoch.
    """

    def __init__(self, device: torch.device, totals: Mapping[str, float] | None = None) -> None:
        self._device = device
        self._totals = {name: self._number(value) for name, value in (totals or {}).items()}
        self._since = {name: self._number(torch.inf) for name in self._totals}

    def add(self, terms: Mapping[str, Tensor], count: int, number: int) -> None:
        """Add a step's terms.

        Args:
            terms: means over the step's examples.
            count: examples of the step.
            number: of the step within the epoch.
        """
        for name, term in terms.items():
            self._totals[name] = self._totals.get(name, self._number(0)) + term.double() * count
            since = self._since.get(name, self._number(torch.inf))
            self._since[name] = torch.where(term.isfinite(), since, since.clamp(max=number))

    def totals(self) -> dict[str, float]:
        """Each term's sum over all examples; waits for the device."""
        return {name: float(total) for name, total in self._totals.items()}

    def broken(self) -> dict[str, int]:
        """Terms that were no finite numbers, with the first such step; waits for the device."""
        found = {name: float(since) for name, since in self._since.items()}
        return {name: int(since) for name, since in found.items() if since < torch.inf}

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self._device)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Under what a training diverged.

    Args:
        epoch: from 0.
        batch: number of the first bad step within the epoch, from 0, or of the step at which bad weights were found.
        epsilon: budget of that step.
        learning_rate: of the backbone, at that step.
        terms: the terms that were no numbers, by the step at which each began; empty where only weights are.
        checkpoint: the last good state, if there is one.
    """

    epoch: int
    batch: int
    epsilon: float
    learning_rate: float
    terms: Mapping[str, int]
    checkpoint: str | None


def diagnosis(found: Circumstances, options: Training) -> str:
    """What happened, when, under what, what is left of the run, and what to try."""
    first = [f"'{name}'" for name, since in found.terms.items() if since == found.batch]
    what = f"the term{'s' * (len(first) > 1)} {' and '.join(first)}" if first else "the weights"
    since = "since" if first else "noticed at"
    left = "there is no good state yet"
    if found.checkpoint:
        left = f"the last good state is {found.checkpoint}, whose model.safetensors a new run takes as --weights"
    return (
        f"{what} became no finite number, {since} batch {found.batch + 1} of epoch {found.epoch + 1}, "
        f"at epsilon {found.epsilon:.4g} and learning rate {found.learning_rate:.3g}; {left}. Try: "
        + "; ".join(_remedies(found, options))
    )


def _remedies(found: Circumstances, options: Training) -> list[str]:
    """What most likely helps, first."""
    remedies = [f"training.learning_rate {options.learning_rate / 3:.1g}"]
    if options.precision != "fp32":
        remedies.insert(0, f"training.precision {'bf16' if options.precision == 'fp16' else 'fp32'}")
    if options.clip is None:
        remedies.insert(0, "training.clip 1")
    if options.warmup == 0:
        remedies.append("training.warmup 0.1")
    if found.epsilon > 0:
        remedies.append("a schedule that reaches its target later")
    return remedies
