from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from poise.core.misuse import Misuse
from poise.core.threat import NORMS, Threat
from poise.data import InMemory
from poise.evaluation import Examination, accuracy_curve, examine
from poise.evaluation.judge import _Examining
from tests.linear import smallest_radius
from tests.models_for_tests import linear_classifier, random_images, small_network

BUDGET = {"linf": 0.05, "l2": 0.3, "l1": 1.5}


def _examined(classifier, images, **options):
    norm = options.pop("norm", "linf")
    options = {"suite": "pgd"} | options
    journal, whole = options.pop("journal", None), options.pop("whole", None)
    examination = Examination(threat=Threat(norm=norm, epsilon=BUDGET[norm]), **options)
    return examine(classifier, images, examination, model_address="made", journal=journal, whole=whole)


@pytest.mark.parametrize("norm", NORMS)
def test_verdicts_agree_with_the_exact_distance_on_a_linear_model(norm):
    classifier = linear_classifier(2, (2, 3, 3))  # with more classes cross-entropy has several maxima over a ball
    images = random_images(classifier, 60)
    found = _examined(classifier, images, norm=norm)
    grid = np.asarray(found.epsilons)
    assert len(set(found.broken_from.tolist())) >= 3
    slack = 1.1 if norm == "l1" else 1.02  # of 40 plain steps
    for row in range(60):
        if found.broken_from[row] == 0:
            assert found.predictions[row] != found.labels[row]
            continue
        image, label = images.images(torch.tensor([row]))[0], int(images.labels[row])
        exact = smallest_radius(classifier.network.weight, image, label, norm)
        assert not (grid[1 : found.robust_to[row] + 1] > slack * exact).any(), "a breakable example was called robust"
        assert not (grid[found.broken_from[row] :] < 0.999 * exact).any(), "an unbreakable example was called broken"


def test_clean_figures_are_the_models_own():
    classifier = small_network().eval()
    images = random_images(classifier, 30, agree=0.6)
    found = _examined(classifier, images)
    logits = classifier(images.images(torch.arange(30))).detach()
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    assert ((found.broken_from == 0) == (found.predictions != found.labels)).all()
    assert ((found.margins > 0) == (found.broken_from > 0)).all()
    assert {by for by, at in zip(found.broken_by, found.broken_from, strict=True) if at == 0} == {"clean"}


def test_verdicts_do_not_depend_on_batch_size_or_order():
    classifier = small_network().double()
    images = random_images(classifier.eval(), 24)
    images = InMemory("made", images.classes, images.ids, images.labels, images.images(torch.arange(24)))
    whole, single = _examined(classifier, images), _examined(classifier, images, batch_size=1)
    assert np.array_equal(whole.broken_from, single.broken_from)
    order = torch.randperm(24)
    shuffled = _examined(classifier, images.select(order), batch_size=7)
    assert np.array_equal(shuffled.broken_from, whole.broken_from[order.numpy()])


def test_the_classifier_is_judged_in_eval_mode_and_left_as_it_was():
    classifier = small_network().train()
    classifier.network[1].eval()
    state = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    images = random_images(small_network().eval(), 20)
    first, second = _examined(classifier, images), _examined(classifier.eval(), images)
    assert np.array_equal(first.broken_from, second.broken_from)
    assert all(torch.equal(tensor, state[name]) for name, tensor in classifier.state_dict().items())


def test_the_header_says_what_was_measured():
    classifier = linear_classifier(3, (4,))
    images = random_images(linear_classifier(3, (2, 1, 2)), 5)
    classifier = linear_classifier(3, (2, 1, 2))
    made = _examined(classifier, images, suite="fast", seed=7).header
    assert (made.suite, made.seed, made.norm, made.classes) == ("fast", 7, "linf", images.classes)
    assert (made.model, made.data) == (classifier.digest(), images.digest())
    assert set(made.versions) == {"python", "poise", "torch", "timm"}


