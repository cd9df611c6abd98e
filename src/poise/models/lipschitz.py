"""A network that is 1-Lipschitz by construction: `lipschitz`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_GROUP = 2
_FEATURES = 128
_SHARPNESS = 6.0
_LEAST = 1e-12


class LipschitzNetwork(nn.Module):
    """Convolutions and dense layers that cannot stretch a distance, with GroupSort between them.

    Weights are almost-orthogonal layers (AOL; Prach & Lampert 2022): each input channel is divided by the root of the
    row sum of |W^T W|, after which the layer's spectral norm is at most 1 whatever the weights; they are trained like
    any others. GroupSort (Anil, Lucas & Grosse 2019) keeps distances and, unlike ReLU, gradients. The logits are
    6 times a 1-Lipschitz function of the normalised image: the smaller this factor, the wider the margins that
    cross-entropy asks for, and the fewer images that get one.

    Args:
        num_classes: number of logits, at least 1.
        in_chans: channels of an image.
    """

    def __init__(self, num_classes: int, in_chans: int = 1) -> None:
        super().__init__()
        self.first = AlmostOrthogonal(in_chans, 32, 3)
        self.second = AlmostOrthogonal(32, 32, 3)
        self.third = AlmostOrthogonal(_FEATURES, _FEATURES, 1)
        self.head = nn.Linear(_FEATURES, num_classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of normalised images; their height and width must be even."""
        features = group_sort(self.first(images))
        features = group_sort(self.second(features))
        features = group_sort(self.third(_quarters(features)))
        height, width = features.shape[2:]
        # A mean over m places shrinks distances by the root of m.
        pooled = features.mean(dim=(2, 3)) * (height * width) ** 0.5
        weight = self.head.weight * rescaling(self.head.weight[:, :, None, None])[None]
        return functional.linear(pooled, _SHARPNESS * weight, self.head.bias)

    def get_classifier(self) -> nn.Linear:
        """The head, under the name that timm gives it."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one, randomly initialised from PyTorch's global generator."""
        self.head = nn.Linear(_FEATURES, num_classes)


class AlmostOrthogonal(nn.Module):
    """A convolution with zero padding, stride 1 and the spectral norm of at most 1.

    Args:
        channels: channels of its input.
        width: channels of its output.
        side: height and width of the kernel, odd.
    """

    def __init__(self, channels: int, width: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, channels, side, side))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.orthogonal_(self.weight)

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width h w"]:
        """Features of the same height and width."""
        weight = self.weight * rescaling(self.weight)[None, :, None, None]
        return functional.conv2d(features, weight, self.bias, padding=self.weight.shape[-1] // 2)


def rescaling(weight: Float[Tensor, "out channels height width"]) -> Float[Tensor, " channels"]:
    """What each input channel is multiplied by for the layer to be 1-Lipschitz: (sum_j |W^T W|_ij)^(-1/2)."""
    columns = weight.transpose(0, 1)
    products = functional.conv2d(columns, columns, padding=weight.shape[-1] - 1)
    return products.abs().sum(dim=(1, 2, 3)).clamp(min=_LEAST).rsqrt()


def group_sort(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Pairs of channels, each in ascending order."""
    count, channels, *size = features.shape
    grouped = features.reshape(count, channels // _GROUP, _GROUP, *size)
    return grouped.sort(dim=2).values.reshape(features.shape)


def _quarters(features: Tensor) -> Tensor:
    """Every 2 x 2 square of pixels as one pixel of four times the channels."""
    return functional.pixel_unshuffle(features, 2)
