"""Which epoch's weights a training ends with: the last one's, or those that validation found best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from poise.core.misuse import Misuse, check_choice, first_line
from poise.models import Classifier
from poise.training.checkpoint import save_tensors
from poise.training.processes import is_main, on_main

Row = Mapping[str, float]
"""One epoch's figures, as a run's history holds them; "validation/clean" and "epsilon" are the ones looked at most."""

Keep = Literal["last", "best"]

CLEAN, ROBUST = "validation/clean", "validation/robust"


def check_keep(keep: str) -> None:
    """Refuse what names no epoch's weights."""
    check_choice("keep", keep, get_args(Keep))


def kept(history: Sequence[Row], keep: Keep, *, attacked: bool) -> Row:
    """The epoch whose weights a training ends with, were this its whole history.

    The best one withstands most on validation images, at the target epsilon whatever the epoch itself was trained at;
    among equals it has the greatest clean accuracy, and then it is the first.

    Args:
        history: one row an epoch, oldest first; at least one.
        keep: "last" or "best".
        attacked: whether the objective looks at attacked images; without them clean accuracy alone counts.

    Raises:
        Misuse: if the best is asked for and the rows hold no validation.
    """
    if keep == "last":
        return history[-1]
    names = (ROBUST, CLEAN) if attacked else (CLEAN,)
    if missing := [name for name in names if any(name not in row for row in history)]:
        raise Misuse(f"the best weights are found by {' and '.join(names)}; validation does not measure {missing[0]}")
    return max(history, key=lambda row: tuple(row[name] for name in names))


class Keeper:
    """Has the weights of the best epoch so far on disk, where a training is to end with them.

    Args:
        folder: the run's folder of checkpoints.
        keep: "last", which keeps nothing here, or "best".
        attacked: see `kept`.
        best: figures of the best epoch so far, from a checkpoint.
    """

    def __init__(self, folder: Path, keep: Keep, *, attacked: bool, best: Row | None) -> None:
        self._folder, self._keep, self._attacked = folder, keep, attacked
        self.best = None if best is None else dict(best)

    def look(self, row: Row, classifier: Classifier) -> None:
        """Keep the weights of an epoch if it is the best so far; older ones stay until `tidy`.

        Args:
            row: the epoch's figures.
            classifier: the network as it was validated.
        """
        if self._keep == "last":
            return
        rows = [*([] if self.best is None else [self.best]), row]
        if kept(rows, "best", attacked=self._attacked) is not row:
            return
        self.best = {name: row[name] for name in ("epoch", CLEAN, ROBUST) if name in row}
        path = self._path(self.best)
        on_main(
            lambda: save_tensors(path, {name: each.detach().cpu() for name, each in classifier.state_dict().items()})
        )

    def tidy(self) -> None:
        """Remove what was best before: called once a checkpoint says what is best now."""
        if self.best is not None and is_main():
            for older in self._folder.glob("best-*.safetensors"):
                if older != self._path(self.best):
                    older.unlink(missing_ok=True)

    def weights(self) -> dict[str, Tensor] | None:
        """The state to end with; None for the last epoch's.

        Raises:
            Misuse: if its file is gone or damaged.
        """
        if self.best is None:
            return None
        path = self._path(self.best)
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise Misuse(
                f"{path} holds the best weights and cannot be read: {first_line(error)}; start anew"
            ) from error

    def _path(self, row: Row) -> Path:
        return self._folder / f"best-{int(row['epoch']):05d}.safetensors"