@pytest.mark.parametrize("suite", ["apgd", "fast"])
def test_bisecting_and_ascending_agree(suite):
    classifier = small_network().double().eval()
    images = random_images(classifier, 40)
    bisected, ascended = (_examined(classifier, images, suite=suite, mode=mode) for mode in ("bisect", "ascending"))
    assert bisected.settled
    assert ascended.settled
    assert 0 < (bisected.broken_from < 9).sum() < 40
    curves = [accuracy_curve(made).accuracy for made in (bisected, ascended)]
    assert max(abs(one.value - other.value) for one, other in zip(*curves, strict=True)) <= 1 / 40


class _Cramped(nn.Module):
    """Runs out of memory on more than so many rows."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most, self.refused = inner, most, 0

    def forward(self, images):
        if len(images) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("full")
        return self.inner(images)


def test_verdicts_do_not_depend_on_memory():
    """In the clean pass, in attacks, in confirming and in tightening; the number of slots is chosen and halved."""
    classifier = linear_classifier(3, (1, 3, 3), dtype=torch.float64)
    images = random_images(classifier, 20)
    whole = _examined(classifier, images, suite="apgd")
    classifier.network = cramped = _Cramped(classifier.network, 3)
    found = _examined(classifier, images, suite="apgd", batch_size=None)
    assert np.array_equal(found.broken_from, whole.broken_from)
    assert 5 <= cramped.refused <= 6  # 128 to 4 or less
    assert (found.broken_from < 9).sum() > 0


class _Noisy(nn.Module):
    """A linear model whose logits are shuffled in a fifth of all passes."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        logits = self.inner(images)
        return logits.flip(1) if torch.rand(()) < 0.2 else logits


def test_a_random_model_is_judged_by_its_mean_answer_and_leaves_the_global_randomness_alone():
    classifier = linear_classifier(2, (1, 3, 3))
    images = random_images(classifier, 12, agree=1.0)
    exact = _examined(classifier, images, suite="autoattack-rand")
    classifier.network = _Noisy(classifier.network)
    state = torch.get_rng_state()
    first, second = (_examined(classifier, images, suite="autoattack-rand") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first.broken_from, second.broken_from)
    assert (first.broken_from > 0).mean() > 0.9
    assert np.abs(first.broken_from - exact.broken_from).mean() < 1
    lucky = _examined(classifier, images, suite="fast")
    assert (lucky.broken_from < first.broken_from).any(), "one lucky pass is enough without the mean"
    assert (lucky.broken_from <= first.broken_from).all()


class _Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("kill_at", [2, 7])
def test_an_interrupted_examination_goes_on_where_it_stopped(tmp_path, kill_at):
    classifier = small_network().double().eval()
    images = random_images(classifier, 12)
    examination = Examination(threat=Threat(epsilon="0.05"), suite="apgd", batch_size=4)
    whole = examine(classifier, images, examination, model_address="made")
    path, looks = tmp_path / "p.parquet", 0

    def kill(share, facts):
        nonlocal looks
        looks += 1
        if looks == kill_at:
            raise _Killed

    with pytest.raises(_Killed):
        examine(classifier, images, examination, model_address="made", journal=path, watch=kill)
    journal = tmp_path / "p.parquet.journal.0"
    kept = journal.read_bytes().splitlines()
    journal.write_bytes(journal.read_bytes() + b"[3,0,")  # torn by the end of the process
    resumed = examine(classifier, images, examination, model_address="made", journal=path)
    assert np.array_equal(resumed.broken_from, whole.broken_from)
    assert resumed.broken_by == whole.broken_by
    lines = journal.read_bytes().splitlines()
    assert lines[: len(kept)] == kept
    tried = [tuple(json.loads(line)[:3]) for line in lines[1:] if line not in {b"[1]", b"[2]"}]
    assert len(tried) == len(set(tried)), "something settled was attacked again"


