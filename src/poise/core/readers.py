"""Which layers may be merged: convolutions whose output a batch norm, and nothing else, reads.

One pass is watched, operation by operation. What an operation reads does not depend on the values in a tensor, so that
a reader that rests on these images, such as a unit that fires only where something is odd, is seen as well. A model
that looks at values to decide what it does next may read other things on other images, and nothing of it is merged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_WITH_ACTIVATION = "BatchNormAct2d"
_LOOKING = {"_local_scalar_dense", "is_nonzero", "equal"}
"""Operations that hand a tensor's value to Python."""
_NOBODY = ""
"""Who reads where none of the watched layers is at work."""


def mergeable(model: nn.Module, images: Float[Tensor, "n *shape"]) -> dict[str, str]:
    """Names of convolutions, each with the batch norm that alone reads its output.

    Only layers that are called once, in the ordinary way: with neither hooks nor a `forward` of their own.

    Args:
        model: in eval mode.
        images: a few examples.
    """
    layers = {name: module for name, module in model.named_modules() if _convolution(module) or _norm(module)}
    with ExitStack() as stack:
        watch = stack.enter_context(_Watch(layers))
        for name, module in layers.items():
            for handle in watch.hooks(name, module):
                stack.callback(handle.remove)
        model(images)
    found: dict[str, str] = watch.pairs()
    return found


def with_activation(norm: nn.Module) -> bool:
    """Whether a batch norm is timm's, which has a `drop` and an `act` behind it."""
    return type(norm).__name__ == _WITH_ACTIVATION


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's
    """Remembers who reads what convolutions write, and their weights, while it is active."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layers = layers
        self._convolutions = {name for name, layer in layers.items() if _convolution(layer)}
        self._at_work = _NOBODY
        self._calls: Counter[str] = Counter()
        self._written: dict[int, tuple[str, Tensor]] = {}
        self._weights: dict[int, list[str]] = defaultdict(list)
        for name in self._convolutions:
            for tensor in layers[name].parameters():
                self._weights[_place(tensor)].append(name)
        self._readers: dict[str, set[str]] = defaultdict(set)
        self._strange: set[str] = set()
        self._looked = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's question whether to guard against compilation, for which it loads its compiler: a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """One operation: note what it reads, and let it happen."""
        self._looked |= func.overloadpacket.__name__ in _LOOKING
        for tensor in _tensors([*args, *(kwargs or {}).values()]):
            place = _place(tensor)
            if place in self._written:
                self._readers[self._written[place][0]].add(self._at_work)
            if place in self._weights and self._at_work not in self._convolutions:
                self._strange.update(self._weights[place])
        return func(*args, **(kwargs or {}))

    def hooks(self, name: str, layer: nn.Module) -> Iterator[Any]:
        """Hooks by which a layer says that it is at work, and what it wrote."""
        ordinary = not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))  # noqa: SLF001
        if not ordinary:
            self._strange.add(name)

        def begins(_: nn.Module, __: Any) -> None:
            self._at_work = name
            self._calls[name] += 1

        def ends(_: nn.Module, __: Any, made: Tensor) -> None:
            self._at_work = _NOBODY
            if name in self._convolutions:
                self._written[_place(made)] = name, made

        yield layer.register_forward_pre_hook(begins)
        yield layer.register_forward_hook(ends, prepend=True)

    def pairs(self) -> dict[str, str]:
        """What may be merged after all that was seen."""
        if self._looked:
            return {}
        alone = {name: next(iter(readers)) for name, readers in self._readers.items() if len(readers) == 1}
        return {
            first: second
            for first, second in alone.items()
            if second in self._layers.keys() - self._convolutions
            and not {first, second} & self._strange
            and self._calls[first] == self._calls[second] == 1
        }


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _place(tensor: Tensor) -> int:
    """Where its memory begins, whichever part of it a tensor shows."""
    return tensor.untyped_storage().data_ptr()


def _convolution(module: nn.Module) -> bool:
    return type(module) is nn.Conv2d


def _norm(module: nn.Module) -> bool:
    known = type(module) is nn.BatchNorm2d or (isinstance(module, nn.BatchNorm2d) and with_activation(module))
    return known and bool(module.track_running_stats)
