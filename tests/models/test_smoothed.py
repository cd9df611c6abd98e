"""Smoothed classifiers as models: closed forms, determinism, and the way to disk and back."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from poise.core.losses import misclassified
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.models import Blueprint, Classifier, Smoothed, SmoothedClassifier, load_model, open_model, save_model, smooth
from poise.models.mixing import Blend, MixedClassifier, Sharpening
from poise.models.smoothed import gaussian
from tests.models_for_tests import linear_classifier

_MILD = {"scale": 1.0, "power": 1.0, "shift": 0.0}


def _digits(vote="soft", **options):
    return smooth(open_model("small", classes=tuple("abc"), shape=(1, 8, 8), seed=1), sigma=0.2, vote=vote, **options)


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_the_softmax_of_its_logits_are_the_mean_votes(vote):
    """A linear classifier of two classes under noise: the share of votes is Phi(gap / (sigma |w|))."""
    model = linear_classifier(2, (1, 2, 2))
    with torch.no_grad():
        model.network.weight.mul_(200.0)  # then probabilities are votes
    image = torch.tensor([[[[0.2, 0.7], [0.4, 0.9]]]])
    model.requires_grad_(requires_grad=False)
    gap = model(image)[0] @ torch.tensor([1.0, -1.0])
    length = (model.network.weight[0] - model.network.weight[1]).norm()
    expected = stats.norm.cdf(float(gap / length) / 0.3)
    found = smooth(model, sigma=0.3, samples=40_000, vote=vote)(image).softmax(1)[0, 0]
    assert float(found) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_it_says_the_same_every_time_and_in_every_batch(vote):
    model, images = _digits(vote).eval(), torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        whole = model(images)
        assert torch.equal(whole, model(images))
        assert torch.allclose(whole[2:3], model(images[2:3]), atol=1e-5)
        assert not torch.allclose(whole, _digits(vote, seed=1).eval()(images), atol=1e-6)
    assert whole.isfinite().all()
    assert torch.allclose(whole.exp().sum(1), torch.ones(5), atol=1e-5)


def test_soft_votes_pass_gradients_and_scale_sharpens_before_the_average():
    images = torch.rand(3, 1, 8, 8, requires_grad=True)
    model = _digits(samples=16).eval()
    model(images).sum().backward()
    assert (images.grad.abs() > 0).any()
    scaled, inner = _digits(samples=16, scale=3.0).eval(), model.network.inner
    noise = gaussian(Stream.seeded(0).fold("smoothed"), torch.arange(16), (1, 8, 8))
    noisy = images[:, None] + 0.2 * noise[None]
    expected = (3.0 * inner(noisy.flatten(0, 1))).softmax(1).unflatten(0, (3, 16)).mean(1)
    assert torch.allclose(scaled(images).exp(), expected, atol=1e-6)


def test_it_comes_back_from_disk_bit_by_bit(tmp_path):
    model, images = _digits("hard").eval(), torch.rand(4, 1, 8, 8)
    save_model(model, tmp_path)
    back = load_model(tmp_path).eval()
    assert isinstance(back, SmoothedClassifier)
    assert isinstance(back.network, Smoothed)
    assert tuple(back.surrogates()) == ("soft",)
    assert back.digest() == model.digest()
    assert torch.equal(back(images), model(images))
    opened = open_model(f"run:{tmp_path}", classes=tuple("abc"), shape=(1, 8, 8))
    assert opened.digest() == model.digest()
    assert opened.digest() != _digits("soft").digest()


class _Mute(nn.Module):
    """Says NaN of images whose first value is beyond a bound, and is otherwise as linear as can be."""

    def __init__(self, bound=0.5, classes=3):
        super().__init__()
        self.bound, self.classes, self.weight = bound, classes, nn.Parameter(torch.ones(1))

    def forward(self, images):
        flat = images.flatten(1)
        return (self.weight * flat[:, : self.classes]).masked_fill(flat[:, :1] > self.bound, torch.nan)


def _mute(vote, bound, **options):
    names = tuple("abc")
    inner = Classifier(_Mute(bound), Blueprint(address="python:tests", classes=names, shape=(1, 2, 2)))
    return smooth(inner, sigma=0.2, vote=vote, **options).eval()


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_a_copy_without_an_answer_votes_for_nobody(vote):
    """Of 64 copies of an image at the bound about half are beyond it; the votes of the others add up to their share."""
    image = torch.tensor([[[[0.5, 0.9], [0.1, 0.2]]]], requires_grad=True)
    model = _mute(vote, 0.5)
    noise = gaussian(Stream.seeded(0).fold("smoothed"), torch.arange(64), (1, 2, 2))
    heard = 0.5 + 0.2 * noise[:, 0, 0, 0] <= 0.5
    shares = model.network.shares(image.detach() + 0.2 * noise)
    given = shares.exp() if vote == "soft" else shares
    assert torch.equal(given.sum(1).round(decimals=5), heard.float())
    said = model(image)
    assert 16 < heard.sum() < 48
    assert float(said.detach().exp().sum()) == pytest.approx(float(heard.float().mean()), abs=1e-6)
    if vote == "soft":
        said[0, 1].backward()
        assert image.grad.isfinite().all()
        assert (image.grad != 0).any()


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_an_image_that_no_copy_answers_for_is_predicted_by_nobody(vote):
    said = _mute(vote, -9.0)(torch.rand(3, 1, 2, 2))
    assert said.isnan().all()
    assert misclassified(said, torch.zeros(3, dtype=torch.long)).all()


def test_infinite_logits_are_no_probabilities():
    model = _mute("soft", 9.0)
    through = torch.nn.Module()
    through.forward = lambda noisy: torch.tensor([[torch.inf, 0.0, 0.0], [-torch.inf, 0.0, 0.0]])
    shares = model.network.shares(torch.zeros(2, 1, 2, 2), through)
    assert torch.equal(shares.exp(), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]))


def test_hard_votes_are_attacked_through_soft_ones_over_the_same_noise():
    hard, soft, images = _digits("hard", seed=3), _digits("soft", seed=3), torch.rand(3, 1, 8, 8, requires_grad=True)
    offered = hard.eval().surrogates()["soft"]
    with torch.no_grad():
        assert torch.equal(offered(images), soft.eval()(images))
    offered(images).sum().backward()
    assert (images.grad.abs() > 0).any()
    assert soft.surrogates() == {}


@pytest.mark.parametrize("vote", ["hard", "soft"])
def test_a_smoothed_mixture_offers_what_the_mixture_does(vote):
    branches = [open_model("small", classes=tuple("abc"), shape=(1, 8, 8), seed=seed) for seed in (1, 2)]
    mixed = MixedClassifier.of(*branches, Blend(alpha_low=0.6, alpha_high=0.6, sharpening=Sharpening(**_MILD)))
    offered, images = smooth(mixed, sigma=0.2, samples=8, vote=vote).eval().surrogates(), torch.rand(3, 1, 8, 8)
    assert tuple(offered) == (
        *(["soft"] if vote == "hard" else []),
        "inner joint",
        "inner robust",
        "inner standard",
        "inner linear",
    )
    alone = smooth(branches[1], sigma=0.2, samples=8, vote="soft").eval()
    with torch.no_grad():
        assert torch.equal(offered["inner robust"](images), alone(images))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"sigma": 1.0, "samples": 0}, "at least 1 sample"),
        ({"sigma": 1.0, "vote": "hrad"}, "did you mean 'hard'"),
        ({"sigma": 1.0, "scale": -1.0}, "scale"),
    ],
)
def test_impossible_smoothing_is_refused(options, line, unchecked):
    with pytest.raises(Misuse, match=line):
        smooth(linear_classifier(2, (1, 2, 2)), **options)


def test_what_is_smoothed_is_not_smoothed_again():
    with pytest.raises(Misuse, match="smoothed already"):
        smooth(_digits(), sigma=0.1)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 5)])
def test_noise_is_standard_normal_and_belongs_to_example_and_step(size):
    stream, ids = Stream.seeded(3), torch.arange(4000) * 17
    values = gaussian(stream, ids, size)
    assert values.shape == (4000, *size)
    assert stats.kstest(values.flatten()[:40_000].numpy(), "norm").pvalue > 1e-3
    flat = values.flatten(1)
    assert (torch.corrcoef(flat.T) - torch.eye(flat.shape[1])).abs().max() < 0.09
    assert torch.equal(gaussian(stream, ids[7:9], size), values[7:9])
    steps = torch.tensor([0, 5])
    assert torch.equal(gaussian(stream, ids[7:9], size, steps)[0], values[7])
    assert not torch.equal(gaussian(stream, ids[7:9], size, steps)[1], values[8])
