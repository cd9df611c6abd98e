"""Weights from files of other people: read without running their code, laid over a network or refused."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from poise.core.misuse import Misuse, kind_and_line

_PICKLED = {".pt", ".pth", ".bin", ".ckpt", ".tar"}
# In order of preference: averaged weights are what their owner evaluated.
_ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model_state", "model", "net", "network")
_PREFIXES = ("module.", "_orig_mod.", "network.", "model.")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a file, under the names they have there.

    Args:
        path: the file.
        tensors: its weights and buffers, on the CPU; at least one.
        entry: the entry of the file under which they stood, e.g. ``state_dict_ema``; empty for a plain state dict.
    """

    path: Path
    tensors: dict[str, Tensor]
    entry: str = ""

    def readings(self) -> Iterator[dict[str, Tensor]]:
        """The tensors as named in the file, then with wrappers' prefixes taken off one by one."""
        tensors = self.tensors
        yield tensors
        while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            yield tensors

    def fitted(self, expected: Collection[str]) -> dict[str, Tensor]:
        """The reading that shares most names with a network, the shortest names among equals."""
        return max(reversed(list(self.readings())), key=lambda reading: len(reading.keys() & set(expected)))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a state dict, plain or nested in a training checkpoint, from safetensors or from a file of `torch.save`.

    Nothing foreign is executed: pickles are read with ``torch.load(weights_only=True)``.

    Raises:
        Misuse: for a file that is absent, of an unknown kind, damaged, without weights, or that only foreign code
            could read.
    """
    if path.is_dir():
        raise Misuse(f"{path} is a folder; give a file of weights, or a run folder as the address run:{path}")
    if not path.is_file():
        raise Misuse(f"no file of weights at {path}")
    if path.suffix == ".safetensors":
        return Checkpoint(path, read_safetensors(path))
    if path.suffix not in _PICKLED:
        kinds = ", ".join(sorted({".safetensors", *_PICKLED}))
        raise Misuse(f"{path.name} is not a file of weights by its ending; known: {kinds}")
    content = _unpickled(path)
    entry = next((name for name in _ENTRIES if isinstance(content.get(name), Mapping) and content[name]), "")
    tensors = {str(name): value for name, value in (content[entry] if entry else content).items()}
    # AveragedModel counts its updates in a tensor beside the network.
    tensors = {k: v for k, v in tensors.items() if isinstance(v, Tensor) and k != "n_averaged"}
    if not tensors:
        raise Misuse(f"{path} holds no weights; its entries: {', '.join(map(str, list(content)[:8])) or 'none'}")
    return Checkpoint(path, tensors, entry)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        Misuse: for a damaged or an empty file.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise Misuse(f"{path} is damaged or cut short: {error}") from None
    if not tensors:
        raise Misuse(f"{path} holds no weights")
    return tensors


def _unpickled(path: Path) -> Mapping[Any, Any]:
    try:
        # timm's own training checkpoints carry their arguments in a Namespace, which holds plain data.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Misuse(
            f"{path} can only be read by running code it names, which poise never does; "
            "where you trust it, load it yourself and save its state_dict() alone"
        ) from None
    except (EOFError, RuntimeError, LookupError, ValueError, OSError) as error:
        raise Misuse(f"{path} is damaged or cut short: {kind_and_line(error)}") from None
    if not isinstance(content, Mapping):
        raise Misuse(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def lay_over(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a network that has exactly these names and shapes, in place.

    Raises:
        Misuse: for tensors that are missing, unexpected, of another shape, or hold what is no number, and for infinite
            weights (buffers, such as masks, may be infinite); the network is then untouched.
    """
    if not fits(network, tensors):
        raise Misuse(mismatch(network, tensors, path))
    weights = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and (tensor.isnan() | (tensor.isinf() & (name in weights))).any():
            raise Misuse(f"{path}: {name} holds values that are no finite numbers; what wrote it had diverged")
    network.load_state_dict(dict(tensors), strict=True)


def fits(network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether names and shapes are exactly those of the network."""
    own = network.state_dict()
    return own.keys() == tensors.keys() and all(own[name].shape == tensors[name].shape for name in own)


def mismatch(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> str:
    """One line on how the tensors of a file differ from those of a network."""
    own = network.state_dict()
    differences = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": [n for n in own if n in tensors and own[n].shape != tensors[n].shape],
    }
    parts = [
        f"{len(names)} {'tensors ' if index == 0 else ''}{kind}" + (f" (first: {names[0]})" if names else "")
        for index, (kind, names) in enumerate(differences.items())
        if names or index < len(differences) - 1
    ]
    return f"{path} is a checkpoint of another architecture: {', '.join(parts)}"
