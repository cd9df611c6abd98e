"""How much of what looks like a flip is attack noise: the same model, profiled with another seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from poise.core.misuse import Misuse
from poise.evaluation.curve import Estimate, share
from poise.evaluation.flips.counts import Flips, flips
from poise.evaluation.flips.pair import Pair, join
from poise.evaluation.flips.truth import Count
from poise.evaluation.profile import Profile


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """Flips of a model against itself.

    Args:
        of: which model of the comparison: old or new.
        seeds: of the two profiles.
        flips: between the two profiles, at each epsilon of the comparison's grid.
    """

    of: Literal["old", "new"]
    seeds: tuple[int, int]
    flips: tuple[Flips, ...]

    def changed(self, point: int) -> Count:
        """Examples whose verdict at a grid point depends on the seed."""
        lost, gained = self.flips[point].lost, self.flips[point].gained
        return Count(lost.certain + gained.certain, lost.possible + gained.possible, lost.total)

    def rate(self, point: int) -> Estimate:
        """The share of examples that this model alone makes look lost at a grid point, with its exact interval.

        It is half the share whose verdict changed, as the two seeds could have come in either order.
        """
        changed = self.changed(point)
        low, high = share(changed.certain, changed.total), share(changed.possible, changed.total)
        return Estimate((low.value + high.value) / 4, low.low / 2, high.high / 2)


def noise_floors(pair: Pair, again: Profile) -> tuple[NoiseFloor, ...]:
    """The noise floor that a second profile of the old or the new model shows; of both where they are one model.

    Nothing is subtracted from any figure: the floor stands beside it.

    Args:
        pair: the comparison.
        again: a profile of one of its models under the same conditions with another seed, on the pair's whole grid.

    Raises:
        Misuse: if it is of neither model, has the seed of the first, or lacks points of the grid.
    """
    models: tuple[tuple[Literal["old", "new"], Profile], ...] = (("old", pair.old), ("new", pair.new))
    floors = [_floor(of, first, again) for of, first in models if _same(first, again)]
    if not floors:
        raise Misuse(
            f"{again.header.model_address or 'the profile given as noise'} is of neither model (digest "
            f"{again.header.model or 'unknown'}); profile the old or the new model again with another --seed"
        )
    return tuple(floors)


def _same(first: Profile, again: Profile) -> bool:
    return bool(first.header.model) and first.header.model == again.header.model


def _floor(of: Literal["old", "new"], first: Profile, again: Profile) -> NoiseFloor:
    seeds = (first.header.seed, again.header.seed)
    if seeds[0] == seeds[1]:
        raise Misuse(
            f"both profiles of the {of} model have seed {seeds[0]}, which shows no noise; choose another --seed"
        )
    twice = join(first, again)
    if twice.epsilons != first.epsilons:
        raise Misuse(f"the second profile of the {of} model lacks points of the grid; profile it on the same --points")
    return NoiseFloor(of=of, seeds=seeds, flips=flips(twice))
