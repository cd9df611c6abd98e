"""What one step of adversarial training costs: poise beside the passes it needs and beside three libraries.

ResNet-18 on 32 x 32 images, PGD with 10 steps at 8/255, SGD. Each contender takes its step in turn, and what counts is
the median of the processor time of its steps (on CUDA: of the time of the clock).

    python -m benchmarks.train_step [--quick]

Floor: with k attack steps, k gradients for the images with frozen weights in eval mode, and one full gradient in train
mode. The libraries do the step as their documentation does: torchattacks and foolbox make the images, a plain PyTorch
step follows; the adversarial-robustness-toolbox brings its own trainer. Those that are not installed are named and left
out: pip install --no-deps torchattacks (it wants old versions of other packages), pip install 'poise[judges]'.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness import DEVICE, Claim, clock, conclude, cpu, seconds_of
from benchmarks.intervals import spread
from poise.attacks import PGD
from poise.core.modes import evaluating, frozen
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.data import InMemory
from poise.models import Classifier, open_model
from poise.objectives import Adversarial
from poise.schedules import Fixed, Hinge
from poise.training import Task, Training, train

STEPS, EPSILON, RATE = 10, 8 / 255, 0.01
CLASSES = tuple("abcdefghij")
PEERS = ("torchattacks", "foolbox", "art")

Contender = Callable[[], object]


def main() -> int:
    """Let all contenders take steps in turn, compare, and count what a schedule saves."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"  # the toolbox's trainer draws bars
    batch = options.batch or (8 if options.quick else 16)
    rounds = 3 if options.quick else 4
    model = open_model("resnet18", classes=CLASSES, shape=(3, 32, 32)).to(DEVICE)
    images, labels = torch.rand(batch, 3, 32, 32, device=DEVICE), torch.arange(batch, device=DEVICE) % len(CLASSES)
    contenders: dict[str, Contender] = {
        "image gradient": _image_gradient(model, images, labels),
        "full gradient": _full_gradient(model, images, labels),
        "poise": _poise(model, batch, rounds),
        "poise, epsilon 0": _poise(model, batch, rounds, epsilon=0.0),
    }
    contenders |= {name: make(model, images, labels) for name, make in _peers().items()}
    contenders |= _fast_contenders(model, batch, rounds, full=not options.quick)
    seconds = _measured(contenders, rounds)
    figures = {name: spread(values) for name, values in seconds.items()}
    for name, values in figures.items():
        print(f"{name:28} {values['median']:8.3f} s  [{values['min']:.3f}, {values['max']:.3f}]")
    saved = _schedule_savings()
    print("hinge over 50 epochs beside the fixed epsilon: " + ", ".join(f"{k} {v:.3f}" for k, v in saved.items()))
    claims = _claims({name: values["median"] for name, values in figures.items()}, saved)
    return conclude("train_step", claims, {"batch": batch, "rounds": rounds, "seconds": figures, "schedule": saved})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller batches, nothing compiled; within two minutes")
    parser.add_argument("--batch", type=int, help="images of a step")
    return parser.parse_args()


def _claims(seconds: dict[str, float], saved: dict[str, float]) -> list[Claim]:
    floor = STEPS * seconds["image gradient"] + seconds["full gradient"]
    claims = [Claim("poise over the floor", seconds["poise"] / floor, 1.10, most=True)]
    peers = {name: seconds[name] for name in PEERS if name in seconds}
    if peers:
        name = min(peers, key=lambda peer: peers[peer])
        ours = min(value for kind, value in seconds.items() if kind in {"poise", "poise, compiled"})
        claims.append(Claim(f"fastest peer ({name}) over poise in the same precision", peers[name] / ours, 1.3))
        claims += [
            Claim(f"{peer} over poise in the same precision", value / ours, 1.3)
            for peer, value in peers.items()
            if peer != name
        ]
        if "poise, bf16" in seconds:
            least = 3.0 if DEVICE.type == "cuda" else 2.0
            claims.append(
                Claim(
                    f"fastest peer, in fp32 ({name}), over poise in bf16", peers[name] / seconds["poise, bf16"], least
                )
            )
    return [*claims, Claim("passes of the scheduled run over those of the fixed", saved["passes"], 1.0, most=True)]


