"""The old model's adversarial images, opened again and shown to the new model."""

from __future__ import annotations

from pathlib import Path

from poise.commands.comparing.images import images_of
from poise.commands.opening import open_whole, placed
from poise.commands.telling.terminal import watching
from poise.core.misuse import Misuse
from poise.evaluation import Adversarials, Profile
from poise.evaluation.flips import Pair, Replay, replay

_BATCH = 128


def replayed(pair: Pair, new: str, data: str | None, kept: Adversarials) -> Replay:
    """What the new model makes of the images that broke the old one, of those examples that both were judged on.

    Args:
        pair: both profiles.
        new: the new one's address, as a person gave it.
        data: address of the clean images; by default the one in the old profile.
        kept: the images that broke the old model.

    Raises:
        Misuse: if the new model or the images cannot be opened or are others than the profiles', or no image broke the
            old model.
    """
    common = set(pair.new.ids)
    if not common.intersection(kept.ids):
        raise Misuse("no image that broke the old model was kept of these examples, so there is nothing to replay")
    images = images_of(pair.old, data)
    address = _address(new, pair.new)
    classifier = placed(open_whole(address, images)).eval()
    if classifier.digest() != pair.new.header.model:
        raise Misuse(f"{address} is another model than the new profile is about")
    parts = []
    with watching("replaying") as watch:
        for rows, moved in kept.batches(_BATCH):
            here = [place for place, row in enumerate(rows) if kept.ids[row] in common]
            if here:
                ids = [kept.ids[rows[place]] for place in here]
                parts.append(replay(classifier, pair.new, images, ids, moved[here]))
            watch(rows.stop / len(kept), {})
    return Replay.joined(parts)


def _address(new: str, profile: Profile) -> str:
    """Where the new model is: the run that was named, or what its profile says."""
    path = Path(new.removeprefix("run:"))
    address = f"run:{path.as_posix()}" if path.is_dir() else profile.header.model_address
    if not address:
        raise Misuse(f"{new} does not say which model it is about; name a run in its place")
    return address
