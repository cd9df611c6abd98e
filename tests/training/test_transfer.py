from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.models import Classifier, load_model, open_model, save_model
from poise.objectives import Adversarial, Standard
from poise.schedules import Fixed
from poise.training import Head, Last, LoRA, Probe, Task, Training, Transfer, Whole, check_task, train
from poise.training.optimisation import make_optimizer
from tests.models_for_tests import random_images, small_network

CLASSES = ("a", "b", "c")
TINY = {
    "vit": (
        "timm:vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 2},
    ),
    "swin": (
        "timm:swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]},
    ),
    "resnet": ("timm:resnet10t", {}),
    "own": ("small", {}),
}


def _tiny(kind: str) -> Classifier:
    address, options = TINY[kind]
    weights = None if kind == "own" else "random"
    return open_model(address, weights=weights, classes=CLASSES, shape=(3, 32, 32), options=options)


def _task(classifier: Classifier, transfer: Transfer, **changes) -> Task:
    images = random_images(classifier.eval(), 12)
    options = Training(epochs=2, batch_size=6, learning_rate=1e-2, **changes)
    return Task(classifier, images, Standard(), Fixed(), Threat(epsilon="0.1"), options, transfer=transfer)


def _changed(classifier: Classifier, before: dict[str, torch.Tensor]) -> set[str]:
    now = classifier.state_dict()
    assert set(now) == set(before)
    return {name.removeprefix("network.") for name, value in before.items() if not torch.equal(now[name], value)}


def _trained(kind: str, transfer: Transfer, path, **changes) -> set[str]:
    """Names of what a short training has changed."""
    task = _task(_tiny(kind), transfer, **changes)
    before = {name: value.clone() for name, value in task.classifier.state_dict().items()}
    check_task(task)
    train(task, RunFolder.create(path), trackers=())
    assert all(parameter.requires_grad for parameter in task.classifier.parameters())
    return _changed(task.classifier, before)


@pytest.mark.parametrize(("kind", "head"), [("vit", "head."), ("swin", "head."), ("resnet", "fc."), ("own", "head.")])
def test_the_head_alone_moves_and_no_statistic_drifts(kind, head, tmp_path):
    changed = _trained(kind, Head(), tmp_path / "run")
    assert changed
    assert all(name.startswith(head) for name in changed)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("vit", ("blocks.2.", "norm.", "head.")),
        ("swin", ("layers.3.", "norm.", "head.")),
        ("resnet", ("layer4.0.", "fc.")),
        ("own", ("features.2.", "head.")),
    ],
)
def test_the_last_block_moves_with_its_statistics_and_nothing_before_it(kind, parts, tmp_path):
    changed = _trained(kind, Last(blocks=1), tmp_path / "run")
    assert all(name.startswith(parts) for name in changed)
    assert any(name.startswith(parts[0]) for name in changed)
    if kind in {"resnet", "own"}:
        assert any(name.startswith(parts[0]) and name.endswith("running_mean") for name in changed)


def test_more_blocks_than_there_are_are_refused_with_their_number():
    with pytest.raises(Misuse, match="this network has 4 blocks before its head; got 9"):
        check_task(_task(_tiny("vit"), Last(blocks=9)))


def test_a_probe_after_which_no_epoch_begins_is_refused():
    with pytest.raises(Misuse, match="transfer probe would not come to its last part in 2 epochs"):
        check_task(_task(_tiny("resnet"), Probe(share=0.6)))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_probe_trains_the_head_first_and_then_everything(optimizer, tmp_path):
    task = _task(_tiny("resnet"), Probe(share=0.5), optimizer=optimizer)
    before = {name: value.clone() for name, value in task.classifier.state_dict().items()}
    seen, told = [], []
    train(
        task,
        RunFolder.create(tmp_path / "run"),
        validate=lambda classifier, _: seen.append(_changed(classifier, before)) or {},
        tell=told.append,
        trackers=(),
    )
    assert {name.partition(".")[0] for name in seen[0]} == {"fc"}
    assert {name.partition(".")[0] for name in seen[1]} > {"fc", "layer1", "conv1"}
    total = sum(parameter.numel() for parameter in task.classifier.parameters())
    head = sum(parameter.numel() for parameter in task.classifier.head_parameters())
    assert told == [
        f"from epoch {on}, {count:,} of {total:,} weights are trained"
        for on, count in (("1 on", head), ("2 on", total))
    ]


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize(("kind", "layers"), [("vit", None), ("swin", ("qkv",)), ("resnet", ("conv1",))])
def test_lora_ends_in_plain_weights_that_say_what_the_adapted_network_said(kind, layers, keep, tmp_path):
    """After its last epoch, or after the first, which is the best here."""
    task = replace(_task(_tiny(kind), LoRA(rank=2, layers=layers)), keep=keep)
    before = {name: value.clone() for name, value in task.classifier.state_dict().items()}
    images, logits, added = torch.rand(4, 3, 32, 32), [], []

    def validate(classifier, _):
        with torch.no_grad():
            logits.append(classifier.eval()(images))
        added.extend(name for name, _ in classifier.named_parameters() if ".lora_" in name)
        return {"clean": 1 / len(logits)}

    train(task, RunFolder.create(tmp_path / "run"), validate=validate, trackers=())
    assert added
    assert not torch.allclose(logits[0], logits[-1], atol=1e-4)
    changed = _changed(task.classifier, before)
    head = {name for name in changed if name.startswith(("head.", "fc."))}
    assert changed > head > set()
    assert all(name.endswith("weight") and (layers is None or layers[0] in name) for name in changed - head)
    assert not any("lora" in type(module).__module__ for module in task.classifier.modules())
    save_model(task.classifier, tmp_path)
    torch.testing.assert_close(
        load_model(tmp_path).eval()(images), logits[0 if keep == "best" else -1], atol=1e-5, rtol=1e-4
    )