def test_a_journal_of_something_else_is_refused_by_name(tmp_path):
    classifier = small_network().eval()
    images = random_images(classifier, 6)
    path = tmp_path / "p.parquet"
    _examined(classifier, images, journal=path)
    with pytest.raises(Misuse, match=r"p\.parquet\.journal\.0 was begun with another seed \(0, now 1\)"):
        _examined(classifier, images, journal=path, seed=1)
    (tmp_path / "p.parquet.journal.0").write_bytes(b"garbage\n")
    with pytest.raises(Misuse, match="is no journal of a profile"):
        _examined(classifier, images, journal=path)


@pytest.mark.parametrize("begun", ["part", "whole"])
def test_a_journal_of_other_images_of_the_same_set_is_refused(tmp_path, begun):
    classifier = small_network().eval()
    images = random_images(classifier, 6)
    part, path = images.select(torch.arange(3, 6)), tmp_path / "p.parquet"
    calls = [{"images": part, "whole": images}, {"images": images}]
    for call, line in zip(calls[:: 1 if begun == "part" else -1], ("", r"begun with another part \("), strict=True):
        with pytest.raises(Misuse, match=line) if line else nullcontext():
            _examined(classifier, call.pop("images"), journal=path, **call)


class _UnderInference(nn.Module):
    """A convolution and a batch norm whose answer is an inference tensor."""

    def __init__(self):
        super().__init__()
        self.inner = small_network().network

    @torch.inference_mode()
    def forward(self, images):
        return self.inner(images)


def test_a_model_that_predicts_under_inference_mode_is_judged_without_gradients():
    classifier = small_network().eval()
    images = random_images(classifier, 6)
    classifier.network = _UnderInference().eval()
    assert (_examined(classifier, images, suite="autoattack", points=()).robust()[:, 0]).any()


def test_two_shares_make_the_whole():
    """What two processes would each do, one after the other."""
    classifier = small_network().double().eval()
    images = random_images(classifier, 21)
    whole = _examined(classifier, images)
    made = _Examining(classifier, images, Examination(threat=Threat(epsilon="0.05"), suite="pgd"), whole.header)
    for rank in range(2):
        for _ in made.attack(range(rank, 21, 2)):
            pass
    assert np.array_equal(made.brackets.broken_from, whole.broken_from)


def test_chosen_points_are_the_grid():
    classifier = linear_classifier(3, (2, 1, 2))
    found = _examined(classifier, random_images(classifier, 5), points=(0.02,))
    assert found.epsilons == (0, 0.02, 0.05)


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(Misuse, match="they must be the same"):
        _examined(linear_classifier(4, (2, 1, 2)), random_images(linear_classifier(3, (2, 1, 2)), 5))


@pytest.mark.parametrize(
    ("wrong", "values"),
    [
        (lambda images: 255 * images, "from .* to 132.2"),
        (lambda images: 2 * images - 1, "from -0.9"),
        (lambda images: images.masked_fill(images == images[3].max(), torch.nan), "from nan to nan"),
    ],
)
def test_images_outside_the_box_are_refused_by_name_as_nothing_could_break_them(wrong, values):
    classifier = linear_classifier(3, (2, 1, 2))
    images = random_images(classifier, 8)
    pixels = images.images(torch.arange(8))
    pixels[3:] = wrong(pixels)[3:]
    outside = InMemory("raw", images.classes, images.ids, images.labels, pixels)
    with pytest.raises(Misuse, match=rf"the image image/0003 has values {values}.*must lie in \[0, 1\]"):
        _examined(classifier, outside)


@pytest.mark.usefixtures("unchecked")
def test_impossible_examinations_are_refused_when_made():
    with pytest.raises(Misuse, match="unknown suite 'pdg'; did you mean 'pgd'"):
        Examination(threat=Threat(), suite="pdg")
    with pytest.raises(Misuse, match="batch_size must be at least 1"):
        Examination(threat=Threat(), batch_size=0)
    with pytest.raises(Misuse, match="beyond the threat"):
        Examination(threat=Threat(), points=(0.5,))
