"""Square Attack: random changes of square windows, kept where they help; no gradient is needed."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from poise.attacks.proposals import flipped, moved_mass, stripes, tile_count, tiles
from poise.attacks.rows import choose
from poise.attacks.search import Answer, Problem, Search, State
from poise.attacks.windows import Windows, as_grid, window_sides
from poise.core.losses import margin
from poise.core.misuse import Misuse
from poise.core.threat import Norm

_PUBLISHED_STEPS = 10_000
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The iterations of 10,000 after which the windows' share of the image is halved."""


def window_share(step: int, steps: int, p_init: float) -> float:
    """The share of the image that a window covers at a step (from 0) of a search laid out for so many steps."""
    return p_init * 0.5 ** bisect_left(_HALVINGS, step * _PUBLISHED_STEPS // steps)


@cache
def _sides(norm: Norm, steps: int, span: int, p_init: float, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Height and width of each step's window, [steps, 2]; at least 3 and odd in l2 and l1."""
    least, odd = (1, False) if norm == "linf" else (3, True)
    shares = (window_share(step, span, p_init) for step in range(steps))
    return torch.tensor([window_sides(share, *grid, least, odd=odd) for share in shares], device=device)


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
    def needs_gradient(self) -> bool:
        """See `Search.needs_gradient`."""
        return False

    def begin(self, problem: Problem) -> State:
        """Vertical stripes in linf, tiles of bumps in l2 and l1, with random signs; nothing has been answered yet."""
        start = self._start(problem).reshape(problem.images.shape)
        return {
            "best": start,
            "best_loss": torch.full_like(problem.radius, -torch.inf),
            "iteration": torch.zeros_like(problem.labels),
            "done": torch.zeros_like(problem.labels, dtype=torch.bool),
        }

    def ask(self, problem: Problem, state: State) -> Float[Tensor, "n *shape"]:
        """The best point with one window changed; at first the start itself."""
        images, best = _on_grid(problem.images), _on_grid(state["best"])
        chance = self._chances(problem, state["iteration"], images.shape[1])
        window, source = (self._window(images, chance[:, at : at + 2], state["iteration"]) for at in (0, 2))
        signs = _signs(chance[:, 5:, None, None]).to(best.dtype)
        if self.norm == "linf":
            changed = flipped(images, problem.radius, best, window, signs)
        else:
            turned = chance[:, 4] < 0.5
            changed = moved_mass(images, problem.radius, best, source, window, signs, turned, self.norm)
        return choose(state["iteration"] == 0, state["best"], changed.reshape(problem.images.shape))

    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """Minus the margin."""
        return -margin(logits, problem.labels)

    def tell(self, problem: Problem, state: State, points: Float[Tensor, "n *shape"], answer: Answer) -> State:  # noqa: ARG002
        """Keep the change where the loss rose."""
        better = (answer.loss > state["best_loss"]) & ~state["done"]
        iteration = state["iteration"] + ~state["done"]
        return {
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

    def _chances(self, problem: Problem, iteration: Int[Tensor, " n"], channels: int) -> Float[Tensor, "n draws"]:
        """Uniform numbers of a step: two positions, an orientation, and a sign for every channel."""
        step = problem.restart * self.queries + iteration
        return self.stream.fold("square", "change").uniform(problem.ids, (5 + channels,), step=step)

    def _window(self, images: Tensor, place: Float[Tensor, "n 2"], iteration: Int[Tensor, " n"]) -> Windows:
        """A window of the step's size, uniform over the places where it fits."""
        height, width = images.shape[2:]
        sides = _sides(self.norm, self.steps, self.span or self.steps, self.p_init, (height, width), place.device)
        tall, wide = sides[(iteration - 1).clamp(0, self.steps - 1)].unbind(1)
        top, left = (place[:, 0] * (height - tall + 1)).long(), (place[:, 1] * (width - wide + 1)).long()
        return Windows(top.minimum(height - tall), left.minimum(width - wide), tall, wide, height, width)


def _on_grid(images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n c h w"]:
    return images.reshape(-1, *as_grid(tuple(images.shape[1:])))


def _signs(coins: Tensor) -> Tensor:
    """-1 or 1, from numbers uniform on [0, 1)."""
    return torch.where(coins < 0.5, -1, 1)
