"""How processes share a training: what one does for all, what all must agree on, and the sums that they form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from poise.core.misuse import Failure, Misuse
from poise.core.processes import process_state

Result = TypeVar("Result")

_BUCKET = 2**23
"""Numbers that are summed in one message: 32 MiB of float32."""


def is_main() -> bool:
    """Whether this process is the one that writes and speaks; true where there is only one."""
    return bool(process_state().is_main_process)


def on_main(action: Callable[[], Result]) -> Result:
    """Do something in the main process alone; all return its result, or raise its error.

    Args:
        action: its result must survive pickling; it may raise `Misuse`, `Failure` or `OSError`.
    """
    if process_state().num_processes == 1:
        return action()
    outcome: list[object] = [None, None]
    if is_main():
        try:
            outcome = [action(), None]
        except (Misuse, Failure, OSError) as error:
            outcome = [None, error]
    broadcast_object_list(outcome)
    if isinstance(outcome[1], Exception):
        raise outcome[1]
    return outcome[0]  # type: ignore[return-value]


def agree(what: str, value: str) -> None:
    """Refuse to go on where processes differ in what must be the same.

    Raises:
        Misuse: in all processes, where any two differ.
    """
    if process_state().num_processes == 1:
        return
    values = gather_object([value])
    if len(set(values)) > 1:
        listed = ", ".join(f"{index}: {found}" for index, found in enumerate(values))
        raise Misuse(f"the processes differ in {what} ({listed}); give all of them the same files")


class Processes:
    """The processes that share each training step, of which this is one.

    Each computes the gradient of its own examples, and the weighted sum over all is formed once a step, after the
    backward pass. A `DistributedDataParallel` would form it meanwhile, which saves little in steps of many passes; it
    could neither weigh slices of different size nor be told that another process has run out of memory.

    Args:
        sharded: whether they share out the weights, too (`training.sharding`): then gradients come summed, and all have
            to take the same passes.
    """

    def __init__(self, *, sharded: bool = False) -> None:
        self.sharded = sharded
        state = process_state()
        self.rank, self.count, self.device = int(state.process_index), int(state.num_processes), state.device
        # Words between hosts, which must not wait for a device.
        self._words: Any = torch.distributed.new_group(backend="gloo") if self.count > 1 else None

    def any(self, here: bool) -> bool:
        """Whether it holds in any process."""
        return bool(self.most(int(here)))

    def most(self, here: int) -> int:
        """The largest of a number over all processes."""
        if self._words is None:
            return here
        found = torch.tensor(here)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self._words)
        return int(found)

    def sum_terms(self, terms: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The sum of each named scalar over all processes, in float64.

        Args:
            terms: this process's part of each; None where it has no part in the step.
        """
        if self._words is None:
            return dict(terms or {})
        names: list[list[str]] = [list(terms or ())]
        if self.any(terms is None):  # the main process has a part in every step
            torch.distributed.broadcast_object_list(names, src=0, group=self._words)
        parts = [terms[name].double() if terms else torch.zeros((), dtype=torch.float64) for name in names[0]]
        total = torch.stack([part.to(self.device) for part in parts])
        torch.distributed.all_reduce(total)
        return dict(zip(names[0], total.unbind(), strict=True))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; it stays None where no process has one."""
        if self._words is None or self.sharded:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if self.any(any(parameter.grad is None for parameter in trained)):
            trained = self._with_gradients(trained)
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._sum([parameter.grad for parameter in trained if parameter.grad is not None])

    def _with_gradients(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Those that have a gradient in any process."""
        having = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        torch.distributed.all_reduce(having, torch.distributed.ReduceOp.MAX, group=self._words)
        return [parameter for parameter, has in zip(parameters, having.tolist(), strict=True) if has]

    def average_statistics(self, model: nn.Module, weight: float) -> None:
        """Replace running statistics of normalising layers by their mean over all processes.

        Args:
            model: the network in training.
            weight: this process's share of the step's examples; the shares of all processes sum to 1.
        """
        if self._words is None:
            return
        buffers = [buffer for buffer in running_statistics(model) if buffer.is_floating_point()]
        for buffer in buffers:
            buffer.mul_(weight)
        self._sum(buffers)

    def _sum(self, tensors: list[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            torch.distributed.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Buffers of batch and instance normalisation in train mode: what a forward pass changes."""
    kinds = nn.modules.batchnorm._NormBase  # noqa: SLF001 - the one base of all of them, timm's included
    layers = [module for module in model.modules() if isinstance(module, kinds) and module.training]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]


def _buckets(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Tensors in messages of a bounded size, each of one dtype."""
    found: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        if not found or size + tensor.numel() > _BUCKET or found[-1][0].dtype != tensor.dtype:
            found.append([])
            size = 0
        found[-1].append(tensor)
        size += tensor.numel()
    return found
