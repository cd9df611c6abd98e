"""Values by hand in float64 for every mask, and gradients by finite differences."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from poise.core.misuse import Misuse
from poise.objectives import KL, PCAT, PCT, RCAT, Constrained, Inhibition, Squared
from tests.objectives.congruent.tables import (
    COUNT,
    LABELS,
    MASKS,
    chosen,
    cross_entropies,
    distances,
    logits,
    loss,
    mean,
    right,
    step,
)

EXACT = {"rel": 0, "abs": 1e-12}
PAIRS = list(product(MASKS, MASKS))


def _tables(old: str, new: str):
    return logits("some", 1), logits(old, 2), logits(new, 3)


@pytest.mark.parametrize("mask", MASKS)
def test_the_tables_are_right_where_they_should_be(mask):
    assert [row for row, good in enumerate(right(logits(mask, 2))) if good] == MASKS[mask]


@pytest.mark.parametrize("objective", [PCT, PCAT])
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_pct_and_pcat(objective, old, new):
    z, a, b = _tables(old, new)
    apart = distances(z, a)
    expected = mean(cross_entropies(z)) + 1.5 * mean(apart) + 3 * math.fsum(chosen(apart, right(a))) / COUNT
    assert float(loss(objective(alpha=1.5, beta=3), z, a, b)) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_rcat_with_means_over_the_masks(old, new):
    z, a, b = _tables(old, new)
    near_new, near_old = chosen(distances(z, b), right(b)), chosen(distances(z, a), right(a))
    expected = 0.3 * mean(cross_entropies(z)) + 0.5 * mean(near_new) + 0.2 * mean(near_old)
    assert float(loss(RCAT(alpha=0.5, beta=0.2), z, a, b)) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_rcat_with_means_over_the_batch(old, new):
    z, a, b = _tables(old, new)
    near_old = math.fsum(chosen(distances(z, a), right(a))) / COUNT
    expected = 0.3 * mean(cross_entropies(z)) + 0.5 * mean(distances(z, b)) + 0.2 * near_old
    objective = RCAT(alpha=0.5, beta=0.2, normalisation="batch")
    assert float(loss(objective, z, a, b)) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(("old", "new"), PAIRS)
@pytest.mark.parametrize("weigh", ["swap-flips", "current-flips"])
def test_rcat_that_counts_only_flips(old, new, weigh):
    z, a, b = _tables(old, new)
    wrong = [not good for good in right(b if weigh == "swap-flips" else z)]
    flips = [good and bad for good, bad in zip(right(a), wrong, strict=True)]
    near_new = mean(chosen(distances(z, b), right(b)))
    expected = 0.3 * mean(cross_entropies(z)) + 0.5 * near_new + 0.2 * mean(chosen(distances(z, a), flips))
    assert float(loss(RCAT(alpha=0.5, beta=0.2, weigh=weigh), z, a, b)) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("old", MASKS)
@pytest.mark.parametrize("surrogate", ["distance", "hinge"])
def test_constrained(old, surrogate):
    z, a, b = _tables(old, "all")
    margins = [row[label] - max(row[:label] + row[label + 1 :]) for row, label in zip(z.tolist(), LABELS, strict=True)]
    stand_in = distances(z, a) if surrogate == "distance" else [max(0.0, 1 - value) for value in margins]
    expected = (mean(cross_entropies(z)) + 2.5 * mean(chosen(stand_in, right(a)))) / 3.5
    state = {"multiplier": torch.tensor(2.5), "flips": torch.tensor(0.0), "weight": torch.tensor(0.0)}
    found = float(loss(Constrained(surrogate=surrogate), z, a, b, state))
    assert found == pytest.approx(expected, **EXACT)


EVERY = [
    PCT(),
    PCAT(distance=KL(temperature=2)),
    RCAT(),
    RCAT(distance=Inhibition(margin=0.1, power=3, top=3, wrong_only=True)),
    RCAT(normalisation="batch", weigh="swap-flips", distance=KL()),
    RCAT(weigh="current-flips"),
    Constrained(),
    Constrained(surrogate="hinge"),
]


@pytest.mark.parametrize("objective", EVERY, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("old", MASKS)
def test_gradients_are_those_of_finite_differences(objective, old):
    z, a, b = _tables(old, "others")
    state = {"multiplier": torch.tensor(0.7), "flips": torch.tensor(0.0), "weight": torch.tensor(0.0)}
    assert torch.autograd.gradcheck(lambda at: loss(objective, at, a, b, state), z.requires_grad_(), atol=1e-7)


@pytest.mark.parametrize("objective", EVERY, ids=lambda each: type(each).__name__)
def test_without_any_right_reference_loss_and_gradient_are_numbers(objective):
    z, a, b = _tables("none", "none")
    state = {"multiplier": torch.tensor(1.0), "flips": torch.tensor(0.0), "weight": torch.tensor(0.0)}
    value = loss(objective, z.requires_grad_(), a, b, state)
    value.backward()
    assert bool(value.isfinite())
    assert bool(z.grad.isfinite().all())


def test_terms_say_what_was_right_and_what_was_lost():
    z, a, b = _tables("others", "all")
    terms = RCAT().terms(step(z.requires_grad_(), a, b))
    lost = [good and not now for good, now in zip(right(a), right(z), strict=True)]
    assert float(terms["flips"]) == pytest.approx(sum(lost) / COUNT)
    assert 0 < sum(lost) < COUNT
    assert float(terms["accuracy"]) == pytest.approx(mean(right(z)))
    assert float(terms["distance_old"]) == pytest.approx(mean(chosen(distances(z, a), right(a))))
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]


def test_a_reference_that_says_nan_is_not_right():
    z, a, b = _tables("all", "all")
    a[2, 3] = torch.nan
    terms = RCAT().terms(step(z, a, b))
    assert float(terms["loss"]) == pytest.approx(
        0.1 * mean(cross_entropies(z))
        + 0.5 * mean(distances(z, b))
        + 0.4 * mean(chosen(distances(z, a), [row != 2 for row in range(COUNT)])),
        **EXACT,
    )


def test_kl_is_the_divergence_of_tempered_softmaxes_times_the_squared_temperature():
    z, a, _ = _tables("all", "all")
    found = KL(temperature=2)(z, a, LABELS)
    for row in range(COUNT):
        p, q = ((table[row] / 2).exp() / (table[row] / 2).exp().sum() for table in (a, z))
        assert float(found[row]) == pytest.approx(4 * float((p * (p / q).log()).sum()), **EXACT)


def test_kl_at_high_temperature_is_the_squared_distance_of_centred_logits():
    z, a, _ = _tables("all", "all")
    centred = [table - table.mean(1, keepdim=True) for table in (z, a)]
    torch.testing.assert_close(KL(temperature=1e4)(z, a, LABELS), Squared()(*centred, LABELS), rtol=1e-3, atol=0)


def test_inhibition_counts_what_exceeds_the_margin_in_the_references_first_classes():
    z = torch.tensor([[1.0, 0.2, -1.0, 3.0]], dtype=torch.float64)
    a = torch.tensor([[2.0, 0.0, 0.5, 1.0]], dtype=torch.float64)
    label = torch.tensor([3])
    assert float(Inhibition()(z, a, label)) == pytest.approx((0.5**2 + 0 + 1.0**2 + 1.5**2) / 4, **EXACT)
    assert float(Inhibition(power=1, margin=0)(z, a, label)) == pytest.approx((1 + 0.2 + 1.5 + 2) / 4, **EXACT)
    assert float(Inhibition(top=2)(z, a, label)) == pytest.approx((0.5**2 + 1.5**2) / 2, **EXACT)
    assert float(Inhibition(top=2, wrong_only=True)(z, a, label)) == pytest.approx((0.5**2 + 1.0**2) / 2, **EXACT)
    assert float(Inhibition(top=99)(z, a, label)) == float(Inhibition()(z, a, label))
    assert Inhibition(margin=0, power=2)(z, a, label) == 2 * Squared()(z, a, label)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: RCAT(alpha=0.7, beta=0.4), "sum to at most 1; got alpha 0.7 and beta 0.4"),
        (lambda: RCAT(alpha=-0.1), "at least 0"),
        (lambda: RCAT(alpha=math.nan), "got alpha nan"),
        (lambda: PCAT(beta=-1), "PCAT needs weights of at least 0; got alpha 1.0 and beta -1"),
        (lambda: PCT(alpha=math.inf), "PCT needs weights"),
        (lambda: RCAT(weigh="flips"), "unknown weigh 'flips'; "),
        (lambda: RCAT(normalisation="bach"), "did you mean 'batch'"),
        (lambda: PCT(statistics="keep"), "did you mean 'kept'"),
        (lambda: Constrained(bound=1), "bound must be at least 0 and below 1; got 1"),
        (lambda: Constrained(bound=math.nan), "bound must be"),
        (lambda: Constrained(smoothing=1), "smoothing must be"),
        (lambda: Constrained(rate=0), "rate must be a positive number"),
        (lambda: Constrained(ceiling=math.inf), "ceiling must be a positive number; got inf"),
        (lambda: Constrained(surrogate="hing"), "did you mean 'hinge'"),
        (lambda: KL(temperature=0), "temperature must be a positive number"),
        (lambda: Inhibition(margin=-1), "margin"),
        (lambda: Inhibition(power=0.5), "power"),
        (lambda: Inhibition(top=0), "top must name at least 1 class; got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_that_mean_nothing_are_refused(make, line):
    with pytest.raises(Misuse, match=line):
        make()


def test_single_precision_is_the_least():
    z, a, b = (table.bfloat16() for table in _tables("all", "all"))
    assert loss(RCAT(), z, a, b).dtype == torch.float32
