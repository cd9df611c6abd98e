"""Bounds carried through networks: equal to theory for linear ones, and never below what points in the ball do."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import cache

import pytest
import torch
from torch import nn

from poise.core.misuse import Misuse
from poise.core.norms import project
from poise.evaluation.certificates import lipschitz as room
from poise.evaluation.certificates.capture import captured
from poise.evaluation.certificates.deterministic import Bounded
from poise.evaluation.certificates.lipschitz import boxes, gap_constants, local_bounds, value_constants
from poise.models import open_model
from tests.evaluation.certificates.networks import NETWORKS, classifier, named
from tests.linear import DUAL
from tests.models_for_tests import linear_classifier

ORDER = {"linf": float("inf"), "l2": 2, "l1": 1}


@cache
def _captured(kind):
    """Tracing takes a second, and bounds leave the layers as they are."""
    return captured(named(kind))


def _images(count, shape=(2, 6, 6), seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_captured_layers_are_the_classifier(kind):
    model = named(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network, images = captured(model), _images(5)
    assert torch.allclose(network.values(images)[-1], model.double()(images), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.float().state_dict().items())


@pytest.mark.parametrize(
    ("layer", "name"),
    [(nn.GELU(), "gelu"), (nn.Softmax(1), "softmax"), (nn.MaxPool2d(2, ceil_mode=True), "max_pool2d")],
)
def test_a_layer_without_a_rule_is_refused_by_name(layer, name):
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), layer, nn.Flatten(), nn.LazyLinear(4))
    network(torch.zeros(1, 2, 6, 6))
    with pytest.raises(Misuse, match=f"through {name} of"):
        captured(classifier(network))


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("local", [False, True])
def test_radii_of_a_linear_classifier_are_equal_to_theory(norm, local):
    model, images = linear_classifier(5, (1, 3, 4)), _images(40, (1, 3, 4))
    weight = model.network.weight.detach().double()
    logits = images.flatten(1) @ weight.T
    chosen = logits.argmax(1)
    gaps = logits.gather(1, chosen[:, None]) - logits
    lengths = torch.linalg.vector_norm(weight[chosen][:, None] - weight[None], ord=DUAL[norm], dim=2)
    theory = (gaps / lengths).nan_to_num(nan=torch.inf, posinf=torch.inf).amin(1)
    steps = Bounded(captured(model), norm).radii(images, local=local, largest=10.0)
    found = steps.local if local else steps.margins
    assert torch.equal(steps.classes, chosen)
    if local:
        # Within the box an image has less room to move, so intervals may prove more than theory does without it.
        assert (found >= theory - 1e-6).all()
    elif norm != "l1":
        assert torch.allclose(found, theory, rtol=0, atol=1e-6)
    assert (steps.margins <= theory).all()


def _corners(images, radius, norm, count, seed=1):
    """Points of the ball and the box, most of them on the ball's surface."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randn(count, *images.shape, generator=generator, dtype=torch.float64)
    if norm == "linf":
        moves = moves.sign()
    if norm == "l1":
        moves = moves * (torch.rand(moves.shape, generator=generator) < 0.05)
    flat = (images + 10 * moves).flatten(0, 1)
    centres = images.expand(count, *images.shape).flatten(0, 1)
    return project(flat, centres, radius.repeat(count), norm)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("norm", DUAL)
def test_no_point_of_the_ball_lies_outside_boxes_or_below_gaps(kind, norm):
    network, images = _captured(kind), _images(4)
    constants = value_constants(network, norm)
    classes = network.values(images)[-1].argmax(1)
    for radius in (0.003, 0.05, 0.4):
        radii = torch.full((4,), radius * {"linf": 1, "l2": 3, "l1": 6}[norm], dtype=torch.float64)
        points = _corners(images, radii, norm, 100)
        values = network.values(points)
        for box, value in zip(boxes(network, images, radii, constants), values, strict=True):
            low, high = (bound.repeat(100, *(1 for _ in bound.shape[1:])) for bound in (box.low, box.high))
            assert (value >= low - 1e-12).all()
            assert (value <= high + 1e-12).all()
        logits, chosen = values[-1], classes.repeat(100)
        others = torch.arange(4)[None] != chosen[:, None]
        gaps = (logits.gather(1, chosen[:, None]) - logits)[others].view(-1, 3)
        clean = network.values(images)[-1]
        start = (clean.gather(1, classes[:, None]) - clean)[others[:4]].view(4, 3).repeat(100, 1)
        local = local_bounds(network, images, classes, radii, norm, constants)
        assert (gaps >= local.least.repeat(100, 1) - 1e-12).all()
        moved = torch.linalg.vector_norm((points - images.repeat(100, 1, 1, 1)).flatten(1), ord=ORDER[norm], dim=1)
        assert (gaps >= start - local.steepest.repeat(100, 1) * moved[:, None] - 1e-12).all()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("norm", DUAL)
