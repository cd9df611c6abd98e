"""Profiles made by hand."""

from __future__ import annotations

import numpy as np

from poise.evaluation import Header, Profile


def header(epsilons=(0.0, 0.1, 0.2), **changes) -> Header:
    fields = {
        "norm": "linf",
        "epsilons": tuple(epsilons),
        "suite": "pgd",
        "mode": "bisect",
        "proposing": "fp32",
        "split": "test",
        "seed": 0,
        "model": "m" * 32,
        "model_address": "run:a",
        "data": "d" * 32,
        "data_address": "digits",
        "classes": ("zero", "one"),
        "versions": {},
    }
    return Header(**fields | changes)


def profile(broken_from, epsilons=(0.0, 0.1, 0.2), robust_to=None, **changes) -> Profile:
    """A profile whose examples are broken from these grid indices on."""
    broken = np.asarray(broken_from, dtype=np.int64)
    count = len(broken)
    return Profile(
        header=header(epsilons, **changes),
        ids=tuple(f"image/{index}" for index in range(count)),
        labels=np.arange(count) % 2,
        predictions=np.where(broken == 0, (np.arange(count) + 1) % 2, np.arange(count) % 2),
        margins=np.where(broken == 0, -1.0, broken.astype(np.float64)),
        robust_to=broken - 1 if robust_to is None else np.asarray(robust_to, dtype=np.int64),
        broken_from=broken,
        broken_by=tuple("clean" if at == 0 else "pgd" if at < len(epsilons) else "" for at in broken),
    )
