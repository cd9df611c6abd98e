"""The images that a profile was made on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from poise.commands.recipe import read_recipe
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.data import ImageSet, open_data
from poise.evaluation import Profile


def images_of(profile: Profile, data: str | None) -> ImageSet:
    """The images that a profile was made on, in the order of its rows.

    Args:
        profile: verdicts on them.
        data: their address; by default the one in the profile.

    Raises:
        Misuse: if they cannot be opened, or are not those of the profile.
    """
    header = profile.header
    address = data or header.data_address
    if not address:
        raise Misuse("the profile does not say where its images are")
    kind, _, place = header.model_address.partition(":")
    folder = RunFolder(Path(place))
    recipe: dict[str, Any] = read_recipe(folder.recipe) if kind == "run" and folder.recipe.is_file() else {}
    images: ImageSet = getattr(open_data(address, image_size=recipe.get("image_size")), header.split or "test")
    row_of = {identity: row for row, identity in enumerate(images.ids)}
    missing = [identity for identity in profile.ids if identity not in row_of]
    if missing:
        raise Misuse(f"{address} has no {missing[0]!r}")
    found = images.select(torch.tensor([row_of[identity] for identity in profile.ids]))
    if header.data and not profile.partial and found.digest() != header.data:
        raise Misuse(f"{address} holds other images than the profile was made on")
    return found
