"""The state of an interrupted training on disk: weights, optimiser, position; whole or absent, and never pickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from poise.core.files import write_text, written_whole
from poise.core.misuse import Misuse

_SEPARATOR = "|"
_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Args:
        epoch: number of the epoch in progress, from 0.
        batch: batches of it that are done.
        sums: totals of the epoch's terms so far, for its mean.
        seconds: time spent on the epoch so far.
        task: digest of what the training started from; a checkpoint of another is refused.
        scaler: state of the loss scaling in fp16.
        schedule: what the schedule remembers; None before it began.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] | None = None
    seconds: float = 0.0
    task: str = ""
    scaler: dict[str, float] | None = None
    schedule: dict[str, float | None] | None = None


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    memory: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint and then remove the older ones; dying at any instant leaves one that is whole.

    Args:
        folder: the run's folder of checkpoints.
        model: the plain module, not its distributed wrapper.
        optimizer: its optimiser; the state is kept by parameter name, so it survives a change of processes.
        position: where the training stands.
        memory: what the objective remembers.
    """
    name = f"epoch-{position.epoch:05d}-batch-{position.batch:07d}"
    partial, target = folder / f".{name}.partial", folder / name
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _save_tensors(partial / "model.safetensors", dict(model.state_dict()))
        state: Any = get_optimizer_state_dict(model, optimizer, options=_OPTIONS)["state"]
        flat = {
            f"{parameter}{_SEPARATOR}{key}": value if isinstance(value, Tensor) else torch.tensor(value)
            for parameter, values in state.items()
            for key, value in values.items()
            if value is not None
        }
        _save_tensors(partial / "optimizer.safetensors", flat)
        _save_tensors(partial / "objective.safetensors", dict(memory))
        write_text(partial / "position.json", json.dumps(asdict(position)))
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for older in _whole(folder):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, task: str, memory: Mapping[str, Tensor]
) -> tuple[Position, dict[str, Tensor]]:
    """Bring model and optimiser to the newest whole checkpoint, and say where it stands and what it remembers.

    Args:
        folder: the run's folder of checkpoints; where it holds none, the run is at its start.
        model: the plain module.
        optimizer: its optimiser.
        task: digest of what the training starts from.
        memory: what the objective remembers at the start.

    Raises:
        Misuse: if the checkpoint is of another model, optimiser or objective, or damaged.
    """
    found = _whole(folder)
    if not found:
        return Position(task=task), dict(memory)
    newest = found[-1]
    try:
        position = Position(**json.loads((newest / "position.json").read_text(encoding="utf-8")))
        model.load_state_dict(load_file(newest / "model.safetensors"))
        _load_optimizer(load_file(newest / "optimizer.safetensors"), model, optimizer)
        kept = load_file(newest / "objective.safetensors")
        remembered = {name: kept[name].to(value.device) for name, value in memory.items()}
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise Misuse(
            f"{newest} does not fit this run: {reason}; resume with what it was made with, or start anew"
        ) from error
    if position.task != task:
        raise Misuse(f"{newest} is of another run: the training images, or the weights it started from, have changed")
    return position, remembered


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with written_whole(path) as partial:
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        partial.write_bytes(save(plain))  # a full disk is then an OSError like any other


def _load_optimizer(flat: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimiser's own state; learning rates and the like are functions of the recipe and the step."""
    template = get_optimizer_state_dict(model, optimizer, options=_OPTIONS)
    state: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        parameter, key = name.split(_SEPARATOR)
        state.setdefault(parameter, {})[key] = tensor
    if state:
        template["state"] = state  # type: ignore[assignment]
        set_optimizer_state_dict(model, optimizer, template, options=_OPTIONS)


def _whole(folder: Path) -> list[Path]:
    """Checkpoints that were finished, oldest first."""
    return sorted(path for path in folder.glob("epoch-*-batch-*") if (path / "position.json").is_file())
