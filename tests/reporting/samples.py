"""Small profiles whose figures are known by counting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poise.evaluation import Header, Profile
from poise.reporting import Subject


def header(**changes) -> Header:
    words = {
        "norm": "linf",
        "epsilons": (0.0, 1 / 255, 2 / 255),
        "suite": "pgd",
        "mode": "bisect",
        "proposing": "fp32",
        "split": "test",
        "seed": 7,
        "model": "a" * 32,
        "model_address": "run:runs/a",
        "data": "d" * 32,
        "data_address": "digits:test",
        "classes": ("zero", "one"),
        "versions": {"poise": "0.1.0", "torch": "2.11.0"},
    }
    return Header(**words | changes)


def profile(held: Sequence[int], **changes) -> Profile:
    """A profile of `images` images (by default 10), the first `held[k]` of which withstand grid point k."""
    images = changes.pop("images", 10)
    broken = np.array([sum(index < count for count in held) for index in range(images)])
    labels = np.zeros(images, dtype=np.int64)
    return Profile(
        header=header(**changes),
        ids=tuple(f"image-{index}" for index in range(images)),
        labels=labels,
        predictions=(broken == 0).astype(np.int64),
        margins=np.where(broken > 0, 1.0, -1.0),
        robust_to=broken - 1,
        broken_from=broken,
        broken_by=tuple("clean" if at == 0 else "pgd" if at < len(held) else "" for at in broken),
    )


def history(epochs: int = 3) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "epsilon": epoch / 255,
            "learning_rate": 0.1 / (epoch + 1),
            "seconds": 1.5,
            "train/loss": 2.0 - epoch / 2,
            "train/accuracy": 0.25 * (epoch + 1),
            "validation/clean": 0.5,
            "validation/robust": 0.125 * epoch,
        }
        for epoch in range(epochs)
    ]


def subject(name: str = "new", held: Sequence[int] = (9, 8, 5), **changes) -> Subject:
    return Subject(name, profile(held, **changes), history(), "data: digits\n", 4.5)
