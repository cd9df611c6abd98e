"""No search waits for the device: not one of its operations needs a value on the host."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from poise.attacks import APGD, FAB, FABT, Square
from poise.attacks.answers import ask_model
from poise.attacks.pgd_search import PGDSearch
from poise.core.losses import misclassified
from poise.core.threat import NORMS
from tests.attacks.searches import STREAM, problem
from tests.linear import Linear, batch

WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique_consecutive", "_unique2"}


def _refuse(tensor):
    raise AssertionError("tolist waits for the device")


class _NoWaiting(TorchDispatchMode):
    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(torch.Tensor, "tolist", _refuse)
        return super().__enter__()

    def __exit__(self, *error):
        self.patch.undo()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            index is not None and index.dtype in {torch.bool, torch.uint8}
            for index in (args[1] if isinstance(args[1], (list, tuple)) else ())
        )
        if name in WAITING or masks:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


SEARCHES = [
    *(APGD(norm=norm, stream=STREAM, steps=5, loss_kind=kind) for norm in NORMS for kind in ("ce", "targeted-dlr")),
    *(kind(norm=norm, stream=STREAM, steps=3) for norm in NORMS for kind in (FAB, FABT, PGDSearch)),
    *(Square(norm=norm, stream=STREAM, steps=6) for norm in NORMS),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: f"{search.name}-{search.norm}")
def test_a_search_never_waits(search, monkeypatch):
    for room in ("core.saturation", "attacks.slopes"):
        monkeypatch.setattr(f"poise.{room}.on_host", lambda _: False)  # as on a device
    data, model = batch(4, (2, 5, 4), 5), Linear(5, (2, 5, 4))
    work = problem(data, 0.1, (data.labels + 1) % 5)
    search.begin(work)  # what is looked up once per kind of search may be made on the host
    search.tell(work, search.begin(work), data.images, _answer(search, model, work, data.images, gradient=True))
    with torch.no_grad(), _NoWaiting():
        state = search.begin(work)
        for query in range(search.queries):
            points = search.ask(work, state)
            answer = _answer(search, model, work, points, gradient=search.rhythm[query % len(search.rhythm)])
            misclassified(answer.logits, work.labels)
            state = search.tell(work, state, points, answer)
    assert state["done"].all()


def _answer(search, model, work, points, *, gradient):
    return ask_model(search, model, work, points, gradient=gradient)


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: t.sum().item(),
        lambda t: t.nonzero(),
        lambda t: t[t > 0],
        lambda t: bool(t.any()),
        lambda t: t[0].tolist(),
    ],
)
def test_the_guard_sees_waiting(wait):
    with _NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        wait(torch.rand(3))
