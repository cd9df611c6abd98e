"""What the tests of the searches share: problems on linear models, their exact answers, and runs of every target."""

from __future__ import annotations

import torch
from scipy.optimize import brentq
from torch import nn

from poise.attacks.answers import ask_model
from poise.attacks.driver import run_search
from poise.attacks.search import Problem
from poise.core.batch import Batch
from poise.core.modes import evaluating, frozen
from poise.core.streams import Stream
from tests.linear import Linear, batch, best_gain

STREAM = Stream.seeded(0)
SHAPES = [(30,), (1, 5, 4), (3, 4, 4)]


class Curved(nn.Module):
    """Logits quadratic in the image, each row's computed in the same way whatever the batch.

    Matrix products round differently in batches of different size, and attacks follow the difference: at the top of a
    hill, rounding decides whether a step rose.
    """

    def __init__(self, classes, shape):
        super().__init__()
        self.line, self.curve = (Linear(classes, shape, seed).weight for seed in (1, 2))

    def forward(self, images):
        flat = images.flatten(1)[:, None]
        return (flat * self.line + (flat - 0.5).square() * self.curve).sum(2)


def solved(classes, shape, count=12, seed=0):
    """A linear model and images that it classifies right."""
    model, data = Linear(classes, shape, seed), batch(count, shape, classes)
    return model, Batch(data.images, model(data.images).argmax(1), data.ids)


def shortest(model, data, norm):
    """The exact length of each example's smallest adversarial perturbation inside the box."""
    weight, bias = model.weight.detach(), model.bias.detach()
    longest = {"linf": 1.0, "l2": weight.shape[1] ** 0.5, "l1": float(weight.shape[1])}[norm]
    lengths = []
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        reached = [longest]
        for other in set(range(len(weight))) - {label}:
            slope = weight[other] - weight[label]
            lead = float(slope @ image.flatten() + bias[other] - bias[label])

            def lead_at(radius, slope=slope, lead=lead, image=image):
                return lead + best_gain(slope, image, radius, norm)

            if lead_at(longest) > 0:
                reached.append(brentq(lead_at, 0, longest, xtol=1e-12))
        lengths.append(min(reached))
    return torch.tensor(lengths, dtype=torch.float64)


def problem(data, radius, targets=None, restart=0):
    if not isinstance(radius, torch.Tensor):
        radius = torch.full((len(data),), radius, dtype=data.images.dtype)
    targets = torch.zeros_like(data.labels) if targets is None else targets
    return Problem(data.images, data.labels, radius, data.ids, targets, torch.full_like(data.labels, restart))


def ranked_targets(model, data):
    """The classes other than the label by falling logits, up to nine; [n, targets]."""
    logits = model(data.images).detach().scatter(1, data.labels[:, None], -torch.inf)
    return logits.argsort(1, descending=True)[:, : min(9, logits.shape[1] - 1)]


def fooled(search, model, data, radius):
    """Which examples a search fools; one with targets runs as an item for each example and target, all at once."""
    if not search.targeted:
        return run_search(search, model, problem(data, radius))[1]
    targets = ranked_targets(model, data)
    rows = torch.arange(len(data)).repeat_interleave(targets.shape[1])
    found = run_search(search, model, problem(data.select(rows), radius[rows], targets.flatten()))[1]
    return found.view(targets.shape).any(1)


def trajectory(search, model, work, rounds):
    """Every point a search asks for; [rounds, n, *shape]."""
    asked = []
    with torch.no_grad(), evaluating(model), frozen(model):
        state = search.begin(work)
        for round_ in range(rounds):
            asked.append(search.ask(work, state))
            answer = ask_model(search, model, work, asked[-1], gradient=search.rhythm[round_ % len(search.rhythm)])
            state = search.tell(work, state, asked[-1], answer)
            assert all(value.isfinite().all() for key, value in state.items() if "loss" not in key)
            assert not any(value.isnan().any() for value in state.values())
    return torch.stack(asked)


def check_slots_are_independent(search, model, work, rounds):
    """Rows run together, alone, in another order, and begun at different times all ask for the same points."""
    together = trajectory(search, model, work, rounds)
    for row in (0, len(work) - 1):
        alone = trajectory(search, model, work.select(torch.tensor([row])), rounds)
        torch.testing.assert_close(alone[:, 0], together[:, row], rtol=0, atol=1e-10)
    order = torch.arange(len(work)).flip(0)
    torch.testing.assert_close(
        trajectory(search, model, work.select(order), rounds), together[:, order], rtol=0, atol=1e-10
    )
    late = _refilled(search, model, work, rounds)
    torch.testing.assert_close(late, together, rtol=0, atol=1e-10)


def _refilled(search, model, work, rounds):
    """Row r begins r bars late, in a slot that until then worked on another row; its points from its own start.

    A bar is once through the search's rhythm: items are answered together only at the same place of it.
    """
    count, bar = len(work), len(search.rhythm)
    asked = torch.zeros(rounds, count, *work.images.shape[1:], dtype=work.images.dtype)
    slots = torch.arange(count).roll(1)  # the row that each slot works on
    with torch.no_grad(), evaluating(model), frozen(model):
        state = search.begin(work.select(slots))
        for time in range(rounds + count * bar):
            late, place = divmod(time, bar)
            if late < count and place == 0:
                slots[late] = late
                fresh = search.begin(work.select(slots))
                renewed = torch.arange(count) == late
                state = {key: torch.where(_shaped(renewed, old), fresh[key], old) for key, old in state.items()}
            current = work.select(slots)
            points = search.ask(current, state)
            for row in range(count):
                if row * bar <= time < row * bar + rounds:
                    asked[time - row * bar, row] = points[row]
            answer = ask_model(search, model, current, points, gradient=search.rhythm[place])
            state = search.tell(current, state, points, answer)
    return asked


def _shaped(rows, like):
    return rows.reshape(-1, *(1 for _ in like.shape[1:]))
