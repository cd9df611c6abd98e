"""Every question that the page can ask of a model, an image and an attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from poise.commands.page.answers import Attacked, Outputs, Proof, Shown
from poise.commands.page.attacking import attack
from poise.commands.page.scale import Scale
from poise.commands.page.uploads import Limits, read_upload
from poise.core.files import digest_tensors
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import ImageSet, InMemory
from poise.evaluation.certificates.certification import Certification, certify
from poise.models import Classifier
from poise.models.mixing import MixedClassifier
from poise.models.mixing.logspace import log_weights

Probabilities = Float[Tensor, " classes"]


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A model with the images to show it on, an attack, and a way to prove.

    The classifier is put into eval mode, and its parameters ask for no gradients from then on, so that answers may be
    computed side by side.

    Args:
        classifier: a model, or a mixture, whose branches are then shown beside it.
        images: to pick from; they give size and classes.
        threat: norm of attacks and radii; twice its epsilon is where the slider ends.
        certification: how radii are proven; None for no radii.
        limits: of uploads.
        steps: of the attack, at least 1.
        timeout: seconds that an attack may take, above 0.
        seed: decides the attack's random starts.

    Raises:
        Misuse: for values outside what is said above, and for images that are neither grey nor RGB.
    """

    classifier: Classifier
    images: ImageSet
    threat: Threat
    certification: Certification | None = None
    limits: Limits = field(default_factory=Limits)
    steps: int = 50
    timeout: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise Misuse(f"steps must be at least 1; got {self.steps}")
        if not 0 < self.timeout < float("inf"):
            raise Misuse(f"timeout is a number of seconds above 0; got {self.timeout}")
        if len(self.images.shape) != 3 or self.images.shape[0] not in {1, 3}:
            raise Misuse(f"the page shows grey and RGB images; {self.images.address} has shape {self.images.shape}")
        Scale.of(self.threat)
        self.classifier.eval().requires_grad_(False)

    @cached_property
    def scale(self) -> Scale:
        """The slider of epsilon."""
        return Scale.of(self.threat)

    @property
    def mixture(self) -> MixedClassifier | None:
        """The classifier, if it is a mixture."""
        return self.classifier if isinstance(self.classifier, MixedClassifier) else None

    def picture(self, row: int) -> tuple[Float[Tensor, "1 *shape"], int]:
        """An image of the data and its class; the model is not asked.

        Args:
            row: its place among `images`.

        Raises:
            Misuse: for a row that is not there, and an image that cannot be decoded.
        """
        if not 0 <= row < len(self.images):
            raise Misuse(f"there are {len(self.images)} images to pick from; got number {row}")
        return self.images.images(torch.tensor([row])), int(self.images.labels[row])

    def example(self, row: int) -> Shown:
        """An image of the data, with what the model says of it; see `picture`."""
        image, label = self.picture(row)
        return self._shown(self.images.ids[row], image.to(self.classifier.device), label)

    def upload(self, content: bytes) -> Shown:
        """An uploaded image.

        Raises:
            Misuse: see `read_upload`.
        """
        image = read_upload(content, self.images.shape, self.limits).to(self.classifier.device)
        return self._shown(f"upload {digest_tensors([('pixels', image)])[:8]}", image, None)

    def predictions(self, outputs: Outputs, alpha: float | None) -> Mapping[str, Probabilities]:
        """Probabilities by the name of who gives them: model; or standard, robust and mixed. Nothing is run for them.

        Args:
            outputs: of the image.
            alpha: the robust branch's weight, in [0, 1]; None for the run's own. Without meaning for a single model.

        Raises:
            Misuse: for an alpha outside [0, 1].
        """
        if self.mixture is None:
            return {"model": outputs.logits[0].softmax(1)[0]}
        mixed = self._at(alpha)
        assert isinstance(mixed, MixedClassifier)  # noqa: S101 - a mixture at any alpha is one
        standard, robust = outputs.logits
        said = mixed.network.of_outputs(standard, robust, None if mixed.gate is None else outputs.raw)
        return {"standard": standard.softmax(1)[0], "robust": robust.softmax(1)[0], "mixed": said.exp()[0]}

    def own_alpha(self, outputs: Outputs) -> float | None:
        """The robust branch's weight that the run itself gives an image; None for a single model."""
        if self.mixture is None or outputs.raw is None:
            return None if self.mixture is None else self.mixture.alpha_low
        return float(log_weights(outputs.raw.double(), self.mixture.alpha_low, self.mixture.alpha_high)[1].exp())

    def prediction(self, shown: Shown, alpha: float | None) -> int:
        """The class that the model, or the mixture at an alpha, gives an image."""
        return int(list(self.predictions(shown.outputs, alpha).values())[-1].argmax())

    def attack(self, shown: Shown, alpha: float | None, value: float) -> Attacked:
        """Lead the prediction on an image away from what it is.

        Args:
            shown: the image.
            alpha: see `predictions`; the mixture at this alpha is attacked.
            value: of the slider of epsilon, above 0.

        Raises:
            Misuse: for values that the sliders do not have.
            Failure: when the time is up.
        """
        threat = Threat(norm=self.threat.norm, epsilon=self.scale.epsilon(value))
        if not threat.epsilon:
            raise Misuse("at epsilon 0 there is nothing to attack; move the slider")
        attempt = attack(
            self._at(alpha),
            shown.image,
            shown.key.to(shown.image.device),
            self.prediction(shown, alpha),
            threat,
            steps=self.steps,
            seconds=self.timeout,
            stream=Stream.seeded(self.seed).fold("demo"),
        )
        return Attacked(of=shown.name, alpha=alpha, attempt=attempt, outputs=self._outputs(attempt.image))

    def prove(self, shown: Shown, alpha: float | None) -> Proof:
        """The radius within which the prediction on an image is proven to stay what it is."""
        if self.certification is None:
            return Proof(of=shown.name, alpha=alpha, reason="certificates are switched off")
        model, prediction = self._at(alpha), self.prediction(shown, alpha)
        alone = InMemory(shown.name, model.classes, (shown.name,), torch.tensor([prediction]), shown.image)
        empty = Proof(of=shown.name, alpha=alpha)
        try:
            return replace(empty, certificate=certify(model, alone, self.certification))
        except Misuse as error:
            return replace(empty, reason=str(error))
        except Exception as error:  # noqa: BLE001 - networks refuse to be traced in every way that Python has
            return replace(empty, reason=f"the network cannot be taken apart ({type(error).__name__})")

    def _at(self, alpha: float | None) -> Classifier:
        return self.classifier if self.mixture is None or alpha is None else self.mixture.at(alpha)

    def _shown(self, name: str, image: Tensor, label: int | None) -> Shown:
        image = image.to(self.classifier.dtype)
        return Shown(name=name, image=image, label=label, outputs=self._outputs(image))

    @torch.no_grad()
    def _outputs(self, image: Tensor) -> Outputs:
        if self.mixture is None:
            return Outputs((self.classifier(image),))
        standard, robust, raw = self.mixture.network.seen(image)
        return Outputs((standard, robust), raw)
