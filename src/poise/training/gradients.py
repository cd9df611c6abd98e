"""The gradient of one step, in as few pieces as memory holds and over all processes, the same however it is cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from poise.core.batch import Batch
from poise.core.memory import out_of_memory
from poise.core.misuse import Failure, Misuse
from poise.core.modes import steady
from poise.objectives import Objective, Step, Terms
from poise.training.processes import Processes, running_statistics

Tell = Callable[[str], None]
"""Takes a line for the person."""


@dataclass
class Gradients:
    """Fills the parameters' `.grad` with that of the objective's loss over a whole batch.

    The loss of a batch is the mean over its examples, so pieces count by their examples. Cutting a batch changes
    nothing but rounding where the loss is such a mean and the network treats examples apart. What sees a piece as a
    whole differs: statistics of batch normalisation, losses that divide by a number found in the batch, and the shift
    of adversarial weight perturbation.

    Args:
        objective: what is minimised.
        accelerator: scales the loss in low precision.
        processes: those that share the batch.
        micro_batch: the most images at a time; None for all, until memory runs out.
        tell: told when memory runs out.
    """

    objective: Objective
    accelerator: Accelerator
    processes: Processes
    micro_batch: int | None
    tell: Tell

    def fill(self, step: Step, count: int, seed: int) -> dict[str, Tensor]:
        """Compute the gradient, in smaller pieces where memory runs out in any process.

        Args:
            step: the step, with this process's part of the batch; the part may be empty.
            count: examples of the whole batch, over all processes.
            seed: of PyTorch's global generator, for layers that draw from it.

        Returns:
            The objective's terms, detached, averaged over the examples of the whole batch.

        Raises:
            Failure: if memory does not even hold a single image or, where weights are shared out, a piece; and if a
                batch norm gets too little to learn from.
        """
        statistics = running_statistics(step.model)
        kept = [buffer.clone() for buffer in statistics]
        while True:
            torch.manual_seed(seed)
            step.model.zero_grad(set_to_none=True)
            terms, fitted = self._attempt(step, count)
            if not self.processes.any(not fitted):
                break
            for buffer, found in zip(statistics, kept, strict=True):
                buffer.copy_(found)
            clear_device_cache(garbage_collection=True)
            self._halve(count)
        self.processes.sum_gradients(step.model.parameters())
        self.processes.average_statistics(step.model, len(step.batch) / count)
        return self.processes.sum_terms(terms if len(step.batch) else None)

    def _attempt(self, step: Step, count: int) -> tuple[dict[str, Tensor], bool]:
        """This process's part of the terms, and whether memory sufficed."""
        try:
            return self._terms(step, count), True
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise Failure(
                "a batch norm of this network sees a single value a channel, from which it cannot learn: give it "
                "larger images, or at least two at a time (training.batch_size, training.micro_batch), or keep it as "
                "it is (training.batch_norm frozen)"
            ) from error
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if self.processes.sharded:
                raise Failure(
                    "out of memory, and processes that share out the weights cannot go back; "
                    "set training.micro_batch to the most images at a time that fit"
                ) from error
            return {}, False

    def _terms(self, step: Step, count: int) -> dict[str, Tensor]:
        """This process's part of the terms; its part of the gradient is added to what the parameters hold."""
        several = self.processes.count > 1
        synced = several and any(isinstance(module, nn.SyncBatchNorm) for module in step.model.modules())
        pieces = self._pieces(step, together=synced or self.processes.sharded)
        # Batch norms that look at all processes would wait for one that has no images.
        alone = synced and self.processes.any(not pieces or not len(pieces[-1].batch))
        terms: dict[str, Tensor] = {}
        with steady(step.model, alone):
            for piece in pieces:
                if len(piece.batch):
                    share = len(piece.batch) / count
                    found = self._found(piece)
                    self.accelerator.backward(found["loss"] * share)
                    for name, term in found.items():
                        terms[name] = terms.get(name, 0) + term.detach() * share
                elif self.processes.sharded:
                    self._keep_pace(piece)
        return terms

    def _found(self, step: Step) -> Terms:
        """The objective's terms, among which the loss must be."""
        found = self.objective.terms(step)
        loss = found.get("loss")
        if loss is None or loss.numel() != 1 or not loss.requires_grad:
            name = type(self.objective).__name__
            raise Misuse(
                f"the objective {name} must return a 'loss', a single number that gradients pass through, among its "
                f"terms; it returned {', '.join(found) or 'nothing'}"
            )
        return found

    def _pieces(self, step: Step, *, together: bool) -> list[Step]:
        """The step in as few pieces as memory holds, or in as many as the other processes have."""
        number = math.ceil(len(step.batch) / (self.micro_batch or len(step.batch) or 1))
        return _cut(step, self.processes.most(number) if together else number)

    def _keep_pace(self, step: Step) -> None:
        """Take the passes that the other processes take, with a blank image that counts for nothing."""
        batch, epsilon = step.batch, step.epsilon
        blank = Batch(*(each.new_zeros(1, *each.shape[1:]) for each in (batch.images, batch.labels, batch.ids)))
        budget = epsilon.new_ones(1) if isinstance(epsilon, Tensor) else epsilon
        with steady(step.model):
            found = self.objective.terms(replace(step, batch=blank, epsilon=budget))
        self.accelerator.backward(found["loss"] * 0)

    def _halve(self, count: int) -> None:
        largest = self.micro_batch or -(-count // self.processes.count)
        if largest == 1:
            raise Failure("memory does not hold the training of a single image; choose a smaller network or image_size")
        self.micro_batch = largest // 2
        self.tell(
            f"out of memory: from here on {self.micro_batch} images at a time in each process instead of {largest}; "
            "the effective batch stays the same"
        )


def _cut(step: Step, number: int) -> list[Step]:
    """A step in so many pieces of nearly equal size, the last of them empty where images are fewer."""
    if not number:
        return []
    batch, epsilon = step.batch, step.epsilon
    parts = zip(*(tensor.tensor_split(number) for tensor in (batch.images, batch.labels, batch.ids)), strict=True)
    budgets: Sequence[float | Tensor] = (
        epsilon.tensor_split(number) if isinstance(epsilon, Tensor) else [epsilon] * number
    )
    return [replace(step, batch=Batch(*part), epsilon=budget) for part, budget in zip(parts, budgets, strict=True)]
