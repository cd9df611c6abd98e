"""The mixture's arithmetic against mpmath, and what a mixed classifier promises."""

from __future__ import annotations

from contextlib import nullcontext

import mpmath
import pytest
import torch
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.models import load_model, open_model, save_model
from poise.models.mixing import Blend, MixedClassifier, Sharpening, branches
from poise.models.mixing.branches import Seen
from poise.models.mixing.logspace import log_mean, log_of, log_probabilities, log_weights
from tests.models.mixing.branches import SHAPE, gated, given, network, ones

GAPS = (0.0, 1.0, 50.0, 120.0, 700.0, 1e4)


def _reference(standard, robust, alpha):
    """log((1 - a) softmax(g) + a softmax(h)) and its Jacobians by g, h and alpha, to 330 digits."""
    mpmath.mp.dps = 330
    g, h = ([mpmath.mpf(value) for value in row] for row in (standard, robust))
    p, q = ([mpmath.exp(v - max(row)) for v in row] for row in (g, h))
    p, q = ([v / sum(row) for v in row] for row in (p, q))
    mixed = [(1 - alpha) * a + alpha * b for a, b in zip(p, q, strict=True)]
    by_g = [[(1 - alpha) * p[i] * ((i == j) - p[j]) / mixed[i] for j in range(len(p))] for i in range(len(p))]
    by_h = [[alpha * q[i] * ((i == j) - q[j]) / mixed[i] for j in range(len(q))] for i in range(len(q))]
    by_alpha = [(q[i] - p[i]) / mixed[i] for i in range(len(p))]
    return [mpmath.log(value) for value in mixed], by_g, by_h, by_alpha


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("other", GAPS)
@pytest.mark.parametrize("alpha", [1e-3, 0.5, 0.9875])
def test_values_and_gradients_are_those_of_the_reference_at_any_gap(gap, other, alpha):
    standard = torch.tensor([[gap, 0.0, -gap / 3]], dtype=torch.float64, requires_grad=True)
    robust = torch.tensor([[-other / 7, other, 0.25]], dtype=torch.float64, requires_grad=True)
    found = log_mean(log_probabilities(standard), log_probabilities(robust), log_of(1 - alpha), log_of(alpha))
    values, by_g, by_h, _ = _reference(standard[0].tolist(), robust[0].tolist(), mpmath.mpf(alpha))
    assert found[0].tolist() == pytest.approx([float(value) for value in values], rel=1e-12)
    for index in range(3):
        slopes = torch.autograd.grad(found[0, index], (standard, robust), retain_graph=True)
        for slope, exact in zip(slopes, (by_g[index], by_h[index]), strict=True):
            assert slope.isfinite().all()
            assert slope[0].tolist() == pytest.approx([float(value) for value in exact], rel=1e-9, abs=1e-300)
            assert all((s != 0) or abs(e) < 1e-300 for s, e in zip(slope[0].tolist(), exact, strict=True))


@pytest.mark.parametrize("raw", [-300.0, -30.0, 0.0, 2.5, 30.0, 300.0])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.95), (0.0, 0.5), (0.5, 1.0)])
def test_the_gate_is_never_stuck_unless_alpha_is(raw, low, high):
    """The gradient by the raw gate equals d mixed / d alpha times d alpha / d raw, computed where nothing saturates."""
    mpmath.mp.dps = 330
    value = torch.tensor([raw], dtype=torch.float64, requires_grad=True)
    rest, weight = log_weights(value, low, high)
    mixed = log_mean(
        log_probabilities(torch.tensor([[40.0, 0.0]])),
        log_probabilities(torch.tensor([[0.0, 40.0]])),
        rest,
        weight,
    )
    sigmoid = 1 / (1 + mpmath.exp(-mpmath.mpf(raw)))
    alpha = mpmath.mpf(low) + (mpmath.mpf(high) - mpmath.mpf(low)) * sigmoid
    values, _, _, by_alpha = _reference([40.0, 0.0], [0.0, 40.0], alpha)
    assert weight.tolist() == pytest.approx([float(mpmath.log(alpha))], rel=1e-12)
    assert mixed[0].tolist() == pytest.approx([float(v) for v in values], rel=1e-12)
    slope = (mpmath.mpf(high) - mpmath.mpf(low)) * sigmoid * (1 - sigmoid)
    for index in range(2):
        found = torch.autograd.grad(mixed[0, index], value, retain_graph=True)[0]
        exact = float(by_alpha[index] * slope)
        assert float(found) == pytest.approx(exact, rel=1e-9, abs=1e-300)
        assert float(found) != 0


