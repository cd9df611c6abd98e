"""A finished or interrupted run, as commands return it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poise.commands.recipe import read_recipe
from poise.core.run_folder import RunFolder
from poise.evaluation import Profile, read_profile
from poise.models import Classifier, check_address, load_model


@dataclass(frozen=True)
class Run:
    """A run folder and what it holds.

    Args:
        folder: its paths.
    """

    folder: RunFolder

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def address(self) -> str:
        """The address under which other commands find the model."""
        return f"run:{self.path.as_posix()}"

    def classifier(self) -> Classifier:
        """The trained model, on the CPU."""
        return load_model(self.path)

    def profile(self) -> Profile:
        """The verdicts, if the run was profiled."""
        return read_profile(self.folder.profile)

    def history(self) -> list[dict[str, Any]]:
        """What each epoch measured."""
        return self.folder.history()

    def recipe(self) -> dict[str, Any]:
        """The options of the run."""
        return read_recipe(self.folder.recipe)


def recipe_of(address: str) -> dict[str, Any]:
    """The recipe of a run's address; nothing for other addresses.

    Raises:
        Misuse: for what is no address.
    """
    check_address(address)
    kind, _, place = address.partition(":")
    folder = RunFolder(Path(place))
    return read_recipe(folder.recipe) if kind == "run" and folder.recipe.is_file() else {}


def threat_of(address: str) -> dict[str, Any]:
    """The threat that a run is meant for, as fields: a smoothed one's is that of the run it smooths; empty for others.

    Raises:
        Misuse: for what is no address.
    """
    recipe = recipe_of(address)
    threat: dict[str, Any] = recipe.get("threat") or {}
    return threat if threat or "sigma" not in recipe else threat_of(recipe["model"])


def address_of(model: str) -> str:
    """The address of a run's folder; any other address as it is."""
    return f"run:{model}" if ":" not in model and RunFolder(Path(model)).recipe.is_file() else model


def file_name(address: str) -> str:
    """An address as the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in address)


def fresh_path(wanted: Path) -> Path:
    """The path itself, or with the first free number behind its name: runs/a, runs/a-2; report.html, report-2.html."""
    ending = wanted.suffix if wanted.suffix in {".html", ".md", ".json", ".parquet", ".onnx", ".pt2"} else ""
    path, number = wanted, 1
    while path.exists():
        number += 1
        path = wanted.with_name(f"{wanted.name.removesuffix(ending)}-{number}{ending}")
    return path