class _Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("transfer", [LoRA(rank=2, dropout=0.2), Probe(share=0.5), Last(blocks=2, layer_decay=0.5)])
@pytest.mark.parametrize("kill_at", [1, 3])
def test_a_transfer_cut_off_and_resumed_ends_with_the_same_weights(transfer, kill_at, tmp_path):
    def task() -> Task:
        made = _task(_tiny("vit"), transfer, checkpoint_every=1)
        return replace(made, objective=Adversarial())

    whole = task()
    train(whole, RunFolder.create(tmp_path / "whole"), trackers=())
    folder, steps = RunFolder.create(tmp_path / "cut"), []

    def kill(share, facts):
        steps.append(share)
        if len(steps) == kill_at:
            raise _Killed

    cut, again = task(), task()
    with pytest.raises(_Killed):
        train(cut, folder, watch=kill, trackers=())
    assert set(cut.classifier.state_dict()) == set(whole.classifier.state_dict())
    train(again, folder, trackers=())
    assert _changed(again.classifier, whole.classifier.state_dict()) == set()


def test_each_layer_learns_at_a_share_of_the_rate_of_the_layer_behind_it():
    classifier = _tiny("vit")
    options = Training(learning_rate=0.1, head_learning_rate=0.5, weight_decay=0.01)
    found = {
        id(parameter): (group["peak"], group["weight_decay"])
        for group in make_optimizer(classifier, options, layer_decay=0.5).param_groups
        for parameter in group["params"]
    }
    network = classifier.network
    # Patches and positions, three blocks (the last with the final norm), the head.
    for parameter, layers_behind in ((network.patch_embed.proj.weight, 4), (network.blocks[0].mlp.fc1.weight, 3)):
        assert found[id(parameter)] == (pytest.approx(0.1 * 0.5**layers_behind), 0.01)
    assert found[id(network.blocks[2].attn.qkv.weight)] == (pytest.approx(0.05), 0.01)
    assert found[id(network.pos_embed)] == (pytest.approx(0.1 * 0.5**4), 0.0)
    assert found[id(network.head.weight)] == (0.5, 0.01)
    assert len(found) == len(list(classifier.parameters()))


def test_parts_that_hold_no_trained_weight_are_in_eval_mode_while_the_rest_trains(tmp_path):
    modes = []

    class Watching(Standard):
        def terms(self, step):
            network = step.model.network
            modes.append((network.features[0].training, network.features[2].training, network.head.training))
            return super().terms(step)

    task = replace(_task(_tiny("own"), Last(blocks=1)), objective=Watching())
    train(task, RunFolder.create(tmp_path / "run"), trackers=())
    assert set(modes) == {(False, True, True)}


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights(tmp_path):
    changed = _trained("own", Whole(), tmp_path / "run", batch_norm="frozen")
    assert "features.0.1.weight" in changed
    assert not any("running" in name or "tracked" in name for name in changed)


def test_what_a_network_cannot_do_is_refused():
    plain = small_network()
    with pytest.raises(Misuse, match="does not say what its layers are"):
        check_task(_task(plain, Last(blocks=1)))
    with pytest.raises(Misuse, match="does not say what its layers are"):
        check_task(_task(plain, Whole(layer_decay=0.5)))
    with pytest.raises(Misuse, match=r"lora finds no layer with \('x',\) in its name; layers of this network: "):
        check_task(_task(_tiny("vit"), LoRA(layers=("x",))))
    task = _task(plain, Head())
    plain.network[5] = nn.Flatten()
    with pytest.raises(Misuse, match="the head of this network cannot be told apart"):
        check_task(task)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Whole(layer_decay=0.0), "layer_decay is a share in"),
        (lambda: Last(blocks=0), "the last blocks are at least 1; got 0"),
        (lambda: Probe(share=1.0), "the probe's share of the training must be in"),
        (lambda: LoRA(rank=0), "a rank must be at least 1; got 0"),
        (lambda: LoRA(alpha=0), "alpha must be at least 1; got 0"),
        (lambda: LoRA(dropout=1.0), "dropout is a share in"),
    ],
)
def test_impossible_options_are_refused_when_made(make, words):
    with pytest.raises(Misuse, match=words):
        make()


def test_the_blocks_of_a_resnet18_are_its_residual_blocks():
    classifier = open_model("resnet18", classes=CLASSES, shape=(3, 32, 32))
    names = Last(blocks=2).trained(classifier, 0.0)
    assert {name.split(".")[1] + name.split(".")[2] * ("layer" in name) for name in names} == {
        "layer40",
        "layer41",
        "linear",
    }
