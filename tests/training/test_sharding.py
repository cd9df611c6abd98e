"""Weights shared out among processes: what is refused, and what is gathered at a time; tests/commands runs them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch
from accelerate import Accelerator
from torch import nn

from poise.core.batch import Batch
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.objectives import AWP, Adversarial, Averaged, Mixing, Step
from poise.training import Training, sharding
from poise.training.gradients import Gradients
from poise.training.processes import Processes
from poise.training.sharding import FLAG, check_sharding, gathered, own_part, sharded, shared_like
from tests.linear import batch


@pytest.fixture
def asked(monkeypatch):
    """As a launcher does that starts four processes with --use_fsdp."""
    monkeypatch.setenv(FLAG, "true")
    monkeypatch.setattr(sharding, "process_state", lambda: SimpleNamespace(num_processes=4))


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("objective", "options", "variable", "what"),
    [
        (AWP(), Training(), None, "the objective AWP"),
        (Averaged(objective=AWP()), Training(), None, "the objective Averaged"),
        (Mixing(), Training(), None, "the objective Mixing"),
        (Adversarial(), Training(compile=True), None, "training.compile"),
        (Adversarial(), Training(precision="fp16"), None, "fp16"),
        (Adversarial(), Training(), "FSDP_OFFLOAD_PARAMS", "--fsdp_offload_params"),
        (Adversarial(), Training(), "FSDP_ACTIVATION_CHECKPOINTING", "--fsdp_activation_checkpointing"),
    ],
)
def test_what_does_not_go_with_shared_weights_is_refused(monkeypatch, objective, options, variable, what):
    if variable:
        monkeypatch.setenv(variable, "true")
    with pytest.raises(Misuse, match=f"{what}.* does not go with FSDP"):
        check_sharding(objective, options)


@pytest.mark.usefixtures("asked")
def test_what_goes_with_shared_weights_is_let_through():
    assert sharded()
    check_sharding(Averaged(), Training(precision="bf16", micro_batch=4))


def test_one_process_shares_nothing(monkeypatch):
    monkeypatch.setenv(FLAG, "true")
    assert not sharded()
    check_sharding(AWP(), Training(compile=True))


@pytest.mark.parametrize(
    ("name", "count", "kind"),
    [
        ("vit_tiny_patch16_224", 12, "Block"),
        ("resnet18", 8, "BasicBlock"),
        ("swin_tiny_patch4_window7_224", 12, "Swin"),
    ],
)
def test_a_block_is_gathered_at_a_time(name, count, kind):
    with torch.device("meta"):
        blocks = sharding._blocks(timm.create_model(name))
    assert len(blocks) == count
    assert all(type(block).__name__.startswith(kind) for block in blocks)


def test_whole_tensors_stay_as_they_are():
    tensor = torch.rand(3)
    assert list(gathered({"a": tensor})) == [("a", tensor)]
    assert shared_like(tensor, torch.zeros(3)) is tensor
    assert own_part(tensor) is tensor


class _OneOfTwo(Processes):
    """A process whose fellow takes one piece in every step; one of them has no images."""

    def __init__(self, *, sharded: bool) -> None:
        self.sharded, self.count = sharded, 2

    def any(self, here):
        return True

    def most(self, here):
        return max(here, 1)


class _Plain(Accelerator):
    def __init__(self) -> None:
        pass

    def backward(self, loss):
        loss.backward()


def _attempted(model: nn.Module, images: int, *, sharded: bool) -> dict[str, torch.Tensor]:
    """The terms of this process's part, so many images, of a step of eight."""
    whole = batch(8, (4,), 3)
    part = Batch(whole.images[:images], whole.labels[:images], whole.ids[:images])
    gradients = Gradients(Adversarial(), _Plain(), _OneOfTwo(sharded=sharded), None, lambda _: None)
    return gradients._attempt(Step(model, part, 0.1, "linf", Stream.seeded(0)), 8)[0]


def test_a_process_without_images_keeps_pace_and_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double().train()
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    _attempted(model, 8, sharded=True)
    taken, statistics = len(passes), [buffer.clone() for buffer in model.buffers()]
    model.zero_grad()
    assert _attempted(model, 0, sharded=True) == {}
    assert len(passes) == 2 * taken
    assert all(not parameter.grad.any() for parameter in model.parameters())
    assert all(torch.equal(buffer, found) for buffer, found in zip(model.buffers(), statistics, strict=True))
    assert _attempted(model, 0, sharded=False) == {}
    assert len(passes) == 2 * taken


def test_synced_batch_norms_do_not_wait_for_a_process_without_images():
    """In train mode they would ask for the statistics of all; on a CPU they even refuse to."""
    model = nn.Sequential(nn.Linear(4, 6), nn.SyncBatchNorm(6), nn.Linear(6, 3)).double().train()
    before = [buffer.clone() for buffer in model.buffers()]
    assert float(_attempted(model, 8, sharded=False)["loss"]) > 0
    assert all(torch.equal(buffer, found) for buffer, found in zip(model.buffers(), before, strict=True))
    assert model[1].training
