"""What a soundness check found: a status, one sentence of evidence, and whether somebody overrode it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from poise.core.misuse import Misuse, suggestion

Status = Literal["pass", "note", "warn", "block"]
"""pass: nothing found. note: worth knowing, or nothing to test on. warn: a figure may mislead. block: no figure may be
shown unless a person overrides it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check; plain data, as it travels in a profile's header.

    Args:
        check: name of the check.
        status: pass, note, warn or block.
        evidence: one sentence with the numbers that decided.
        overridden: whether a person allowed what blocks; only blocking findings can be.
        everywhere: whether the check looked at all parts of a profile that was joined from several.

    Raises:
        Misuse: for another status, or an override of what does not block.
    """

    check: str
    status: Status
    evidence: str
    overridden: bool = False
    everywhere: bool = True

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise Misuse(
                f"unknown status {self.status!r} of a finding; {suggestion(str(self.status), get_args(Status))}"
            )
        if self.overridden and self.status != "block":
            raise Misuse(f"{self.check} has status {self.status}; only what blocks can be overridden")

    def __str__(self) -> str:
        return f"{self.status}{' (overridden)' if self.overridden else ''} {self.check}: {self.evidence}"

    def to_dict(self) -> dict[str, str | bool]:
        """The finding as an object that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Finding:
        """Read what `to_dict` wrote.

        Raises:
            Misuse: for anything else.
        """
        for name in ("overridden", "everywhere"):
            if not isinstance(fields.get(name, False), bool):
                raise Misuse(f"{name} is true or false in a finding; got {fields[name]!r}")
        try:
            return cls(**fields)
        except TypeError as error:
            raise Misuse(f"not a finding of a soundness check: {error}") from None


def blocked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings for which no figure is to be shown: those that block and that nobody overrode."""
    return tuple(finding for finding in findings if finding.status == "block" and not finding.overridden)
