"""Where models come from: every address becomes a classifier here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from poise.core.misuse import Misuse, suggestion
from poise.core.streams import Stream, global_seed
from poise.models.blueprint import Option
from poise.models.checkpoints import read_checkpoint
from poise.models.classifier import Classifier
from poise.models.foreign import open_python, open_robustbench
from poise.models.own import open_own
from poise.models.probing import checked
from poise.models.request import Request
from poise.models.runs import open_run
from poise.models.timm_source import open_timm

_NAMED: dict[str, Callable[[Request], Classifier]] = {
    "timm": open_timm,
    "run": open_run,
    "python": open_python,
    "robustbench": open_robustbench,
}
_NAMELESS: dict[str, Callable[[Request], Classifier]] = {"small": open_own, "resnet18": open_own, "lipschitz": open_own}


def open_model(
    address: str,
    *,
    weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
    shape: tuple[int, ...] | None = None,
    seed: int = 0,
    new_head: bool = False,
    options: Mapping[str, Option] | None = None,
) -> Classifier:
    """Make the classifier of an address, on the CPU, in training mode as PyTorch makes its modules.

    Args:
        address: ``timm:NAME``, ``run:FOLDER``, ``python:PACKAGE.MODULE:FACTORY``, ``robustbench:NAME``, ``small``,
            ``resnet18`` or ``lipschitz``.
        weights: None for those that the address carries (poise's own networks carry none and start at random),
            ``"random"`` for random initialisation, or a file: .safetensors, or a state dict of `torch.save`, read
            without running foreign code, laid over the architecture.
        classes: names of the classes of the data, in the order of the labels; None for those of the model.
        shape: shape of one image of the data, channels first; None for that of the model.
        seed: fixes random initialisation; PyTorch's global generators are left as they were.
        new_head: let ``run:`` replace its head where the data has other classes.
        options: further constructor arguments, for ``timm:`` and ``python:``.

    Returns:
        A classifier that has passed one blank image; its `notes` tell what was adapted on the way.

    Raises:
        Misuse: for whatever cannot be found, read, or made to fit; the message says what would work.
    """
    check_address(address)
    source = _source(address, options)
    random = weights == "random"
    with global_seed(Stream.seeded(seed).fold("initialisation")):
        request = Request(
            address=address,
            checkpoint=None if weights is None or random else read_checkpoint(Path(weights)),
            random=random,
            classes=None if classes is None else tuple(classes),
            shape=shape,
            options=options or {},
            new_head=new_head,
        )
        return checked(source(request))


def check_address(address: object) -> None:
    """Refuse what is no text.

    Raises:
        Misuse: saying what to do with a network in memory.
    """
    if not isinstance(address, str):
        raise Misuse(
            f"a model is named by its address, such as timm:resnet50 or run:FOLDER; got {type(address).__name__}. One "
            "in memory is judged by poise.evaluation.examine, as a poise.models.Classifier"
        )


def _source(address: str, options: Mapping[str, Option] | None) -> Callable[[Request], Classifier]:
    kind, _, name = address.partition(":")
    if address in _NAMELESS:
        if options:
            raise Misuse(f"{address} takes no options")
        return _NAMELESS[address]
    if kind in _NAMED and name:
        return _NAMED[kind]
    if kind in _NAMED or kind in _NAMELESS:
        valid = f"{kind}:{'FOLDER' if kind == 'run' else 'NAME'}" if kind in _NAMED else kind
        raise Misuse(f"a model address of this kind reads {valid}; got {address!r}")
    if Path(address).is_dir():
        raise Misuse(f"a folder is no address of a model; did you mean 'run:{address}'?")
    raise Misuse(f"no model is of the kind {kind!r}, in {address!r}; {suggestion(kind, (*_NAMED, *_NAMELESS))}")