def test_no_gap_changes_faster_than_its_constant(kind, norm):
    network, images = _captured(kind), _images(300)
    slopes = torch.func.vmap(torch.func.jacrev(lambda image: network.values(image[None])[-1][0]))(images).flatten(2)
    steepness = torch.linalg.vector_norm(slopes[:, :, None] - slopes[:, None], ord=DUAL[norm], dim=3).amax(0)
    constants = gap_constants(network, value_constants(network, norm))
    assert (steepness <= constants + 1e-12).all()
    # In a small ball no unit is in doubt, so the local constants are the gradients' own lengths.
    classes = network.values(images[:20])[-1].argmax(1)
    tiny = torch.full((20,), 1e-9, dtype=torch.float64)
    steepest = local_bounds(network, images[:20], classes, tiny, norm, value_constants(network, norm)).steepest
    keep = torch.arange(4)[None] != classes[:, None]
    differences = slopes[torch.arange(20), classes][:, None] - slopes[:20]
    exact = torch.linalg.vector_norm(differences, ord=DUAL[norm], dim=2)[keep].view(20, 3)
    assert (steepest >= exact - 1e-9).all()
    if kind != "pooling":
        assert torch.allclose(steepest, exact, rtol=1e-6)


def test_the_constants_of_a_network_of_affine_layers_are_near_the_norm_of_its_matrix():
    """Batch norm joins the convolution before it, with the norm of both together; a second reader keeps them apart."""
    network = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 4))
    nn.init.uniform_(network[1].weight, 3, 9)
    found = captured(classifier(network))
    constants = value_constants(found, "l2")
    jacobians = torch.func.jacrev(lambda image: tuple(v[0] for v in found.values(image[None])[1:]))(_images(1)[0])
    norms = [float(torch.linalg.matrix_norm(each.reshape(-1, 72), 2)) for each in jacobians]
    for constant, norm in zip(constants[1:-1], norms[:-1], strict=True):
        assert norm <= constant.euclidean <= 1.2 * norm
    assert norms[-1] <= constants[-1].euclidean
    assert len(found.layers) == 5


@pytest.mark.parametrize("kind", NETWORKS)
def test_local_bounds_prove_at_least_as_much(kind):
    steps = Bounded(_captured(kind), "l2").radii(_images(12), local=True, largest=5.0)
    assert (steps.local >= steps.margins * (1 - 1e-8)).all()
    if kind in {"dense", "convolutional"}:
        assert steps.local.mean() > 1.2 * steps.margins.mean()


def test_a_one_lipschitz_network_is_proven_to_be_one():
    """24 times the image's distance: normalisation divides by 0.25, and logits are 6 times a 1-Lipschitz function."""
    model = open_model("lipschitz", classes=("a", "b", "c"), shape=(1, 8, 8), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(7.0)
    constants = value_constants(captured(model), "l2")
    assert constants[-2].euclidean <= 4 * 1.01
    assert constants[-1].euclidean <= 24 * 1.01
    assert constants[-1].euclidean > 2


def test_a_one_lipschitz_network_of_oblong_images_with_biases_is_proven_to_be_one():
    """Its pooling multiplies by the root of 15 places, which no float32 holds."""
    model = open_model("lipschitz", classes=("a", "b", "c"), shape=(3, 6, 10), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    network, images = captured(model), _images(5, (3, 6, 10))
    expected = copy.deepcopy(model).double()(images)
    assert torch.allclose(network.values(images)[-1], expected, rtol=1e-12, atol=1e-12)
    assert 2 < value_constants(network, "l2")[-1].euclidean <= 24 * 1.01


@pytest.mark.parametrize(("most", "rows"), [(2**20, 60), (288, 2), (1, 1)])
def test_slopes_of_no_more_gaps_are_in_memory_than_fit_and_all_are_the_same(monkeypatch, most, rows):
    network, images = _captured("residual"), _images(20)
    constants = value_constants(network, "l2")
    classes, radii = network.values(images)[-1].argmax(1), torch.full((20,), 0.05, dtype=torch.float64)
    whole = local_bounds(network, images, classes, radii, "l2", constants)
    sizes, steepest = [], room._steepest
    monkeypatch.setattr(room, "_MOST_VALUES", most)
    monkeypatch.setattr(
        room, "_steepest", lambda n, held, seeds, *rest: sizes.append(len(seeds)) or steepest(n, held, seeds, *rest)
    )
    parts = local_bounds(network, images, classes, radii, "l2", constants)
    assert torch.equal(parts.least, whole.least)
    assert torch.allclose(parts.steepest, whole.steepest, rtol=1e-12, atol=0)
    assert sum(sizes) == 60
    assert max(sizes) == rows


def test_a_thousand_classes_take_the_memory_of_a_few():
    """Slopes of 4 x 999 gaps of this network are 260 MB a tensor at once, of which there would be several."""
    script = """
import resource, torch
from poise.evaluation.certificates.capture import captured
from poise.evaluation.certificates.lipschitz import local_bounds, value_constants
from tests.evaluation.certificates.networks import classifier
layers = torch.nn.Conv2d(2, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
network = captured(classifier(torch.nn.Sequential(*layers, torch.nn.Linear(32, 1000)), (2, 16, 16), 1000))
images, constants = torch.rand(4, 2, 16, 16, dtype=torch.float64), value_constants(network, "l2")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
radii = torch.full((4,), 0.01, dtype=torch.float64)
with torch.no_grad():
    local_bounds(network, images, torch.zeros(4, dtype=torch.long), radii, "l2", constants)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 300
