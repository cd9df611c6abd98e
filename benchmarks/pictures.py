"""Pictures of docs/evidence.md, as SVG files that are the same whenever the figures are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pictures:
    """Draws; every method answers with the Markdown that shows its picture.

    Args:
        folder: where the files go.
    """

    folder: Path

    def transfer(self, rows: Sequence[Row], backbone: str, epsilon: str) -> str:
        """Accuracy over epsilon, the mean over seeds of each contender."""
        mine = [row for row in rows if (row["backbone"], row["epsilon"]) == (backbone, epsilon)]
        curves: dict[str, list[Any]] = defaultdict(list)
        for row in mine:
            curves[row["contender"]].append(row["accuracy"])
        return self._curves(f"evidence-{backbone}-{epsilon[0]}", curves, "accuracy, %")

    def flips(self, rows: Sequence[Row]) -> str:
        """Negative flips over epsilon, the mean over pairs and seeds of each contender, and attack noise."""
        curves: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            for name, model in {**row["models"], "noise floor": row["noise floor"]}.items():
                curves[name].append([value for value, *_ in model["flips by epsilon"].values()])
        return self._curves("evidence-flips", curves, "negative flips, %")

    def frontier(self, models: Mapping[str, Row]) -> str:
        """Clean against robust accuracy on validation images: what every mixture was tried with, and the branches."""

        def draw(axes: Axes) -> None:
            for name, model in models.items():
                points = [point for point in model.get("tried", {}).get("points", []) if "alone" not in point["name"]]
                if not points:
                    continue
                places = 100 * np.array(sorted((point["clean"][0], point["robust"][0]) for point in points))
                axes.plot(*places.T, "o-" if name == "constant" else "o--", markersize=3, linewidth=1, label=name)
            alone = {
                point["name"]: (point["clean"][0], point["robust"][0])
                for model in models.values()
                for point in model.get("tried", {}).get("points", [])
                if "alone" in point["name"]
            }
            for name, (clean, robust) in alone.items():
                axes.plot(100 * clean, 100 * robust, "ks", markersize=5)
                axes.annotate(name, (100 * clean, 100 * robust), textcoords="offset points", xytext=(5, 5), fontsize=8)
            axes.set(xlabel="clean accuracy, %", ylabel="robust accuracy, %")

        return self._kept("evidence-frontier", "robust over clean accuracy of mixtures, validation images", draw)

    def _curves(self, name: str, curves: Mapping[str, Sequence[Any]], label: str) -> str:
        def draw(axes: Axes) -> None:
            for contender, values in curves.items():
                axes.plot(100 * np.mean(values, axis=0), marker="o", markersize=3, label=contender)
            axes.set(xlabel="epsilon, 1/255 (linf)", ylabel=label, ylim=(0, None))

        return self._kept(name, f"{label} over epsilon", draw)

    def _kept(self, name: str, label: str, draw: Callable[[Axes], None]) -> str:
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        draw(axes)
        axes.legend(frameon=False, fontsize="small")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.svg"
        with plt.rc_context({"svg.hashsalt": name}):
            figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        return f"![{label}](images/{path.name})"