def _measured(contenders: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender's steps, taken in turn; the first of each warms up."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, act in contenders.items():
            seconds = seconds_of(act)
            if turn:
                found[name].append(seconds)
    return found


def _image_gradient(model: Classifier, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    mine = copy.deepcopy(model)

    def act() -> None:
        with evaluating(mine), frozen(mine):
            leaf = images.detach().requires_grad_()
            torch.autograd.grad(nn.functional.cross_entropy(mine(leaf), labels), leaf)

    return act


def _full_gradient(model: Classifier, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    mine = copy.deepcopy(model).train()

    def act() -> None:
        mine.zero_grad(set_to_none=True)
        torch.autograd.backward(nn.functional.cross_entropy(mine(images), labels))

    return act


def _poise(
    model: Classifier,
    batch: int,
    rounds: int,
    *,
    epsilon: float = EPSILON,
    **options: Any,
) -> Contender:
    """Steps of poise's own training loop, one at each call: it trains in a thread that waits for its turn."""
    pixels = torch.randint(0, 256, (batch * (rounds + 1), 3, 32, 32), dtype=torch.uint8)
    ids = tuple(map(str, range(len(pixels))))
    images = InMemory("random", CLASSES, ids, torch.arange(len(pixels)) % len(CLASSES), pixels)
    training = Training(epochs=1, batch_size=batch, optimizer="sgd", learning_rate=RATE, **options)
    task = Task(
        copy.deepcopy(model),
        images,
        Adversarial(attack=PGD(steps=STEPS)),
        Fixed(),
        Threat(epsilon=epsilon),
        training,
    )
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    def turn(_share: float, _facts: Any) -> None:
        done.release()
        go.acquire()

    def work() -> None:
        with tempfile.TemporaryDirectory() as name:
            go.acquire()
            train(task, RunFolder.create(Path(name) / "run"), watch=turn, trackers=())

    threading.Thread(target=work, daemon=True).start()

    def act() -> None:
        go.release()
        done.acquire()

    return act


def _fast_contenders(model: Classifier, batch: int, rounds: int, *, full: bool) -> dict[str, Contender]:
    """Compiled steps, and those in bf16 where the machine computes in it."""
    fast: dict[str, Contender] = {}
    if full:
        fast["poise, compiled"] = _poise(model, batch, rounds, compile=True)
    if DEVICE.type == "cuda" or cpu()[1]:
        fast["poise, bf16"] = _poise(model, batch, rounds, precision="bf16", channels_last=True, compile=full)
    else:
        print("poise, bf16: left out, this processor does not compute in bf16")
    return fast


def _peers() -> dict[str, Callable[..., Contender]]:
    makers = {"torchattacks": _torchattacks, "foolbox": _foolbox, "art": _art}
    for name in PEERS:
        if importlib.util.find_spec(name) is None:
            print(f"{name}: left out, it is not installed")
    return {name: make for name, make in makers.items() if importlib.util.find_spec(name) is not None}


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    model.train()
    optimizer.zero_grad()
    torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))
    optimizer.step()


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)


def _torchattacks(model: Classifier, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    import torchattacks  # noqa: PLC0415 - a judge, not installed by default

    mine = copy.deepcopy(model).train()
    attack, optimizer = torchattacks.PGD(mine, eps=EPSILON, alpha=EPSILON / 4, steps=STEPS), _sgd(mine)
    return lambda: _update(mine, optimizer, attack(images, labels), labels)


def _foolbox(model: Classifier, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    import foolbox  # noqa: PLC0415

    mine = copy.deepcopy(model)
    attack, optimizer = foolbox.attacks.LinfPGD(steps=STEPS, rel_stepsize=0.25), _sgd(mine)

    def act() -> None:
        wrapped = foolbox.PyTorchModel(mine.eval(), bounds=(0, 1))
        _, attacked, _ = attack(wrapped, images, labels, epsilons=EPSILON)
        _update(mine, optimizer, attacked, labels)

    return act


def _art(model: Classifier, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    from art.defences.trainer import AdversarialTrainerMadryPGD  # noqa: PLC0415
    from art.estimators.classification import PyTorchClassifier  # noqa: PLC0415

    mine = copy.deepcopy(model)
    estimator = PyTorchClassifier(
        mine,
        loss=nn.CrossEntropyLoss(),
        optimizer=_sgd(mine),
        input_shape=(3, 32, 32),
        nb_classes=len(CLASSES),
        clip_values=(0.0, 1.0),
        device_type="gpu" if DEVICE.type == "cuda" else "cpu",
    )
    count = len(labels)
    trainer = AdversarialTrainerMadryPGD(
        estimator, nb_epochs=1, batch_size=count, eps=EPSILON, eps_step=EPSILON / 4, max_iter=STEPS, num_random_init=1
    )
    pixels, wanted = images.cpu().numpy(), labels.cpu().numpy()
    return lambda: trainer.fit(pixels, wanted)


def _schedule_savings() -> dict[str, float]:
    """What the hinge of the paper needs of what the fixed epsilon needs: passes through the network, and seconds."""
    found = {}
    for name, schedule in (("hinge", Hinge()), ("fixed", Fixed())):
        model = open_model("small", classes=CLASSES, shape=(3, 16, 16))
        pixels = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
        images = InMemory("random", CLASSES, tuple(map(str, range(64))), torch.arange(64) % len(CLASSES), pixels)
        task = Task(
            model,
            images,
            Adversarial(attack=PGD(steps=STEPS)),
            schedule,
            Threat(epsilon=EPSILON),
            Training(epochs=50, batch_size=32),
        )
        passes: list[int] = []
        model.network.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        with tempfile.TemporaryDirectory() as folder:
            start = clock()
            train(task, RunFolder.create(Path(folder) / "run"), trackers=())
            found[name] = (len(passes), clock() - start)
    return {
        "passes": found["hinge"][0] / found["fixed"][0],
        "processor time": found["hinge"][1] / found["fixed"][1],
    }


if __name__ == "__main__":
    sys.exit(main())
