"""Profiles on disk: a parquet table whose schema carries the header as JSON, or CSV where the file is named so."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poise.core.files import written_whole
from poise.core.misuse import Misuse, first_line
from poise.core.run_folder import RunFolder
from poise.evaluation.certificates.certificate import Certificate
from poise.evaluation.kept import Kept
from poise.evaluation.profile import Header, Profile
from poise.evaluation.profile_csv import read_profile_csv, write_profile_csv
from poise.evaluation.soundness.finding import Finding

_SUFFIXES = (".parquet", ".csv")
_KEY = b"poise.profile"
_FORMAT = 1
_NUMBERS = {"label": "labels", "prediction": "predictions", "robust_to": "robust_to", "broken_from": "broken_from"}


def check_profile_name(path: Path) -> None:
    """Refuse a file name that tells no format of a profile.

    Raises:
        Misuse: unless it ends in .parquet or .csv.
    """
    if path.suffix not in _SUFFIXES:
        raise Misuse(f"a profile is written as .parquet, or as .csv for others to read; got {path}")


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile whole, in place of an older one: as CSV (`write_profile_csv`) where the name ends so."""
    if path.suffix == ".csv":
        write_profile_csv(profile, path)
        return
    columns = {"id": pa.array(profile.ids, pa.string())}
    columns |= {column: pa.array(getattr(profile, field), pa.int32()) for column, field in _NUMBERS.items()}
    columns["margin"] = pa.array(profile.margins, pa.float64())
    columns["broken_by"] = pa.array(profile.broken_by, pa.string())
    certificate = profile.certificate
    if certificate is not None:
        columns["radius"] = pa.array(certificate.radii, pa.float64())
    findings = [finding.to_dict() for finding in profile.findings]
    beside = {
        "findings": findings,
        "adversarials": asdict(profile.adversarials) if profile.adversarials else None,
        "certificate": certificate.description() if certificate else None,
    }
    header = json.dumps({"format": _FORMAT, **beside, **asdict(profile.header)})
    table = pa.table(columns).replace_schema_metadata({_KEY: header.encode()})
    with written_whole(path) as partial:
        pq.write_table(table, partial)


def read_profile(path: Path | str) -> Profile:
    """Read a profile, from CSV (`read_profile_csv`) where the name ends so.

    Raises:
        Misuse: if there is no such file, or it is truncated, foreign, or of a format from the future; it is named.
    """
    path = Path(path)
    if not path.is_file():
        raise Misuse(f"there is no profile at {path}; make one with poise profile")
    if path.suffix == ".csv":
        return read_profile_csv(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise Misuse(f"{path} cannot be read as a profile: {first_line(error)}") from error
    fields = _fields(path, table)
    try:
        found = _profile(table, fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Misuse(f"{path} is damaged: {first_line(error)}") from error
    if wrong := found.contradiction():
        raise Misuse(f"{path} is damaged: {wrong}")
    return found


def profile_of(run: RunFolder) -> Profile | None:
    """The profile that a run folder holds; None where the run was not profiled.

    Raises:
        Misuse: as `read_profile`, and for a profile of another model than the one in the folder.
    """
    if not run.profile.is_file():
        return None
    found = read_profile(run.profile)
    try:
        digest = json.loads(run.model.read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):  # whoever opens the model says what is wrong with it
        return found
    if digest != found.header.model:
        raise Misuse(
            f"{run.profile} is about another model than the one in {run.path}: profile that anew, with poise profile "
            f"run:{run.path.as_posix()} --overwrite"
        )
    return found


def _fields(path: Path, table: pa.Table) -> dict[str, Any]:
    """The header as JSON, of a format that is known."""
    try:
        fields = json.loads((table.schema.metadata or {}).get(_KEY, b"null"))
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or "format" not in fields:
        raise Misuse(f"{path} is a parquet file, but no profile of poise")
    if fields.pop("format") != _FORMAT:
        raise Misuse(f"{path} was written by a newer poise; this one reads format {_FORMAT}")
    return fields


def _profile(table: pa.Table, fields: dict[str, Any]) -> Profile:
    findings = tuple(Finding.from_dict(found) for found in fields.pop("findings"))
    kept, proof = fields.pop("adversarials", None), fields.pop("certificate", None)
    listed = {name: tuple(fields.get(name, ())) for name in ("epsilons", "classes", "surrogates")}
    header = Header(**fields | listed)
    return Profile(
        header=header,
        ids=tuple(table["id"].to_pylist()),
        margins=_floats(table, "margin"),
        broken_by=tuple(table["broken_by"].to_pylist()),
        findings=findings,
        adversarials=None if kept is None else Kept(**kept),
        certificate=None if proof is None else Certificate(radii=_floats(table, "radius"), **proof),
        **{field: table[column].to_numpy().astype(np.int64) for column, field in _NUMBERS.items()},
    )


def _floats(table: pa.Table, column: str) -> np.ndarray:
    return np.asarray(table[column].to_numpy(), dtype=np.float64)
