"""ResNet-18 as it is used on 32x32 images: `resnet18`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_FEATURES = 512


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) with a 3x3 stem of stride 1 and no max-pool, so that 32x32 images keep their detail.

    Tensors are named as in the CIFAR networks of the robustness literature (TRADES, AWP and others: conv1, bn1, layer1
    to layer4, linear), whose checkpoints can therefore be laid over it.

    Args:
        num_classes: number of logits, at least 1.
        in_chans: channels of an image.
    """

    def __init__(self, num_classes: int, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 64, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, stride=1)
        self.layer2 = _stage(64, 128, stride=2)
        self.layer3 = _stage(128, 256, stride=2)
        self.layer4 = _stage(256, _FEATURES, stride=2)
        self.linear = nn.Linear(_FEATURES, num_classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of normalised images."""
        features = functional.relu(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits

    def get_classifier(self) -> nn.Linear:
        """The head, under the name that timm gives it."""
        return self.linear

    def group_matcher(self, *, coarse: bool = False) -> dict[str, str]:
        """How parameters group into layers, in the form of timm: a pattern of their names for each kind of layer."""
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one, randomly initialised from PyTorch's global generator."""
        self.linear = nn.Linear(_FEATURES, num_classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            projection = nn.Conv2d(channels, width, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width newh neww"]:
        """Features of the next block."""
        inner = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(features))


def _stage(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels, width, stride), BasicBlock(width, width, 1))
