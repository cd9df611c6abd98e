"""What every soundness check promises, and what each of the three kinds is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import nn

from poise.core.batch import Batch
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.evaluation.profile import Profile
from poise.evaluation.soundness.finding import Finding, Status
from poise.evaluation.soundness.probing import undisturbed

Given = TypeVar("Given")


@dataclass(frozen=True)
class Subject:
    """A model that is about to be attacked, with images to probe it on.

    Args:
        model: maps images in [0, 1] to logits.
        batch: a few dozen labelled images on the model's device.
        threat: what the attacker may do.
        stream: randomness of the probes.
    """

    model: nn.Module
    batch: Batch
    threat: Threat
    stream: Stream


class Check(ABC, Generic[Given]):
    """One way in which an evaluation can mislead, and how it shows.

    A docstring says what the check looks for, why that matters and who said so, how it decides, what it cannot see, and
    its cost in passes of the model.
    """

    name: ClassVar[str]
    """Under which findings, reports and overrides know the check."""
    meaning: ClassVar[str]
    """What a finding means, in one line."""

    @abstractmethod
    def inspect(self, given: Given) -> Finding:
        """Look, and leave everything as it was."""

    def finding(self, status: Status, evidence: str) -> Finding:
        """A finding of this check."""
        return Finding(check=self.name, status=status, evidence=evidence)


class ModelCheck(Check[Subject]):
    """A check of a model before any attack, which sees it as verdicts will: in eval mode."""

    def inspect(self, given: Subject) -> Finding:
        """See `Check.inspect`."""
        with undisturbed(given.model, given.stream.fold("soundness", self.name)):
            return self.look(given)

    @abstractmethod
    def look(self, given: Subject) -> Finding:
        """Look; whatever this disturbs is put back by `inspect`."""


class ProfileCheck(Check[Profile]):
    """A check that is arithmetic on a finished profile and needs no model."""
