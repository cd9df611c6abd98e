"""What the page knows of an image: the model's outputs, an attack, a proof. Values that never change once made."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from poise.commands.page.attacking import Attempt
from poise.core.streams import example_keys
from poise.evaluation.certificates.certificate import Certificate


@dataclass(frozen=True)
class Outputs:
    """All that was computed of an image by forward passes; predictions at any alpha follow from it.

    Args:
        logits: of the model; or of a mixture's standard and robust branch, in this order.
        raw: what a mixture's gate said, before its sigmoid; None without a gate.
    """

    logits: tuple[Float[Tensor, "1 classes"], ...]
    raw: Float[Tensor, " 1"] | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image on the page.

    Args:
        name: the example's id, or a digest of an uploaded image.
        image: values in [0, 1].
        label: its class; None for uploaded images.
        outputs: what the model computed of it.
    """

    name: str
    image: Float[Tensor, "1 c h w"]
    label: int | None
    outputs: Outputs

    @property
    def key(self) -> Int[Tensor, " 1"]:
        """The integer key under which the image draws random numbers."""
        return example_keys((self.name,))


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """An attempt, and what the model computed of its image.

    Args:
        of: name of the image that was attacked.
        alpha: the alpha that was attacked; None for the run's own.
        attempt: what the attack came to.
        outputs: what the model computed of the adversarial image.
    """

    of: str
    alpha: float | None
    attempt: Attempt
    outputs: Outputs


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is proven around an image.

    Args:
        of: name of the image.
        alpha: the alpha that it is proven for; None for the run's own.
        certificate: with one radius; None where nothing can be proven.
        reason: why not, in a line; "" beside a certificate.
    """

    of: str
    alpha: float | None
    certificate: Certificate | None = None
    reason: str = ""

    @property
    def radius(self) -> float:
        """Within it the prediction cannot change; in units of the image range, 0 where nothing is proven."""
        return 0.0 if self.certificate is None else float(self.certificate.radii[0])
