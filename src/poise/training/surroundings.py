"""What is put around a network while it trains, and taken off again: devices, precision, compilation, batch norm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin
from torch import nn

from poise.core.misuse import Misuse
from poise.core.modes import BATCH_NORM
from poise.core.processes import process_state
from poise.core.run_folder import RunFolder
from poise.models import Classifier
from poise.training.options import Training
from poise.training.sharding import FLAG, told
from poise.training.tracking import start_trackers

_LEFT_BY_ACCELERATE = ("forward", "_original_forward", "_is_accelerate_prepared")


def check_surroundings(options: Training) -> None:
    """Refuse ways of distributing and options that do not go together.

    Raises:
        Misuse: for DeepSpeed and Megatron, and for synced batch norm on several processes without GPUs.
    """
    state = process_state()
    megatron = str(state.distributed_type.value).startswith("MEGATRON")
    if megatron or told("ACCELERATE_USE_DEEPSPEED"):
        raise Misuse(
            f"{'Megatron' if megatron else 'DeepSpeed'} is not supported; launch with plain data parallelism "
            "(accelerate launch --multi_gpu) or, where a training does not fit into one device, with --use_fsdp"
        )
    if options.batch_norm == "synced" and state.num_processes > 1 and state.device.type == "cpu":
        raise Misuse("training.batch_norm synced needs GPUs; choose local or frozen")


@contextmanager
def accelerated(options: Training, folder: RunFolder, trackers: tuple[str, ...]) -> Iterator[Accelerator]:
    """Accelerate's handle on devices, precision and trackers, as the options say and whatever its launcher was told.

    One process may train several models at different precisions, and its caller may use accelerate too: its shared
    state is as before when the block ends. The process group stays, as whoever trains has more to do together.
    """
    shared = [kind._shared_state for kind in (AcceleratorState, GradientState)]  # noqa: SLF001
    kept = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    flag = os.environ.pop(FLAG, None)  # weights are shared out here, where attacks and steps are known
    try:
        accelerator = Accelerator(
            mixed_precision="no" if options.precision == "fp32" else options.precision,
            log_with=list(trackers) or None,
            project_dir=folder.path,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            dynamo_backend="no",
        )
        if trackers:
            start_trackers(accelerator, folder)
        yield accelerator
        for tracker in accelerator.trackers:
            tracker.finish()
    finally:
        if flag is not None:
            os.environ[FLAG] = flag
        for state, found in zip(shared, kept, strict=True):
            state.clear()
            state.update(found)


@contextmanager
def surrounded(classifier: Classifier, options: Training, accelerator: Accelerator) -> Iterator[None]:
    """The classifier computing as the options say; afterwards as it was."""
    with _batch_norm(classifier.network, options):
        accelerator.prepare_model(classifier, device_placement=False, evaluation_mode=True)
        if options.compile:
            classifier.network.compile(dynamic=False)
        try:
            yield
        finally:
            classifier.network._compiled_call_impl = None  # noqa: SLF001 - PyTorch offers no way back
            for name in _LEFT_BY_ACCELERATE:
                vars(classifier).pop(name, None)


@contextmanager
def plain(classifier: Classifier) -> Iterator[None]:
    """The classifier without low precision and compilation, for verdicts."""
    wrapped = vars(classifier).pop("forward", None)
    compiled: Any = classifier.network._compiled_call_impl  # noqa: SLF001
    classifier.network._compiled_call_impl = None  # noqa: SLF001
    try:
        yield
    finally:
        classifier.network._compiled_call_impl = compiled  # noqa: SLF001
        if wrapped is not None:
            vars(classifier)["forward"] = wrapped


@contextmanager
def _batch_norm(network: nn.Module, options: Training) -> Iterator[None]:
    """Batch norm over the examples of all processes where that is asked for; afterwards the network's own layers."""
    if options.batch_norm != "synced" or process_state().num_processes == 1:
        yield
        return
    from timm.layers import norm_act  # noqa: PLC0415 - knows timm's own kinds as well

    found = {name: module for name, module in network.named_modules() if isinstance(module, BATCH_NORM) and name}
    norm_act.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # the new layers hold the very parameters and buffers of the old
    try:
        yield
    finally:
        for name, module in found.items():
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, module)
