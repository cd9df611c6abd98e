"""Models that optimise something while they predict."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch

from poise.evaluation.soundness.check import ModelCheck, Subject
from poise.evaluation.soundness.finding import Finding

_ENTRANCES: dict[CodeType, str] = {
    torch.autograd.grad.__code__: "torch.autograd.grad",
    torch.autograd.backward.__code__: "torch.autograd.backward",
}


class OptimisationInInference(ModelCheck):
    """Gradients that are taken inside the forward pass: a defence that purifies, adapts or searches at test time.

    Attacks differentiate through one such pass at best and miss what the optimisation undoes; such defences need an
    attack of their own (Croce et al. 2022, "Evaluating the adversarial robustness of adaptive test-time defenses";
    fra31/auto-attack, flags_doc.md). One forward pass is watched for calls into PyTorch's autograd, from Python, by
    whatever name; any call is warned of.

    Differences from the official check: functions are known by identity, not by being called "grad", and the counters
    live as long as the pass. There they are module-global and never reset: one flagged model flags all later ones.

    Limits: optimisation without gradients, in other threads or inside compiled code is not seen. Cost: 1 forward pass
    of one image.
    """

    name = "optimisation-in-inference"
    meaning = "the model takes gradients while it predicts, so the attacks may miss what that undoes"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        with torch.enable_grad(), _counted() as calls:
            given.model(given.batch.images[:1])
        if not calls:
            return self.finding("pass", "a forward pass takes no gradients")
        counts = ", ".join(f"{name} {count} times" for name, count in sorted(calls.items()))
        return self.finding("warn", f"one forward pass calls {counts}: attack the optimisation as well")


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """How often this thread enters autograd within the block; a profiler that was there is put back afterwards."""
    calls: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in _ENTRANCES:
            calls[_ENTRANCES[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(before)
