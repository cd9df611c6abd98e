"""The folder that a run leaves behind: which file stands where, and who may create it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poise.core.misuse import Misuse


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """Every option of the run; it can be run again."""
        return self.path / "recipe.yaml"

    @property
    def weights(self) -> Path:
        """The final weights; their presence says that training ended."""
        return self.path / "model.safetensors"

    @property
    def model(self) -> Path:
        """What the network is, as JSON, its digest among it."""
        return self.path / "model.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: what each epoch measured."""
        return self.path / "metrics.jsonl"

    @property
    def adaptation(self) -> Path:
        """What the metrics say about how the network took up its task, as JSON."""
        return self.path / "adaptation.json"

    @property
    def checkpoints(self) -> Path:
        """States that an interrupted run goes on from."""
        return self.path / "checkpoints"

    @property
    def profile(self) -> Path:
        """Verdicts on the test images."""
        return self.path / "profile.parquet"

    @property
    def frontier(self) -> Path:
        """The mixtures that were tried on validation images, and the choice among them."""
        return self.path / "frontier.json"

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.path / "report.html"

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new run folder.

        Raises:
            Misuse: if something is there already; nothing of it is touched.
        """
        try:
            path.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            raise _exists(path) from None
        return cls(path)

    @classmethod
    def absent(cls, path: Path) -> RunFolder:
        """A run folder that could be made; it is not made yet.

        Raises:
            Misuse: if something is there already.
        """
        if path.exists():
            raise _exists(path)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            Misuse: if there is none.
        """
        folder = cls(path)
        if not folder.recipe.is_file():
            if path.is_dir():
                what = "has no recipe.yaml, so it is no run folder"
            else:
                what = "is a file, and no run folder" if path.exists() else "does not exist"
            raise Misuse(f"{path} {what}; runs are made by poise finetune, update, mix and certify --sigma")
        return folder

    def history(self) -> list[dict[str, Any]]:
        """The rows of `metrics`, oldest first; empty when there is none. A torn last line is left out."""
        if not self.metrics.is_file():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows


def _exists(path: Path) -> Misuse:
    hint = "take up the interrupted run with --resume, or " if (path / "recipe.yaml").exists() else ""
    return Misuse(f"{path} exists already; {hint}choose another folder with --out")
