"""From an address such as ``folder:photos`` to the three sets of a run."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from poise.core.misuse import Misuse, suggestion
from poise.data.request import Request
from poise.data.splits import Splits

_SOURCES = {
    "digits": "poise.data.sources.digits",
    "folder": "poise.data.sources.folder",
    "hf": "poise.data.sources.huggingface",
    "parquet": "poise.data.sources.parquet",
    "torchvision": "poise.data.sources.vision",
}
"""Kind of address -> the module whose `open_source` answers it; imported when it is asked for."""

_FORMS = "digits, folder:PATH, parquet:FOLDER, hf:NAME, torchvision:NAME"


def open_data(
    address: str,
    *,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    limit: int | None = None,
    validation: float = 0.1,
    test: float = 0.2,
) -> Splits:
    """Find a data set and cut it into train, validation and test.

    A source's own splits are kept; what it does not bring is cut from train by a hash of each example's id, so no seed
    is involved. Opening reads headers only; images are decoded when they are asked for (`poise.data.decoded` keeps
    small sets in memory). Images are upright, opaque (transparent parts become white), and of one channel count: grey
    where every image is grey, else RGB.

    Args:
        address: ``digits``, ``folder:PATH`` (PATH/CLASS/... or PATH/{train,validation,test}/CLASS/...),
            ``parquet:FOLDER``, ``hf:NAME``, ``torchvision:NAME[?root=...]``.
        image_size: cut the central square and resize it to this side (bilinear, antialiased).
        skip_unreadable: decode every image once at opening, leave out those that fail and name them in
            `Splits.skipped`; otherwise such an image is an error when it is met.
        limit: keep at most this many examples of each split, chosen by a hash of their ids. Channel count, size and
            readability are then judged on the kept examples only.
        validation: expected share of validation examples, in (0, 1).
        test: expected share of test examples, in (0, 1).

    Raises:
        Misuse: in one line, whatever is wrong with the address, the options or the data.
    """
    kind, _, target = address.partition(":")
    if kind not in _SOURCES and Path(address).is_dir():
        raise Misuse(f"a folder by itself is no address of data; did you mean 'folder:{address}'?")
    if kind not in _SOURCES:
        raise Misuse(f"unknown kind of data {kind!r}; {suggestion(kind, _SOURCES)}; addresses look like {_FORMS}")
    if bool(target) == (kind == "digits"):
        raise Misuse(f"cannot read the data address {address!r}; addresses look like {_FORMS}")
    request = Request(
        address=address,
        target=target,
        image_size=image_size,
        skip_unreadable=skip_unreadable,
        limit=limit,
        validation=validation,
        test=test,
    )
    opener = cast("Callable[[Request], Splits]", import_module(_SOURCES[kind]).open_source)
    return opener(request)