def test_float32_branches_are_mixed_as_well_as_their_logits_allow():
    """The official formula gives -inf and a dead gradient here; a gap of 1e4 leaves ours right."""
    standard, robust = torch.tensor([[1e4, 0.0, 0.0]]), torch.tensor([[1e4, 0.0, -1e4]])
    mixed = MixedClassifier.of(given(standard), given(robust), 0.5)
    images = ones(1, torch.float32).requires_grad_()
    naive = (0.5 * standard.softmax(1) + 0.5 * robust.softmax(1)).log()
    assert naive[0, 1] == -torch.inf
    found = mixed(images)
    assert found.dtype == torch.float32
    values = _reference(standard[0].tolist(), robust[0].tolist(), mpmath.mpf("0.5"))[0]
    assert found[0].tolist() == pytest.approx([float(value) for value in values], rel=1e-6)
    loss = functional.cross_entropy(found, torch.tensor([0]))
    lead = found[0, 0] - found[0, 1]
    assert loss.isfinite()
    assert torch.autograd.grad(lead, images)[0].item() == pytest.approx(1e4, rel=1e-5)


def test_it_equals_the_published_formula_where_that_does_not_underflow():
    torch.manual_seed(0)
    standard, robust = 5 * torch.randn(20, 7, dtype=torch.float64), torch.randn(20, 7, dtype=torch.float64)
    blend = Blend(alpha_low=0.84, alpha_high=0.84, scale_standard=2.0, scale_robust=0.3)
    mixed = MixedClassifier.of(given(standard), given(robust), blend)
    expected = (0.16 * (2 * standard).softmax(1) + 0.84 * (0.3 * robust).softmax(1)).log()
    assert torch.allclose(mixed(ones(20)), expected, rtol=1e-12)
    assert torch.allclose(mixed.robust_probabilities(ones(20)), (0.3 * robust).softmax(1), rtol=1e-12)


@pytest.mark.parametrize(("alpha", "runs"), [(0.0, (1, 0)), (1.0, (0, 1)), (0.3, (1, 1))])
def test_each_branch_runs_once_and_at_the_ends_one_alone(alpha, runs):
    standard, robust = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    mixed = MixedClassifier.of(given(standard), given(robust), alpha)
    found = mixed(ones(4))
    assert (mixed.standard.network.calls, mixed.robust.network.calls) == runs
    if alpha in {0.0, 1.0}:
        assert torch.allclose(found, (robust if alpha else standard).log_softmax(1), rtol=1e-14)
        assert torch.equal(found, log_probabilities(robust if alpha else standard))


def test_alpha_stays_within_its_bounds_whatever_the_gate_says():
    mixed = gated(low=0.25, high=0.75).double()
    images = torch.rand(5, *SHAPE, dtype=torch.float64)
    inside = mixed.alpha(images)
    assert ((inside > 0.25) & (inside < 0.75)).all()
    assert len(set(inside.tolist())) == 5
    for pushed, bound in ((-1e4, 0.25), (1e4, 0.75)):
        torch.nn.init.constant_(mixed.gate.score.bias, pushed)
        assert mixed.alpha(images).tolist() == pytest.approx([bound] * 5)


def test_the_gradient_flows_through_alpha():
    mixed = gated().double()
    images = torch.rand(2, *SHAPE, dtype=torch.float64, requires_grad=True)
    through = torch.autograd.grad(mixed(images)[:, 0].sum(), images)[0]
    step = 1e-6 * torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rise = (mixed(images + step) - mixed(images - step))[:, 0].sum() / 2
    assert float((through * step).sum()) == pytest.approx(float(rise.detach()), rel=1e-3)
    alone = torch.autograd.grad(mixed.alpha(images).sum(), images)[0]
    assert (alone.flatten(1).abs().amax(1) > 0).all()


def test_an_image_s_alpha_does_not_depend_on_its_company_even_in_training():
    mixed = gated().double().train()
    images = torch.rand(6, *SHAPE, dtype=torch.float64)
    assert torch.allclose(mixed.alpha(images)[:1], mixed.alpha(images[:1]), rtol=1e-12)
    assert not mixed.standard.training
    assert mixed.gate.training


@pytest.mark.parametrize(
    ("standard", "robust"),
    [("timm:test_resnet", "timm:test_vit"), ("timm:test_convnext", "resnet18"), ("small", "timm:test_efficientnet")],
)
def test_a_gate_reads_networks_of_any_kind_without_changing_what_they_say(standard, robust, tmp_path):
    mixed = gated(standard, robust).eval()
    images = torch.rand(2, *SHAPE)
    low, high = mixed.alpha_low, mixed.alpha_high
    alpha = mixed.alpha(images)
    assert ((alpha > low) & (alpha < high)).all()
    expected = (1 - alpha)[:, None] * mixed.standard(images).softmax(1)
    expected = expected + alpha[:, None] * mixed.robust(images).softmax(1)
    assert torch.allclose(mixed(images), expected.log(), atol=1e-5)
    save_model(mixed, tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.eval()(images), mixed(images))


def test_swin_too():
    from poise.models.mixing import plan_gate

    swin = open_model("timm:swin_tiny_patch4_window7_224", weights="random", classes="ab", shape=(3, 32, 32))
    plan = plan_gate(swin, open_model("small", classes="ab", shape=(3, 32, 32)))
    assert (plan.standard_layers, plan.robust_layers) == (("0", "1"), ("features.0", "features"))
    assert (plan.early, plan.late) == (96 + 32, 192 + 64)


