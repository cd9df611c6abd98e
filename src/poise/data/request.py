"""What a source is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any
from urllib.parse import parse_qsl

from poise.core.misuse import Misuse, suggestion
from poise.data.splits import check_shares


@dataclass(frozen=True, kw_only=True)
class Request:
    """An address and how its images are wanted. See `poise.data.open_data` for the meaning of each.

    Args:
        address: the whole address, for messages.
        target: what follows the first colon of the address.
        image_size: side of the square that images are brought to, or None to take them as they are.
        skip_unreadable: leave out images that cannot be decoded.
        limit: the most examples to keep of each split.
        validation: share of validation examples where the source brings none.
        test: share of test examples where the source brings none.

    Raises:
        Misuse: for values that no source can honour.
    """

    address: str
    target: str
    image_size: int | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    validation: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        check_shares(self.validation, self.test)
        numbers: dict[str, Any] = {"image size": self.image_size, "limit": self.limit}
        for name, value in numbers.items():
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise Misuse(f"the {name} must be a whole number of at least 1; got {value!r}")

    def options(self, *known: str) -> tuple[str, dict[str, str]]:
        """The target before its question mark, and the options after it: ``CIFAR10?root=data``.

        Raises:
            Misuse: for an option that is not among `known`.
        """
        name, _, query = self.target.partition("?")
        found = dict(parse_qsl(query, keep_blank_values=True))
        for option in found:
            if option not in known:
                raise Misuse(f"unknown option {option!r} in {self.address}; {suggestion(option, known)}")
        return name, found
