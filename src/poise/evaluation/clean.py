"""What a classifier says of the images as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from poise.attacks.pool import Pool
from poise.core.batch import sent
from poise.core.losses import margin, misclassified
from poise.core.norms import refuse_outside
from poise.data import ImageSet, batches


@dataclass(frozen=True)
class Clean:
    """Clean predictions, one row per example.

    Args:
        predictions: classes of highest logit.
        right: whether they are the labels; never where a logit is NaN.
        margins: logit of the label minus the highest other one.
        rivals: the most likely wrong classes, the likeliest first: what targeted attacks aim at.
    """

    predictions: Int[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    margins: Float[np.ndarray, " n"]
    rivals: Int[np.ndarray, "n targets"]


def clean_pass(pool: Pool, images: ImageSet, targets: int) -> Clean:
    """One forward pass over all images, in eval mode and full precision; as many as the pool averages over.

    Args:
        pool: asks the model, and knows how many images it takes at a time.
        images: the examples.
        targets: how many rivals to keep, at most the number of classes minus one.

    Raises:
        Misuse: for images that leave the box [0, 1], where attacks would find nothing.
    """
    count = len(images)
    predictions, margins = np.empty(count, dtype=np.int64), np.empty(count)
    right, rivals = np.empty(count, dtype=bool), np.empty((count, targets), dtype=np.int32)
    done = 0
    with pool.open():
        if count:
            pool.measure(sent(images.images(torch.zeros(1, dtype=torch.int64)), pool.device))
        for batch in batches(images, batch_size=pool.at_once, device=pool.device):
            rows = slice(done, done + len(batch))
            refuse_outside(batch.images, images.ids[rows])
            logits = pool.logits(batch.images).double()
            predictions[rows] = logits.argmax(1).cpu()
            right[rows] = (~misclassified(logits, batch.labels)).cpu()
            margins[rows] = margin(logits, batch.labels).cpu()
            wrong = logits.scatter(1, batch.labels[:, None], -torch.inf)
            rivals[rows] = wrong.topk(targets, dim=1).indices.cpu()
            done += len(batch)
    return Clean(predictions, right, margins, rivals)