def test_a_mixture_is_saved_loaded_mixed_again_and_found_by_its_address(tmp_path):
    inner = gated("small", "small")
    save_model(inner, tmp_path / "inner")
    outer = MixedClassifier.of(network("resnet18"), load_model(tmp_path / "inner"), 0.75)
    save_model(outer, tmp_path / "outer")
    images = torch.rand(3, *SHAPE)
    loaded = open_model(f"run:{tmp_path / 'outer'}", shape=SHAPE, classes=outer.classes)
    assert isinstance(loaded, MixedClassifier)
    assert isinstance(loaded.robust, MixedClassifier)
    assert torch.equal(loaded.eval()(images), outer.eval()(images))
    assert loaded.digest() == outer.digest()
    assert (loaded.alpha_low, loaded.robust.alpha_high) == (0.75, 0.9)
    assert list(loaded.surrogates()) == [
        "joint",
        "robust",
        "standard",
        "robust joint",
        "robust robust",
        "robust standard",
        "robust gate",
    ]
    gate = [name for name in loaded.state_dict() if "gate" in name]
    assert gate
    assert all(name.startswith("network.robust.network.gate") for name in gate)


def test_another_alpha_is_another_model_that_shares_the_weights():
    mixed = MixedClassifier.of(network(), network(seed=1), 0.5)
    other = mixed.at(0.8)
    assert other.standard is mixed.standard
    assert other.digest() != mixed.digest()
    assert (mixed.alpha_low, other.alpha_low, other.alpha_high) == (0.5, 0.8, 0.8)
    assert gated().within(0.4, 0.6).alpha_low == 0.4


def test_a_sharpened_mixture_is_the_published_one():
    torch.manual_seed(0)
    standard, robust = torch.randn(30, 6, dtype=torch.float64), 3 * torch.randn(30, 6, dtype=torch.float64)
    sharpening = Sharpening(scale=0.6, power=3.5, shift=-1.1, largest=4)
    alpha = 0.98603
    mixed = MixedClassifier.of(
        given(standard), given(robust), Blend(alpha_low=alpha, alpha_high=alpha, sharpening=sharpening)
    )
    top = robust.sort(dim=1, descending=True).values[:, :4]
    normal = (robust - top.mean(1, keepdim=True)) / (top.var(1, keepdim=True) + 1e-8).sqrt()
    lifted = functional.gelu(normal - 1.1)
    sharpened = (0.6 * lifted.abs() ** 3.5 * lifted.sign()).softmax(1)
    expected = (1 - alpha) * functional.one_hot(standard.argmax(1), 6) + alpha * sharpened
    assert torch.allclose(mixed(ones(30)).exp(), expected, rtol=1e-12)
    assert torch.allclose(mixed.robust_probabilities(ones(30)), sharpened, rtol=1e-12)


def test_impossible_mixtures_are_refused():
    with pytest.raises(Misuse, match="0 <= low <= high <= 1"):
        MixedClassifier.of(network(), network(), 1.2)
    with pytest.raises(Misuse, match="needs a gate"):
        MixedClassifier.of(network(), network(), Blend(alpha_low=0.2, alpha_high=0.4))
    with pytest.raises(Misuse, match="different classes"):
        MixedClassifier.of(network(), open_model("small", classes="abc", shape=SHAPE), 0.5)
    with pytest.raises(Misuse, match="share their dtype"):
        MixedClassifier.of(network(), network().double(), 0.5)
    with pytest.raises(Misuse, match="open both for the images"):
        MixedClassifier.of(network(), open_model("small", classes=network().classes, shape=(3, 8, 8)), 0.5)
    with pytest.raises(Misuse, match="no gate to keep within bounds"):
        MixedClassifier.of(network(), network(), 0.5).within(0.1, 0.2)
    with pytest.raises(Misuse, match="has no layer 'layer9'"):
        from poise.models.mixing import plan_gate

        plan_gate(network(), network(), standard_layers=("layer9", "head"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_streams_change_nothing():
    mixed = gated().eval()
    images = torch.rand(16, *SHAPE)
    expected = mixed(images)
    mixed.cuda()
    leaf = images.cuda().requires_grad_()
    for _ in range(20):
        found = mixed(leaf)
        slope = torch.autograd.grad(found[:, 0].sum(), leaf)[0]
        assert torch.allclose(found.cpu(), expected, atol=1e-3)
        assert slope.isfinite().all()


class _OnCuda(torch.Tensor):
    """Says that it lies on a CUDA device."""

    is_cuda = True
    device = torch.device("cuda", 0)

    def record_stream(self, stream):
        """Streams have no memory here."""


def test_all_passes_on_a_device_share_one_stream_beside_the_current_one(monkeypatch, unchecked):
    """What the allocator holds for a stream serves no other one."""
    made = []

    class Stream:
        def __init__(self, device=None):
            made.append(device)

        def wait_stream(self, other):
            pass

    current = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    branches._beside.cache_clear()
    images = torch.rand(2, 3).as_subclass(_OnCuda)
    for _ in range(3):
        first, second = branches.both(lambda each: Seen(each, []), lambda each: Seen(2 * each, []), images)
    assert made == [None, images.device]
    assert torch.equal(second.logits, 2 * first.logits)
    branches._beside.cache_clear()
