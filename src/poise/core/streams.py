"""Counter-based random numbers: the value is a function of (seed, purpose, example, step, position), never of a batch.

A `Stream` is a 64-bit key. Folding labels into it gives streams for separate purposes; drawing from it takes the
integer keys of the examples. The generator is SplitMix64 (Steele, Lea & Flood 2014): position j of a stream with state
k is mix(k + (j + 1) * golden). Nothing here reads or changes PyTorch's global random state.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_WORD = 2**64


def _signed(word: int) -> int:
    """A 64-bit word as the int64 with the same bits."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Logical right shift of 64-bit words kept in int64."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix(words: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    words = (words ^ _shifted(words, 30)) * _signed(_MIX_1)
    words = (words ^ _shifted(words, 27)) * _signed(_MIX_2)
    return words ^ _shifted(words, 31)


def hashed(*labels: str | int) -> int:
    """A 63-bit non-negative integer that depends on all labels and on nothing else, the same on every machine."""
    text = "\x1f".join(f"{type(label).__name__}:{label}" for label in labels)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def example_keys(ids: Sequence[str]) -> Int[Tensor, " n"]:
    """The integer keys, on the CPU, under which examples draw random numbers: hashes of their ids."""
    return torch.tensor([hashed(identity) for identity in ids], dtype=torch.int64)


@dataclass(frozen=True)
class Stream:
    """A source of random numbers for one purpose.

    Args:
        key: 64-bit state; streams with different keys are independent.
    """

    key: int

    @classmethod
    def seeded(cls, seed: int) -> Stream:
        """The root stream of a seed (any integer)."""
        return cls(hashed("seed", seed))

    def fold(self, *labels: str | int) -> Stream:
        """The stream of a narrower purpose, e.g. ``stream.fold("attack", epoch)``."""
        return Stream(hashed(self.key, *labels))

    def words(self, ids: Int[Tensor, " n"], count: int, step: int | Int[Tensor, " n"] = 0) -> Int[Tensor, "n {count}"]:
        """Uniform 64-bit words, as int64.

        Args:
            ids: integer keys of the examples; the result lies on their device.
            count: words per example.
            step: a counter, one for all examples or one each; different steps give independent words.
        """
        state = _mix(_mix(ids ^ _signed(self.key)) + _signed(_GOLDEN) * (torch.as_tensor(step, device=ids.device) + 1))
        position = torch.arange(1, count + 1, device=ids.device, dtype=torch.int64) * _signed(_GOLDEN)
        return _mix(_mix(state)[:, None] + position)

    def uniform(
        self,
        ids: Int[Tensor, " n"],
        shape: tuple[int, ...] = (),
        *,
        step: int | Int[Tensor, " n"] = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n *shape"]:
        """Values uniform on [0, 1): multiples of 2^-53 in float64 and of 2^-24 in float32, and others are rounded.

        Args:
            ids: integer keys of the examples.
            shape: shape of one example's values.
            step: counter, one for all or one each.
            dtype: floating dtype of the result.
        """
        words = self.words(ids, math.prod(shape), step).view(-1, *shape)
        if dtype == torch.float64:
            return _shifted(words, 11).to(dtype) * 2.0**-53
        values = _shifted(words, 40).to(torch.float32) * 2.0**-24
        return values if dtype == torch.float32 else values.to(dtype).clamp(max=1 - torch.finfo(dtype).eps / 2)

    def normal(
        self,
        ids: Int[Tensor, " n"],
        shape: tuple[int, ...] = (),
        *,
        step: int | Int[Tensor, " n"] = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n *shape"]:
        """Standard normal values (Box-Muller). Arguments as for `uniform`."""
        fine = torch.promote_types(dtype, torch.float32)
        first = self.uniform(ids, shape, step=step, dtype=fine)
        second = self.fold("angle").uniform(ids, shape, step=step, dtype=fine)
        return (torch.sqrt(-2 * torch.log1p(-first)) * torch.cos(2 * math.pi * second)).to(dtype)

    def integers(
        self, ids: Int[Tensor, " n"], below: int, shape: tuple[int, ...] = (), *, step: int | Int[Tensor, " n"] = 0
    ) -> Int[Tensor, "n *shape"]:
        """Integers uniform on [0, below), for bounds far under 2^53. Arguments as for `uniform`."""
        return (self.uniform(ids, shape, step=step, dtype=torch.float64) * below).long().clamp(max=below - 1)

    def permutation(self, count: int) -> Int[Tensor, " count"]:
        """A random order of 0 .. count - 1, on the CPU."""
        return self.words(torch.zeros(1, dtype=torch.int64), count)[0].argsort(stable=True)


@contextmanager
def global_seed(stream: Stream) -> Iterator[None]:
    """Run a block under PyTorch's global generators seeded from a stream; afterwards they are as before.

    For code that is not ours and draws from the global state: dropout, weight initialisation.
    """
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with torch.random.fork_rng(devices=range(devices)):
        # torch.manual_seed would keep a stack trace of every call for devices that are never used.
        torch.default_generator.manual_seed(stream.key)
        if devices:
            torch.cuda.manual_seed_all(stream.key)
        yield
