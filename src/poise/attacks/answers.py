"""What a model says at the points that searches ask for, and what it says for certain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from poise.attacks.search import Answer, Problem, Search
from poise.attacks.slopes import finite, forward
from poise.core.losses import misclassified
from poise.core.modes import Precision, exact, precision
from poise.core.norms import inside


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a model is asked.

    Args:
        precision: of the forward passes.
        passes: forward passes whose answers are averaged, for models whose output is random (EOT).
    """

    precision: Precision = "fp32"
    passes: int = 1


def ask_model(
    search: Search,
    model: nn.Module,
    problem: Problem,
    points: Float[Tensor, "n *shape"],
    *,
    gradient: bool,
    asking: Asking = Asking(),
) -> Answer:
    """What a search wants to know about points: a forward pass, and a backward pass to the points where it asks for it.

    Losses and gradients have the points' dtype, whatever precision the model answers in; weights' `.grad` are not
    touched. Gradients are finite. Rows that overflow in fp16 are asked about again in full precision; to see whether
    there are any, every answer in fp16 waits for the device. Of several passes losses and gradients are averaged, and
    the logits are logarithms of the mean softmax.

    Args:
        search: the attack.
        model: maps images in [0, 1] to logits.
        problem: one row per point.
        points: where to evaluate.
        gradient: whether the answer holds the gradient.
        asking: precision, and number of passes.
    """
    answers = [_one_pass(search, model, problem, points, asking.precision, gradient) for _ in range(asking.passes)]
    if len(answers) == 1:
        return answers[0]
    gradients = [answer.gradient for answer in answers if answer.gradient is not None]
    return Answer(
        mean_prediction([answer.logits for answer in answers]),
        torch.stack([answer.loss for answer in answers]).mean(0),
        torch.stack(gradients).mean(0) if gradient else None,
    )


def _one_pass(
    search: Search, model: nn.Module, problem: Problem, points: Tensor, kind: Precision, gradient: bool
) -> Answer:
    """An answer in low precision; in full precision where fp16, which ends at 65504, overflowed."""
    answer = _said(search, model, problem, points, kind, gradient)
    if kind == "fp16" and len(rows := answer.unusable().nonzero()[:, 0]):
        answer = answer.updated(rows, _said(search, model, problem.select(rows), points[rows], "fp32", gradient))
    return answer if answer.gradient is None else replace(answer, gradient=finite(answer.gradient))


def _said(
    search: Search, model: nn.Module, problem: Problem, points: Tensor, kind: Precision, gradient: bool
) -> Answer:
    with torch.set_grad_enabled(gradient):
        with precision(kind, points.device):
            leaf, logits = forward(model, points, sloped=gradient)
        if not gradient:
            return Answer(logits, search.loss(problem, logits), None)
        loss, slope = search.differentiate(problem, logits, leaf)
    return Answer(logits.detach(), loss.detach(), slope)


def mean_prediction(passes: list[Float[Tensor, "n classes"]]) -> Float[Tensor, "n classes"]:
    """Logarithms of the mean softmax over passes; of a single pass the logits as they are."""
    if len(passes) == 1:
        return passes[0]
    return torch.stack([logits.log_softmax(1) for logits in passes]).logsumexp(0)


@torch.no_grad()
def decided(model: nn.Module, images: Float[Tensor, "n *shape"], passes: int = 1) -> Float[Tensor, "n classes"]:
    """What a model says of images where it counts: in full precision, and over several passes in the mean.

    Args:
        model: the plain model, in eval mode.
        images: values in [0, 1].
        passes: forward passes to average.
    """
    with exact(images.device):
        return mean_prediction([model(images) for _ in range(passes)])


@torch.no_grad()
def adversarial(
    search: Search, model: nn.Module, problem: Problem, points: Float[Tensor, "n *shape"], passes: int = 1
) -> Bool[Tensor, " n"]:
    """Which points the model, in full precision, gets wrong inside ball and box: what counts as broken.

    Of a model whose output is random one lucky pass says nothing: what counts is the mean softmax of fresh passes.

    Args:
        search: the attack, whose norm measures the ball.
        model: the plain model.
        problem: one row per point.
        points: what to judge.
        passes: forward passes to average.
    """
    logits = decided(model, points, passes)
    return misclassified(logits, problem.labels) & inside(points, problem.images, problem.radius, search.norm)
