"""Classifiers and where they come from: the contract, the sources of models, and how a model lies on disk.

A model here maps images in [0, 1] to logits and knows how it can be rebuilt; how it is attacked, trained or judged is
no business of this room, which imports only `poise.core`. Start with `classifier`, then `sources`.
"""

from poise.models.blueprint import Blueprint
from poise.models.classifier import Classifier
from poise.models.saving import load_model, notes_of, save_model
from poise.models.smoothed import Smoothed, SmoothedClassifier, Vote, smooth
from poise.models.sources import check_address, open_model

__all__ = [
    "Blueprint",
    "Classifier",
    "Smoothed",
    "SmoothedClassifier",
    "Vote",
    "check_address",
    "load_model",
    "notes_of",
    "open_model",
    "save_model",
    "smooth",
]
