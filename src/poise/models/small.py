"""A small convolutional network for small images: `small`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class SmallNetwork(nn.Module):
    """Three convolutions (32, 64, 64 channels; the second halves the image), average pooling and a linear head.

    About 56,000 parameters; learns 8x8 digits within seconds on a CPU. Takes images of any size from 1x1 on.

    Args:
        num_classes: number of logits, at least 1.
        in_chans: channels of an image.
    """

    def __init__(self, num_classes: int, in_chans: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(_block(in_chans, 32), _block(32, 64, stride=2), _block(64, 64))
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of normalised images."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits

    def get_classifier(self) -> nn.Linear:
        """The head, under the name that timm gives it."""
        return self.head

    def group_matcher(self, *, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002
        """How parameters group into layers, in the form of timm: a pattern of their names for each kind of layer."""
        return {"blocks": r"^features\.(\d+)"}

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one, randomly initialised from PyTorch's global generator."""
        self.head = nn.Linear(64, num_classes)


def _block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
