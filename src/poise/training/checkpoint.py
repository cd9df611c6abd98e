"""The state of an interrupted training on disk: weights, optimiser, position; whole or absent, and never pickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from poise.core.files import write_text, written_whole
from poise.core.misuse import Misuse, first_line
from poise.training.sharding import gathered, is_shared, shared_like

Tensors = Mapping[str, Tensor]

_SEPARATOR = "|"


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Args:
        epoch: number of the epoch in progress, from 0.
        batch: batches of it that are done.
        sums: totals of the epoch's terms so far, over examples, for its mean.
        seconds: time spent on the epoch so far.
        task: digest of what the training started from; a checkpoint of another is refused.
        scaler: state of the loss scaling in fp16.
        schedule: what the schedule remembers; None before it began.
        micro_batch: most images at a time in each process that were found to fit; None for all of a batch.
        best: figures of the epoch whose weights are the best so far; None where the last ones are kept.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] | None = None
    seconds: float = 0.0
    task: str = ""
    scaler: dict[str, float] | None = None
    schedule: dict[str, float | None] | None = None
    micro_batch: int | None = None
    best: dict[str, float] | None = None


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, memory: Tensors, *, keep: bool) -> dict[str, Tensors]:
    """All tensors of a checkpoint, whole, by file; every process must call it.

    Those that lie in the host's memory come as they are, so that they are to be saved before the next step.

    Args:
        model: the network.
        optimizer: its optimiser; the state is kept by parameter name, so it survives a change of processes.
        memory: what the objective remembers.
        keep: whether this process wants them; with False they come out empty.
    """
    parts = {"model": model.state_dict(), "optimizer": _optimizer_state(model, optimizer), "objective": memory}
    return {
        file: {name: tensor.detach().cpu() for name, tensor in gathered(tensors) if keep}
        for file, tensors in parts.items()
    }


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensors], position: Position) -> None:
    """Write a checkpoint and then remove the older ones; dying at any instant leaves one that is whole.

    Args:
        folder: the run's folder of checkpoints.
        tensors: what `snapshot` gives.
        position: where the training stands.
    """
    name = f"epoch-{position.epoch:05d}-batch-{position.batch:07d}"
    partial, target = folder / f".{name}.partial", folder / name
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for file, found in tensors.items():
            save_tensors(partial / f"{file}.safetensors", found)
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
        model: the network.
        optimizer: its optimiser.
        task: digest of what the training starts from.
        memory: what the objective remembers at the start.

    Raises:
        Misuse: if the checkpoint is of another model, optimiser or objective, or damaged.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        return Position(task=task), dict(memory)
    position = position_of(newest)
    try:
        found = model.state_dict()
        kept = load_file(newest / "model.safetensors")
        model.load_state_dict({name: shared_like(value, found.get(name, value)) for name, value in kept.items()})
        _load_optimizer(load_file(newest / "optimizer.safetensors"), model, optimizer)
        kept = load_file(newest / "objective.safetensors")
        remembered = {name: shared_like(kept[name].to(value.device), value) for name, value in memory.items()}
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        reason = first_line(error)
        raise Misuse(
            f"{newest} does not fit this run: {reason}; resume with what it was made with, or start anew"
        ) from error
    if position.task != task:
        raise Misuse(f"{newest} is of another run: the training images, or the weights it started from, have changed")
    return position, remembered


def save_tensors(path: Path, tensors: Tensors) -> None:
    """Write tensors to a file that is whole or absent.

    Args:
        path: the file; folders on the way are made.
        tensors: on the CPU; some may share memory.
    """
    with written_whole(path) as partial:
        partial.write_bytes(save(_unshared(tensors)))  # a full disk is then an OSError like any other


def _unshared(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: in one piece, and no two in the same memory; only those are copied."""
    found, taken = {}, set()
    for name, tensor in tensors.items():
        whole = tensor.contiguous()
        place = whole.untyped_storage().data_ptr()
        found[name] = whole.clone() if place in taken else whole
        taken.add(place)
    return found


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}{_SEPARATOR}{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if value is not None
    }


def _load_optimizer(flat: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimiser's own state; learning rates and the like are functions of the recipe and the step."""
    parameters = dict(model.named_parameters())
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    places = {parameter: index for index, parameter in enumerate(order)}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        parameter, key = name.split(_SEPARATOR)
        own = parameters[parameter]
        state.setdefault(places[own], {})[key] = _laid_like(tensor, own) if tensor.shape == own.shape else tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _laid_like(tensor: Tensor, own: Tensor) -> Tensor:
    """A tensor laid out in memory as its weight is, or shared out: fused steps read both in the order of memory."""
    return shared_like(tensor, own) if is_shared(own) else torch.empty_like(own, dtype=tensor.dtype).copy_(tensor)


def _whole(folder: Path) -> list[Path]:
    """Checkpoints that were finished, oldest first."""
    return sorted(path for path in folder.glob("epoch-*-batch-*") if (path / "position.json").is_file())


def position_of(checkpoint: Path) -> Position:
    """Where a training stood when it left this checkpoint.

    Raises:
        Misuse: if it is damaged.
    """
    file = checkpoint / "position.json"
    try:
        return Position(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise Misuse(f"{file} is damaged ({error}); start the run anew") from error


def newest_checkpoint(folder: Path) -> Path | None:
    """The folder of the newest checkpoint that was finished, if there is one."""
    found = _whole(folder)
    return found[-1] if found else None
