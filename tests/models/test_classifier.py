import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.models import Blueprint, Classifier, open_model


def blueprint(**changes):
    fields = {"address": "small", "classes": ("a", "b"), "shape": (3, 4, 4), **changes}
    return Blueprint(**fields)


@pytest.fixture
def images():
    return torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_normalisation_is_what_one_does_by_hand(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    classifier = Classifier(network, blueprint(mean=mean, std=std))
    by_hand = torch.stack([(images[:, i] - mean[i]) / std[i] for i in range(3)], dim=1)
    assert torch.equal(classifier(images), network(by_hand))


def test_one_value_normalises_all_channels(images):
    classifier = Classifier(nn.Flatten(), blueprint(mean=(0.5,), std=(0.25,)))
    assert torch.equal(classifier(images), ((images - 0.5) * 4).flatten(1))


def test_without_normalisation_images_arrive_bit_by_bit(images):
    assert torch.equal(Classifier(nn.Flatten(), blueprint())(images), images.flatten(1))


@pytest.mark.parametrize(("size", "antialias"), [((8, 8), False), ((2, 2), True), ((2, 8), True)])
def test_resizing_filters_only_where_it_shrinks(images, size, antialias):
    found = Classifier(nn.Flatten(), blueprint(size=size))(images)
    expected = functional.interpolate(images, size=size, mode="bilinear", antialias=antialias)
    assert torch.equal(found, expected.flatten(1))


def test_gradient_flows_to_the_images_through_resizing(images):
    images.requires_grad_(True)
    Classifier(nn.Flatten(), blueprint(size=(8, 8)))(images).sum().backward()
    assert torch.allclose(images.grad, torch.full_like(images, 4.0))  # each pixel is spread over four


@pytest.mark.parametrize(
    ("address", "head_size"),
    [("small", 64 * 3 + 3), ("resnet18", 512 * 3 + 3), ("python:tests.models.factories:linear", 8 * 4 + 4)],
)
def test_the_head_is_part_of_the_parameters(address, head_size):
    classes = None if address.startswith("python") else "abc"
    classifier = open_model(address, classes=classes, shape=(3, 2, 2))
    head = list(classifier.head_parameters())
    assert sum(p.numel() for p in head) == head_size
    assert {id(p) for p in head} < {id(p) for p in classifier.parameters()}
    assert len({id(p) for p in head}) == len(head)


def test_digest_knows_weights_buffers_and_blueprint():
    def made(classes="ab"):
        return open_model("small", classes=classes, shape=(1, 4, 4))

    first = made()
    assert first.digest() == made().digest()
    assert first.digest() != made("ba").digest()
    with torch.no_grad():
        first.network.features[0][1].running_mean[0] += 1e-6
    assert first.digest() != made().digest()


def test_state_dict_holds_the_network_alone():
    assert all(name.startswith("network.") for name in Classifier(nn.Linear(2, 2), blueprint()).state_dict())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ()}, "at least one class"),
        ({"classes": ("a", "b", "a")}, "'a' comes 2 times"),
        ({"shape": (3, 0, 4)}, "must be positive"),
        ({"shape": ()}, "must be positive"),
        ({"mean": (0.5, 0.5)}, "got 2 and 1"),
        ({"std": (0.0,)}, "above 0"),
    ],
)
def test_impossible_blueprints_are_refused(changes, words):
    with pytest.raises(Misuse, match=words):
        blueprint(**changes)


def test_a_blueprint_survives_json():
    made = blueprint(mean=(0.1, 1 / 3, math.pi), std=(1.0, 2.0, 3.0), size=(7, 9), options={"img_size": [7, 9]})
    assert Blueprint.from_json(made.to_json()) == made


@pytest.mark.parametrize("text", ["{}", "[1]", "null", "{", '{"address": "small", "classes": 3}'])
def test_what_is_no_blueprint_is_refused(text):
    with pytest.raises(Misuse, match="not a blueprint"):
        Blueprint.from_json(text)


def test_a_blueprint_with_a_foreign_field_is_refused():
    with pytest.raises(Misuse, match=r"not a blueprint.*secret"):
        Blueprint.from_json(blueprint().to_json().replace("{", '{"secret": 1, ', 1))
