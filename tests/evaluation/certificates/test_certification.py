"""Certificates of whole classifiers and mixtures, and attacks that try to break them."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from poise.attacks.apgd import APGD
from poise.attacks.driver import run_search
from poise.attacks.search import Problem
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.data import InMemory
from poise.evaluation.certificates import certification as room
from poise.evaluation.certificates.certification import Certification, certify, default_method
from poise.evaluation.certificates.sampling import Sampling
from poise.models import Blueprint, Classifier, smooth
from poise.models.mixing import MixedClassifier
from tests.evaluation.certificates.networks import mixed, named
from tests.models_for_tests import random_images

QUICK = Sampling(samples=200, selection=20)


@pytest.fixture(scope="module")
def subject():
    model = named("convolutional")
    return model, random_images(model, 40)


def _certified(model, images, method="local", norm="linf", **options):
    return certify(model, images, Certification(method=method, norm=norm, **options))


def _attacked(model, images, norm, radii):
    """How many examples APGD, untargeted and at every other class, breaks within their own radii."""
    rows = torch.from_numpy(np.flatnonzero(radii > 0))
    model = copy.deepcopy(model).double()
    labels, found = images.labels[rows], torch.zeros(len(rows), dtype=torch.bool)
    nothing = torch.zeros_like(labels)
    for loss, step in (("ce", 1), ("targeted-dlr", 1), ("targeted-dlr", 2), ("targeted-dlr", 3)):
        problem = Problem(
            images=images.images(rows).double(),
            labels=labels,
            radius=torch.from_numpy(radii)[rows].clamp(max=1.0),
            ids=images.keys[rows],
            targets=(labels + step) % 4,
            restart=nothing,
        )
        search = APGD(norm=norm, stream=Stream.seeded(0), loss_kind=loss, steps=30)
        found |= run_search(search, model, problem)[1]
    return int(found.sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_attack_breaks_a_certified_example_and_larger_balls_can_be_broken(subject, norm):
    model, images = subject
    found = _certified(model, images, norm=norm)
    assert (found.radii > 0).mean() > 0.5
    assert _attacked(model, images, norm, found.radii) == 0
    assert _attacked(model, images, norm, np.minimum(found.radii * 30, 1.0)) > 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_attack_breaks_a_certified_mixture_whatever_its_standard_branch_says(subject, norm):
    model, images = subject
    mixture = mixed(named("dense"), model, 0.75, 0.95, scale=4.0)
    found = _certified(mixture, images, norm=norm)
    alone = _certified(model, images, norm=norm)
    assert (found.radii > 0).sum() > 10
    assert (found.radii <= alone.radii).all()
    assert _attacked(mixture, images, norm, found.radii) == 0


def test_a_wrong_prediction_has_no_radius(subject):
    model, images = subject
    found = _certified(model, images, method="lipschitz")
    with torch.no_grad():
        right = (model(images.images(torch.arange(40))).argmax(1) == images.labels).numpy()
    assert 0 < right.sum() < 40
    assert (found.radii[~right] == 0).all()
    assert (found.radii[right] > 0).all()


@pytest.mark.parametrize("method", ["lipschitz", "local", "smoothing"])
def test_a_mixture_whose_alpha_can_fall_below_one_half_is_never_certified(subject, method):
    model, images = subject
    robust = smooth(model, sigma=0.1) if method == "smoothing" else model
    norm = "l2" if method == "smoothing" else "linf"
    found = _certified(mixed(named("dense"), robust, 0.49, 0.99), images, method=method, norm=norm, sampling=QUICK)
    assert (found.radii == 0).all()


def test_local_bounds_and_margins_add_to_the_radius_of_a_mixture(subject):
    model, images = subject
    facts = _certified(mixed(named("dense"), model, 0.8, 0.9, scale=4.0), images, norm="l2").facts
    by_step = [facts[f"mean radius by {name}"] for name in ("probabilities", "margins", "local")]
    assert 0 < by_step[0] < by_step[1] < by_step[2]


def test_a_mixture_of_a_smoothed_branch_is_certified_by_sampling(subject):
    model, images = subject
    robust = smooth(model, sigma=0.05, vote="hard")
    alone = _certified(robust, images, method="smoothing", norm="l2", sampling=QUICK)
    mixture = mixed(named("dense"), robust, 0.8, 0.9)
    found = _certified(mixture, images, method="smoothing", norm="l2", sampling=QUICK)
    assert default_method(mixture) == "smoothing"
    assert found.confidence == 0.999
    assert (found.radii <= alone.radii).all()
    # Where all 200 votes agree, the bound is the 200th root of half the error, and the radius follows from it.
    low = 0.0005 ** (1 / 200)
    sure = 0.025 * (stats.norm.ppf(0.8 * low) - stats.norm.ppf(0.2 + 0.8 * (1 - low)))
    assert found.radii.max() == pytest.approx(sure, abs=1e-8)
    assert alone.radii.max() == pytest.approx(0.05 * stats.norm.ppf(low), abs=1e-8)
    inside = _certified(robust, images, method="smoothing", norm="linf", sampling=QUICK)
    assert inside.radii == pytest.approx(alone.radii / np.sqrt(72))


@pytest.mark.parametrize(
    ("robust", "method", "scale", "line"),
    [
        ("plain", "smoothing", 1.0, "not smoothed"),
        ("smoothed", "local", 1.0, "only --method smoothing can certify"),
        ("smoothed", "smoothing", 0.5, "give the scale to the smoothing"),
    ],
)
def test_what_does_not_fit_is_refused(subject, robust, method, scale, line):
    model, images = subject
    branch = smooth(model, sigma=0.1) if robust == "smoothed" else model
    with pytest.raises(Misuse, match=line):
        _certified(mixed(named("dense"), branch, 0.8, 0.9, scale), images, method=method, norm="l2")


@pytest.mark.parametrize("change", [{"mean": (0.1,)}, {"std": (0.5,)}, {"size": (12, 12)}])
@pytest.mark.parametrize("kind", ["mixture", "smoothed", "smoothed in a mixture"])
def test_a_classifier_that_changes_images_before_what_is_certified_is_refused(subject, kind, change):
    """Its radii would be those of other images: attacks do break them."""
    model, images = subject
    whole = mixed(named("dense"), model, 0.8, 0.9) if kind == "mixture" else smooth(model, sigma=0.1)
    whole = Classifier(whole.network, dataclasses.replace(whole.blueprint, **change)).eval()
    if kind == "smoothed in a mixture":
        whole = mixed(named("dense"), whole, 0.8, 0.9)
    method = "local" if kind == "mixture" else "smoothing"
    with pytest.raises(Misuse, match="must hand images on as they are"):
        _certified(whole, images, method=method, norm="l2", sampling=QUICK)


@pytest.mark.parametrize("method", ["lipschitz", "local", "smoothing"])
def test_images_outside_the_box_are_refused(subject, method):
    model, images = subject
    given = smooth(model, sigma=0.1) if method == "smoothing" else model
    shifted = images.images(torch.arange(len(images))) * 3
    outside = InMemory(images.address, images.classes, images.ids, images.labels, shifted)
    with pytest.raises(Misuse, match=r"images must lie in \[0, 1\]"):
        _certified(given, outside, method, "l2", sampling=QUICK)


def test_a_network_in_half_precision_is_refused_where_bounds_are_carried_through_it(subject):
    model, images = subject
    with pytest.raises(Misuse, match=r"one in torch\.bfloat16 is far from it: open it in float32"):
        _certified(copy.deepcopy(model).bfloat16(), images)


def test_nothing_is_proven_of_a_mixture_that_ties_by_rounding(subject):
    """Both branches are as sure as float64 can say, of different classes."""
    _, images = subject
    branches = []
    for favoured in (0, 1):
        linear = nn.Linear(images.images(torch.arange(1)).numel(), len(images.classes))
        nn.init.zeros_(linear.bias).data[favoured] = 60.0
        nn.init.normal_(linear.weight, std=1e-3)
        blueprint = Blueprint(address="made", classes=images.classes, shape=images.shape)
        branches.append(Classifier(nn.Sequential(nn.Flatten(), linear), blueprint))
    some = images.images(torch.arange(len(images)))
    known = InMemory(images.address, images.classes, images.ids, torch.ones_like(images.labels), some)
    for alpha, follows in ((0.50000001, False), (0.5001, True)):
        whole = MixedClassifier.of(*branches, alpha).eval()
        assert bool((whole(some).argmax(1) == 1).all()) == follows
        assert bool((_certified(whole, known, "lipschitz", "l2").radii > 0).all()) == follows


def test_other_classes_are_refused(subject):
    model, images = subject
    other = Classifier(model.network, Blueprint(address="python:tests", classes=("a", "b"), shape=(2, 6, 6)))
    with pytest.raises(Misuse, match="must be the same"):
        _certified(other, images)


def test_an_interrupted_certification_goes_on_where_it_was(subject, tmp_path, monkeypatch):
    model, images = subject
    smoothed, journal = smooth(model, sigma=0.1), tmp_path / "journal"
    options = Certification(method="smoothing", sampling=QUICK)
    whole = certify(smoothed, images, options)
    rows, sampled = [], room.sampled

    def failing(smoothing, batch, *rest):
        rows.extend(batch.ids.tolist())
        if len(rows) > 24:
            raise KeyboardInterrupt
        return sampled(smoothing, batch, *rest)

    monkeypatch.setattr(room, "sampled", failing)
    with pytest.raises(KeyboardInterrupt):
        certify(smoothed, images, options, journal=journal)
    journal.write_bytes(journal.read_bytes() + b"[24, 1, 0.")
    done, rows[:] = set(rows[:24]), []
    monkeypatch.setattr(
        room, "sampled", lambda s, batch, *rest: rows.extend(batch.ids.tolist()) or sampled(s, batch, *rest)
    )
    again = certify(smoothed, images, options, journal=journal)
    assert np.array_equal(again.radii, whole.radii)
    assert len(rows) == 16
    assert not done & set(rows)
    with pytest.raises(Misuse, match="begun with another seed"):
        certify(
            smoothed,
            images,
            Certification(method="smoothing", sampling=Sampling(samples=200, selection=20, seed=1)),
            journal=journal,
        )
    journal.write_text(json.dumps([1]) + "\n")
    with pytest.raises(Misuse, match="no journal of a certification"):
        certify(smoothed, images, options, journal=journal)


def test_the_classifier_is_left_as_it_was(subject):
    model, images = subject
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for subject_, method in ((model, "lipschitz"), (smooth(model, sigma=0.1), "smoothing")):
        _certified(subject_, images.select(torch.arange(4)), method=method, norm="l2", sampling=QUICK)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32
    model.eval()
