"""The network that chooses alpha image by image, from what both branches see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.models.blueprint import Option
from poise.models.classifier import Classifier
from poise.models.mixing.features import LAYERS, channels, default_layers

_BLOCKS = 2
_STRIDE = 2
_GROUPS = 8
_NARROWEST = 8

Maps = list[Tensor]


@dataclass(frozen=True, kw_only=True)
class GatePlan:
    """How a gate is built.

    Args:
        standard_layers: the layers of the standard branch that it reads: names of modules, or timm's numbers.
        robust_layers: the same for the robust branch.
        early: channels at the first layer of both branches together.
        late: channels at the second.
        width: channels of the first stage, a multiple of 8; the second has twice and the third four times as many.

    Raises:
        Misuse: for other counts of layers or channels.
    """

    standard_layers: tuple[str, ...]
    robust_layers: tuple[str, ...]
    early: int
    late: int
    width: int

    def __post_init__(self) -> None:
        if len(self.standard_layers) != LAYERS or len(self.robust_layers) != LAYERS:
            raise Misuse(
                f"a gate reads {LAYERS} layers of each branch; got {self.standard_layers} and {self.robust_layers}"
            )
        if min(self.early, self.late) < 1 or self.width < _NARROWEST or self.width % _GROUPS:
            raise Misuse(
                f"a gate needs channels to read and a width that is a multiple of {_GROUPS}; "
                f"got {self.early}, {self.late} and {self.width}"
            )

    def options(self) -> dict[str, Option]:
        """The plan as options of a blueprint."""
        return {
            "gate_standard_layers": ",".join(self.standard_layers),
            "gate_robust_layers": ",".join(self.robust_layers),
            "gate_early": self.early,
            "gate_late": self.late,
            "gate_width": self.width,
        }

    @classmethod
    def of(cls, options: Mapping[str, Option]) -> GatePlan | None:
        """Read what `options` gave; None where there is no gate."""
        if "gate_width" not in options:
            return None
        names = {
            f"{role}_layers": tuple(str(options[f"gate_{role}_layers"]).split(",")) for role in ("standard", "robust")
        }
        numbers = {name: int(str(options[f"gate_{name}"])) for name in ("early", "late", "width")}
        return cls(**names, **numbers)  # type: ignore[arg-type]


def plan_gate(
    standard: Classifier,
    robust: Classifier,
    *,
    width: float = 0.25,
    standard_layers: tuple[str, ...] | None = None,
    robust_layers: tuple[str, ...] | None = None,
) -> GatePlan:
    """A plan for a gate on top of two branches.

    Args:
        standard: the accurate branch.
        robust: the robust branch.
        width: channels of the gate's first stage in units of those at the branches' second layers; 1 is the width of
            the source, which costs more than two ResNet-18 together.
        standard_layers: layers to read, by name; by default after the first two stages.
        robust_layers: the same for the robust branch.

    Raises:
        Misuse: where nothing can be read, as of a smoothed branch, or for a width that is not positive.
    """
    if not width > 0:
        raise Misuse(f"a gate's width is a positive share of the branches' channels; got {width}")
    layers = standard_layers or default_layers(standard), robust_layers or default_layers(robust)
    first, second = channels(standard, layers[0]), channels(robust, layers[1])
    late = first[1] + second[1]
    return GatePlan(
        standard_layers=layers[0],
        robust_layers=layers[1],
        early=first[0] + second[0],
        late=late,
        width=max(_NARROWEST, round(width * late / _GROUPS) * _GROUPS),
    )


class Gate(nn.Module):
    """The mixing network of arXiv 2301.12554 (its versions V3 and V4), a small pre-activation ResNet with one output.

    Features of both branches at an early layer enter the first stage; those at a later layer join behind it; two more
    stages, a global mean and a linear layer give one number per image, positive for "trust the robust branch".

    Differences from the source: groups in place of batch normalisation, and neither batch statistics nor clamping on
    the output, so that an image's alpha depends on that image alone, in training as in use; features are standardised
    by constants measured once (`measure`); 1x1 convolutions bring both layers to the gate's width whatever the branches
    are, and maps of different size are pooled to the smaller; the width is a share of the branches'.

    Args:
        plan: what to read, and how wide to be.
    """

    early_mean: Tensor
    early_std: Tensor
    late_mean: Tensor
    late_std: Tensor

    def __init__(self, plan: GatePlan) -> None:
        super().__init__()
        self.plan = plan
        for name, count in (("early", plan.early), ("late", plan.late)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_std", torch.ones(count))
        self.enter = nn.Conv2d(plan.early, plan.width, 1, bias=False)
        self.join = nn.Conv2d(plan.late, plan.width, 1, bias=False)
        self.stages = nn.ModuleList(
            [_stage(plan.width, plan.width), _stage(plan.width, 2 * plan.width), _stage(2 * plan.width, 4 * plan.width)]
        )
        self.norm = nn.GroupNorm(_GROUPS, 4 * plan.width)
        self.score = nn.Linear(4 * plan.width, 1, bias=True)

    def forward(self, standard: Maps, robust: Maps) -> Float[Tensor, " n"]:
        """The raw gate: any real number, one per image; `Blend` confines what becomes of it.

        Args:
            standard: maps at the standard branch's two layers.
            robust: maps at the robust branch's two layers.
        """
        early = self.enter(_standardised(_joined(standard[0], robust[0]), self.early_mean, self.early_std))
        late = self.join(_standardised(_joined(standard[1], robust[1]), self.late_mean, self.late_std))
        inner = self.stages[0](early)
        inner = inner + functional.adaptive_avg_pool2d(late, inner.shape[2:])
        inner = self.stages[2](self.stages[1](inner))
        pooled = functional.relu(self.norm(inner)).mean(dim=(2, 3))
        raw: Tensor = self.score(pooled)[:, 0]
        return raw

    def options(self) -> dict[str, Option]:
        """The gate as options of a blueprint."""
        return self.plan.options()

    @torch.no_grad()
    def measure(self, standard: Maps, robust: Maps) -> None:
        """Take means and standard deviations of each channel from some images; once, before training."""
        for name, parts in (("early", (standard[0], robust[0])), ("late", (standard[1], robust[1]))):
            values = _joined(*parts).transpose(0, 1).flatten(1)
            getattr(self, f"{name}_mean").copy_(values.mean(1))
            getattr(self, f"{name}_std").copy_(values.std(1).clamp(min=1e-6))


class _Block(nn.Module):
    """Two 3x3 convolutions, each behind its activation, and a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(_GROUPS, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride=stride, bias=False)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width newh neww"]:
        active = functional.relu(self.norm1(maps))
        inner: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(active)))) + self.shortcut(maps)
        return inner


def _stage(channels: int, width: int) -> nn.Sequential:
    blocks = [_Block(channels, width, _STRIDE), *(_Block(width, width, 1) for _ in range(_BLOCKS - 1))]
    return nn.Sequential(*blocks)


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Both branches' maps side by side, pooled to the smaller size in either direction."""
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    parts = [functional.adaptive_avg_pool2d(part, size) for part in (first, second)]
    return torch.cat(parts, dim=1)


def _standardised(maps: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (maps - mean[:, None, None]) / std[:, None, None]
