"""What a classifier says of the images as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from poise.core.losses import margin, misclassified
from poise.core.modes import evaluating
from poise.data import ImageSet, batches
from poise.models import Classifier


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


@torch.no_grad()
def clean_pass(classifier: Classifier, images: ImageSet, batch_size: int, targets: int) -> Clean:
    """One forward pass over all images, in eval mode and full precision.

    Args:
        classifier: the model, on the device to work on.
        images: the examples.
        batch_size: examples per forward pass.
        targets: how many rivals to keep, at most the number of classes minus one.
    """
    count = len(images)
    predictions, margins = np.empty(count, dtype=np.int64), np.empty(count)
    right, rivals = np.empty(count, dtype=bool), np.empty((count, targets), dtype=np.int32)
    done = 0
    with evaluating(classifier):
        for batch in batches(images, batch_size=batch_size, device=classifier.device):
            logits = classifier(batch.images).double()
            rows = slice(done, done + len(batch))
            predictions[rows] = logits.argmax(1).cpu()
            right[rows] = (~misclassified(logits, batch.labels)).cpu()
            margins[rows] = margin(logits, batch.labels).cpu()
            wrong = logits.scatter(1, batch.labels[:, None], -torch.inf)
            rivals[rows] = wrong.topk(targets, dim=1).indices.cpu()
            done += len(batch)
    return Clean(predictions, right, margins, rivals)
