"""FAB: walk along the decision boundary towards the image, one linear approximation at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from poise.attacks.hyperplane import moves_onto_hyperplane
from poise.attacks.rows import choose
from poise.attacks.search import Answer, Problem, Search, State
from poise.attacks.slopes import differentiated
from poise.core.losses import margin, misclassified, target_lead
from poise.core.misuse import Misuse
from poise.core.norms import DUAL, length, per_example, random_move
from poise.core.threat import BOX

_TINY = 1e-8
_TINIEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class FAB(Search):
    """Fast adaptive boundary attack (Croce & Hein 2020b), which makes the perturbation's norm smallest.

    An iteration replaces z_other - z_label by its linear approximation, for the class whose approximated boundary is
    nearest, projects both the current point and the image onto the plane where it is zero, oversteps both a little, and
    goes to a mixture of the two (eq. 7-10). Where that point is misclassified, as any class, the search steps back
    towards the image before the next iteration. Every iteration differentiates all classes but the label: with many
    classes `FABT` is what can be afforded.

    It knows the radius only for random starts: points may lie outside the ball, and whoever drives the search ends an
    item once a misclassified one lies inside. The official code finishes all its iterations and looks at the closest.
    An iteration is two queries, one with gradient where it linearises and one without where it arrives.

    Differences from the official code: points stepped back to count as well where they are misclassified; l2 and l1
    projections move coordinates of slope below 1e-8 as well; sums of the projection are in float64.

    Args:
        steps: iterations, at least 1.
        alpha_max: largest weight of the projected image in the mixture, in (0, 1].
        eta: overstepping factor, at least 1.
        beta: share of the perturbation that a step back keeps, in (0, 1).

    Raises:
        Misuse: for settings outside these ranges.
    """

    steps: int = 100
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise Misuse(f"FAB needs at least 1 step; got {self.steps}")
        if not (0 < self.alpha_max <= 1 and self.eta >= 1 and 0 < self.beta < 1):
            raise Misuse(
                "FAB needs alpha_max in (0, 1], eta of at least 1 and beta in (0, 1); "
                f"got {self.alpha_max}, {self.eta} and {self.beta}"
            )

    @property
    def name(self) -> str:
        """See `Search.name`."""
        return "fab"

    @property
    def queries(self) -> int:
        """Where an iteration linearises, and where it arrives."""
        return 2 * self.steps

    @property
    def rhythm(self) -> tuple[bool, ...]:
        """See `Search.rhythm`."""
        return True, False

    def slopes(self, classes: int) -> int:
        """One for every class but the label."""
        return classes - 1

    @property
    def stays_inside(self) -> bool:
        """Not at all: it walks from wherever the boundary is towards the image."""
        return False

    def begin(self, problem: Problem) -> State:
        """Restart 0 starts from the image, later ones from a random point at half the radius, clipped to the box."""
        stream = self.stream.fold("fab", "start")
        moves = random_move(problem.images, problem.radius, self.norm, stream, problem.ids, problem.restart)
        moved = (problem.images + 0.5 * moves).clamp(*BOX)
        return {
            "points": choose(problem.restart > 0, moved, problem.images),
            "iteration": torch.zeros_like(problem.labels),
            "done": torch.zeros_like(problem.labels, dtype=torch.bool),
        }

    def ask(self, problem: Problem, state: State) -> Float[Tensor, "n *shape"]:  # noqa: ARG002
        """See `Search.ask`."""
        return state["points"]

    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The highest other logit minus the label's."""
        return -margin(logits, problem.labels)

    def differentiate(
        self, problem: Problem, logits: Float[Tensor, "n classes"], points: Float[Tensor, "n *shape"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n *shape"]]:
        """z_other - z_label with its gradient, for the class whose linearly approximated boundary is nearest."""
        classes = logits.shape[1]
        lead, gradient = torch.zeros_like(problem.radius), torch.zeros_like(points)
        nearest = torch.full_like(problem.radius, torch.inf)
        for ahead in range(1, classes):
            rivals = (problem.labels + ahead) % classes
            loss, way = differentiated(
                partial(target_lead, labels=problem.labels, targets=rivals), logits, points, again=ahead + 1 < classes
            )
            away = loss.abs() / (_TINIEST + length(way, DUAL[self.norm]))
            nearer = away < nearest
            nearest, lead = torch.where(nearer, away, nearest), torch.where(nearer, loss, lead)
            gradient = choose(nearer, way, gradient)
        return lead, gradient

    def tell(self, problem: Problem, state: State, points: Float[Tensor, "n *shape"], answer: Answer) -> State:
        """With a gradient, take a step; without, step back where the last one crossed the boundary."""
        if answer.gradient is not None:
            return state | {"points": self._step(problem, points, answer.loss, answer.gradient)}
        back = problem.images + self.beta * (points - problem.images)
        iteration = state["iteration"] + 1
        return {
            "points": choose(misclassified(answer.logits, problem.labels), back, points),
            "iteration": iteration,
            "done": iteration >= self.steps,
        }

    def _step(self, problem: Problem, points: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """The mixture of the two overstepped projections onto the plane where the linearised loss is zero."""
        way = points - problem.images
        covered = (gradient * way).flatten(1).sum(1)
        ahead = moves_onto_hyperplane(points, gradient, -loss, self.norm)
        direct = moves_onto_hyperplane(problem.images, gradient, covered - loss, self.norm)
        far, near = length(direct, self.norm).clamp(min=_TINY), length(ahead, self.norm).clamp(min=_TINY)
        share = per_example((near / (near + far)).clamp(max=self.alpha_max), points)
        mixture = (1 - share) * (way + self.eta * ahead) + share * self.eta * direct
        return (problem.images + mixture).clamp(*BOX)


@dataclass(frozen=True, kw_only=True)
class FABT(FAB):
    """Targeted FAB: as `FAB`, but every iteration linearises z_target - z_label alone."""

    @property
    def name(self) -> str:
        """See `Search.name`."""
        return "fab-t"

    @property
    def targeted(self) -> bool:
        """See `Search.targeted`."""
        return True

    def slopes(self, classes: int) -> int:  # noqa: ARG002 - one of them counts
        """One, for the target."""
        return 1

    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """Logit of the target minus logit of the label."""
        return target_lead(logits, problem.labels, problem.targets)

    def differentiate(
        self, problem: Problem, logits: Float[Tensor, "n classes"], points: Float[Tensor, "n *shape"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n *shape"]]:
        """See `Search.differentiate`."""
        return differentiated(partial(self.loss, problem), logits, points)
