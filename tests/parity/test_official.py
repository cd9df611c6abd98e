"""Each attack alone against the official one: same network, images, budget and iterations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from poise.attacks.apgd import APGD
from poise.attacks.driver import run_search
from poise.attacks.fab import FABT
from poise.attacks.search import Problem
from poise.attacks.square import Square
from poise.core.norms import inside
from poise.core.streams import Stream

pytest.importorskip("pyautoattack", reason="the official AutoAttack (pip install pyautoattack) is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # not ours to mend

BUDGETS = {"linf": 0.15, "l2": 0.8, "l1": 2.0}
COUNT = 320
QUERIES = 500
SEEDS = {"apgd-ce": range(5), "apgd-dlr": range(5), "apgd-t": (0,), "fab-t": (0,), "square": (0,)}
"""One start of an untargeted search leaves a point or two to chance; nine targets do not."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    """A small network trained on digits with one-step attacks, and the first test images that it gets right."""
    found = load_digits()
    images, labels = torch.from_numpy(found.images).float()[:, None] / 16, torch.from_numpy(found.target).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _trained(images[:1400], labels[:1400])
    right = (model(images[1400:]).argmax(1) == labels[1400:]).nonzero()[:COUNT, 0] + 1400
    assert len(right) == COUNT
    return model, images[right], labels[right]


def _trained(images, labels):
    layers = (nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    model = nn.Sequential(nn.Flatten(), *layers)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(12):
        for rows in torch.randperm(len(images)).split(100):
            noisy = (images[rows] + 0.1 * (2 * torch.rand_like(images[rows]) - 1)).clamp(0, 1).requires_grad_()
            slope = torch.autograd.grad(F.cross_entropy(model(noisy), labels[rows]), noisy)[0]
            attacked = (noisy.detach() + 0.1 * slope.sign()).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(attacked), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def _survivors(search, model, images, labels, radius):
    """How many images no run of the search fools; a targeted one aims at the nine other classes in order of logits."""
    alive = torch.ones(len(images), dtype=torch.bool)
    order = model(images).detach().scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    for rank in range(9 if search.targeted else 1):
        rows = alive.nonzero()[:, 0]
        problem = Problem(
            images[rows],
            labels[rows],
            torch.full((len(rows),), radius),
            rows,
            order[rows, rank],
            torch.zeros_like(rows),
        )
        points, found = run_search(search, model, problem)
        assert inside(points, images[rows], problem.radius, search.norm).all()
        assert torch.equal(model(points).argmax(1) != labels[rows], found)
        alive[rows[found]] = False
    return int(alive.sum())


def _official(name, model, norm, radius, seed):
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    common = {"norm": norm.capitalize(), "eps": radius, "seed": seed, "device": "cpu"}
    return {
        "apgd-ce": lambda: APGDAttack(model, loss="ce", use_largereps=norm == "l1", **common),
        "apgd-dlr": lambda: APGDAttack(model, loss="dlr", use_largereps=norm == "l1", **common),
        "apgd-t": lambda: APGDAttack_targeted(model, use_largereps=norm == "l1", **common),
        "fab-t": lambda: FABAttack_PT(model, targeted=True, **common),
        "square": lambda: SquareAttack(model, n_queries=QUERIES, **common),
    }[name]()


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("apgd-ce", lambda norm, stream: APGD(norm=norm, stream=stream)),
        ("apgd-dlr", lambda norm, stream: APGD(norm=norm, stream=stream, loss_kind="dlr")),
        ("apgd-t", lambda norm, stream: APGD(norm=norm, stream=stream, loss_kind="targeted-dlr")),
        ("fab-t", lambda norm, stream: FABT(norm=norm, stream=stream)),
        ("square", lambda norm, stream: Square(norm=norm, stream=stream, steps=QUERIES)),
    ],
    ids=list(SEEDS),
)
def test_fools_as_many_images_as_the_official_attack(digits, name, make, norm):
    model, images, labels = digits
    ours, theirs = [], []
    for seed in SEEDS[name]:
        ours.append(_survivors(make(norm, Stream.seeded(seed)), model, images, labels, BUDGETS[norm]))
        attacked = _official(name, model, norm, BUDGETS[norm], seed).perturb(images.clone(), labels)
        theirs.append(int((model(attacked).argmax(1) == labels).sum()))
    print(f"{name} {norm}: {ours} survive ours, {theirs} the official, of {COUNT}")  # noqa: T201
    assert 0.1 * COUNT < min(theirs) <= max(theirs) < 0.9 * COUNT  # otherwise the comparison says nothing
    assert sum(ours) <= sum(theirs) + 0.015 * COUNT * len(ours)
