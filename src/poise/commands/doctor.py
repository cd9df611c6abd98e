"""What a person copies into an issue: versions, devices, and what this machine can run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time

import torch
from torch import nn

from poise.core.modes import Precision, evaluating, precision
from poise.models import open_model

_REQUIRED = ("poise", "torch", "torchvision", "timm", "accelerate", "numpy", "pyarrow", "jsonargparse", "plotly")
_CLASSES = tuple(f"class-{number}" for number in range(10))
_SHAPE = (3, 32, 32)
_IMAGES = 16
_REPETITIONS = 3


def doctor() -> str:
    """Print versions, devices and measured speed, in a form that can be pasted into an issue.

    Nothing in it names a person or a folder. The speed is that of a forward pass of a ResNet-18 on 16 images of
    32x32 pixels, the median of three, in each precision that each device knows: what a slow run can be held against.

    Returns:
        The text that was printed.
    """
    sections = {
        "versions": {name: _version(name) for name in _REQUIRED} | {"python": platform.python_version()},
        "extras": {name: _version(name) for name in _extras()},
        "machine": _machine(),
        f"resnet18, {_IMAGES} images of 32x32, one forward pass": _speeds(),
    }
    text = "\n".join(line for title, facts in sections.items() for line in _lines(title, facts))
    print(text)  # noqa: T201 - the result
    return text


def _lines(title: str, facts: dict[str, str]) -> list[str]:
    width = max(map(len, facts), default=0)
    return [title, *(f"  {name:<{width}}  {fact}" for name, fact in facts.items())]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _extras() -> list[str]:
    """Names of the packages that poise's extras would install, without those for its own development."""
    found = set()
    for requirement in importlib.metadata.requires("poise") or ():
        name, marked, marker = requirement.partition(";")
        if marked and "extra ==" in marker and "dev" not in marker:
            found.add("".join(letter if letter.isalnum() or letter in "-_." else " " for letter in name).split()[0])
    return sorted(found)


def _machine() -> dict[str, str]:
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
        "threads": f"{torch.get_num_threads()}",
        "CPU instructions": torch.backends.cpu.get_cpu_capability(),
    }
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        facts[f"GPU {index}"] = (
            f"{found.name}, {found.total_memory / 2**30:.0f} GiB, capability {found.major}.{found.minor}"
        )
    return facts if torch.cuda.is_available() else facts | {"GPU": "none that PyTorch can use"}


def _speeds() -> dict[str, str]:
    kinds: dict[str, tuple[Precision, ...]] = {"cpu": ("fp32", "bf16")}
    if torch.cuda.is_available():
        kinds["cuda"] = ("fp32", "bf16", "fp16")
    return {
        f"{device} {kind}{', channels last' if kind != 'fp32' else ''}": f"{1000 * _pass(device, kind):.1f} ms"
        for device, names in kinds.items()
        for kind in names
    }


def _pass(device: str, kind: Precision) -> float:
    """Median seconds of a forward pass."""
    memory = torch.preserve_format if kind == "fp32" else torch.channels_last
    model: nn.Module = open_model("resnet18", classes=_CLASSES, shape=_SHAPE)
    model.to(device=torch.device(device), memory_format=memory)  # type: ignore[call-overload]
    grey = torch.full((_IMAGES, *_SHAPE), 0.5, device=device)
    images = grey if kind == "fp32" else grey.contiguous(memory_format=torch.channels_last)
    spent = []
    with torch.inference_mode(), evaluating(model), precision(kind, images.device):
        for _ in range(_REPETITIONS + 1):
            began = time.perf_counter()
            model(images)
            if device == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - began)
    return statistics.median(spent[1:])
