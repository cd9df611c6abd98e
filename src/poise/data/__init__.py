"""Where images come from: addresses, sources, splits, loaders, augmentation and the ids that all evidence hangs on.

Nothing here knows a model, an attack or a training loop, and of poise it imports only `poise.core`. Start with
`dataset`, which states what a set promises, then `addresses`, which opens one.
"""

from poise.data.addresses import open_data
from poise.data.augment import AUGMENTATIONS, Augmentation, augment, check_augmentation
from poise.data.dataset import ImageSet
from poise.data.lazy import Lazy
from poise.data.loader import batches, batches_per_epoch
from poise.data.memory import InMemory, decoded
from poise.data.repeats import Repeats, repeats
from poise.data.splits import Split, Splits, sample, split

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "ImageSet",
    "InMemory",
    "Lazy",
    "Repeats",
    "Split",
    "Splits",
    "augment",
    "batches",
    "batches_per_epoch",
    "check_augmentation",
    "decoded",
    "open_data",
    "repeats",
    "sample",
    "split",
]
