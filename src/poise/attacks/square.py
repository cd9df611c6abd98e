"""Square Attack: random changes of square windows, kept where they help; no gradient is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from poise.attacks.itinerary import change, draw, mask_and_signs, planned, sides
from poise.attacks.proposals import moved_mass, stripes, tile_count, tiles
from poise.attacks.rows import choose
from poise.attacks.search import Answer, Problem, Search, State
from poise.attacks.windows import as_grid
from poise.core.losses import margin
from poise.core.misuse import Misuse
from poise.core.norms import per_example
from poise.core.threat import BOX


@dataclass(frozen=True, kw_only=True)
class Square(Search):
    """Square Attack (Andriushchenko et al. 2020) on the margin; l1 as in Croce & Hein 2021.

    Images of any height and width, and examples of any other shape, as `windows.as_grid` reads them.

    Differences from the official code:
    - Position, signs and orientation are drawn per example and step; there, positions and (in linf) signs are drawn
      once a step for the whole batch, which makes results depend on it.
    - Windows may touch the last row and column, which the official draw never reaches.
    - Where an image is too narrow for the square, the window is a rectangle of the same area.
    - A change is kept only if it lowers the margin. There, a misclassified one always is, and ends the example.
    - l2 and l1 start from as many whole tiles as fit, also on images under five pixels, where there the start fails.

    Args:
        steps: changes tried after the start, at least 1.
        p_init: share of the image that the first windows cover, in (0, 1].
        span: number of steps that the published schedule of window sizes is stretched over; None: `steps`.
            AutoAttack's standard version tries 5,000 changes and uses the schedule for 10,000 unscaled: span 10,000.

    Raises:
        Misuse: for settings outside these ranges.
    """

    steps: int = 5000
    p_init: float = 0.8
    span: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.span is not None and self.span < 1):
            raise Misuse(f"Square needs at least 1 step and a span of at least 1; got {self.steps} and {self.span}")
        if not 0 < self.p_init <= 1:
            raise Misuse(f"Square's p_init is a share of the image in (0, 1]; got {self.p_init}")

    @property
    def name(self) -> str:
        """See `Search.name`."""
        return "square"

    @property
    def queries(self) -> int:
        """The start and every change."""
        return self.steps + 1

    @property
    def rhythm(self) -> tuple[bool, ...]:
        """See `Search.rhythm`."""
        return (False,)

    def begin(self, problem: Problem) -> State:
        """Vertical stripes in linf, tiles of bumps in l2 and l1, with random signs; nothing has been answered yet."""
        grid, span = as_grid(tuple(problem.images.shape[1:])), self.span or self.steps
        size = sides(self.norm, self.steps, span, self.p_init, grid[1:], problem.images.device)
        first = problem.restart * self.queries
        reach = per_example(problem.radius, problem.images)
        ends = {"upper": problem.images + reach, "lower": problem.images - reach} if self.norm == "linf" else {}
        return {
            **{name: end.clamp(*BOX) for name, end in ends.items()},
            "best": self._start(problem).reshape(problem.images.shape),
            "best_loss": torch.full_like(problem.radius, -torch.inf),
            "plan": draw(self.stream.fold("square", "change"), problem.ids, first, size, grid),
            "iteration": torch.zeros_like(problem.labels),
            "done": torch.zeros_like(problem.labels, dtype=torch.bool),
        }

    def ask(self, problem: Problem, state: State) -> Float[Tensor, "n *shape"]:
        """The best point with one window changed; at first the start itself."""
        grid = as_grid(tuple(problem.images.shape[1:]))
        best, found = state["best"].reshape(-1, *grid), planned(state["plan"], state["iteration"])
        if self.norm == "linf":
            mask, signs = mask_and_signs(found, grid)
            upper, lower = state["upper"].reshape(-1, *grid), state["lower"].reshape(-1, *grid)
            points = torch.where(mask, torch.where(signs > 0, upper, lower), best)
        else:
            images = problem.images.reshape(-1, *grid)
            points = moved_mass(images, problem.radius, best, *change(found, grid), self.norm)
            points = choose(state["iteration"] == 0, best, points)
        return points.reshape(problem.images.shape)

    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """Minus the margin."""
        return -margin(logits, problem.labels)

    def tell(self, problem: Problem, state: State, points: Float[Tensor, "n *shape"], answer: Answer) -> State:  # noqa: ARG002
        """Keep the change where the loss rose."""
        better = answer.loss > state["best_loss"]
        iteration = (state["iteration"] + 1).clamp(max=self.queries)
        return state | {
            "best": choose(better, points, state["best"]),
            "best_loss": torch.where(better, answer.loss, state["best_loss"]),
            "iteration": iteration,
            "done": iteration > self.steps,
        }

    def _start(self, problem: Problem) -> Float[Tensor, "n c h w"]:
        images, stream = _on_grid(problem.images), self.stream.fold("square", "start")
        _, channels, height, width = images.shape
        if self.norm == "linf":
            coins = stream.uniform(problem.ids, (channels, 1, width), step=problem.restart)
            return stripes(images, problem.radius, _signs(coins).to(images.dtype))
        _, down, across = tile_count(height, width)
        coins = stream.uniform(problem.ids, (channels + 1, down, across), step=problem.restart)
        signs, turned = _signs(coins[:, 1:]).to(images.dtype), coins[:, 0] < 0.5
        return tiles(images, problem.radius, signs, turned, self.norm)


def _on_grid(images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n c h w"]:
    return images.reshape(-1, *as_grid(tuple(images.shape[1:])))


def _signs(coins: Tensor) -> Tensor:
    """-1 or 1, from numbers uniform on [0, 1)."""
    return torch.where(coins < 0.5, -1, 1)
