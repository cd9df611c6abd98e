"""Weights shared out among processes, so that none holds all of a training's memory: PyTorch's fully sharded kind."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.misuse import Misuse
from poise.core.modes import BATCH_NORM
from poise.core.processes import process_state
from poise.models import Classifier
from poise.objectives import Objective
from poise.training.options import Training

FLAG = "ACCELERATE_USE_FSDP"
"""Where `accelerate launch --use_fsdp` says that it was asked to."""

_NO_BLOCKS = (BATCH_NORM, nn.ModuleList, nn.ModuleDict)
"""Modules with parts that are no blocks: timm's batch norms with their activations, and lists, which nobody calls."""


def sharded() -> bool:
    """Whether the launcher wants the weights shared out, and there is more than one process to do so."""
    return told(FLAG) and process_state().num_processes > 1


def check_sharding(objective: Objective, options: Training) -> None:
    """Refuse what does not go with weights that are shared out.

    Args:
        objective: what a step minimises.
        options: of the training.

    Raises:
        Misuse: for objectives that compute with other weights than the network's, compilation, fp16, and what the
            launcher was asked for beyond it: weights in the host's memory, activations computed again.
    """
    if not sharded():
        return
    refused = {
        f"the objective {type(objective).__name__}": not objective.shardable,
        "training.compile": options.compile,
        "fp16 (take bf16)": options.precision == "fp16",
        "--fsdp_offload_params": told("FSDP_OFFLOAD_PARAMS"),
        "--fsdp_activation_checkpointing": told("FSDP_ACTIVATION_CHECKPOINTING"),
    }
    if found := [what for what, is_so in refused.items() if is_so]:
        raise Misuse(f"{found[0]} does not go with FSDP; launch with plain data parallelism (--multi_gpu)")


def shared_out(classifier: Classifier, device: torch.device) -> Classifier:
    """A copy of a classifier whose weights are shared out among all processes; each gathers a block while it passes it.

    A unit that is gathered at a time is a repeated block, and at last what lies outside of such blocks. Gradients come
    out summed over the processes. All of them must take the same passes, as each pass gathers.

    Args:
        classifier: stays as it is.
        device: where the copy's parts go.
    """
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 - a second, which few need
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    again = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
    twin: Classifier = copy.deepcopy(classifier).to(device=device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mesh = init_device_mesh(device.type, (process_state().num_processes,))
    for part in (*_blocks(twin.network), twin.network):
        unit = fully_shard(part, mesh=mesh, reshard_after_forward=again)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    return twin


def is_shared(tensor: Tensor) -> bool:
    """Whether each process holds a part of it: whether it is a `DTensor`, whose import takes a second."""
    return hasattr(tensor, "full_tensor")


def gathered(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors one after the other, each whole; every process must go through all of them."""
    tensor: Any
    for name, tensor in tensors.items():
        yield name, tensor.full_tensor() if is_shared(tensor) else tensor


def shared_like(whole: Tensor, part: Tensor) -> Tensor:
    """A whole tensor, which every process has, shared out as another one is; itself where that one is whole."""
    if not is_shared(part):
        return whole
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 - as above

    form: Any = part
    return distribute_tensor(whole.to(part.device), form.device_mesh, form.placements, src_data_rank=None)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    held: Any = tensor
    part: Tensor = held.to_local() if is_shared(tensor) else tensor
    return part


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The innermost repeated blocks: modules with parts that stand beside another of their class."""
    found: set[nn.Module] = set()
    for module in network.modules():
        parts = [child for child in module.children() if list(child.children()) and not isinstance(child, _NO_BLOCKS)]
        kinds = Counter(map(type, parts))
        found |= {part for part in parts if kinds[type(part)] > 1}
    return [
        block
        for block in network.modules()
        if block in found and list(block.parameters()) and not found & (set(block.modules()) - {block})
    ]


def told(variable: str) -> bool:
    """Whether the launcher, in an environment variable of its own, says yes."""
    return os.environ.get(variable, "").lower() in {"true", "1"}
