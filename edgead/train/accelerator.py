"""The device and the processes of a training, through accelerate."""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import os
import re
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from edgead.errors import ConfigError, DeviceError, unknown


def make_accelerator(device: str, mixed_precision: str | Mapping[str, str], alternating: bool = False) -> Accelerator:
    """Make the Accelerator for a device; processes started by ``accelerate launch`` get theirs from it.

    It scales the losses for fp16; autocast for bf16 is `StageLoop.step`'s. With `alternating` optimisers a loss
    reaches only some of the weights, and a second forward must not overwrite buffers that the first one's backward
    still needs.

    Args:
        device, mixed_precision: see `edgead.train.fit.fit`.
        alternating: whether a stage has several optimisers that take turns.

    Raises:
        ConfigError: a device of another form, or one GPU for several processes.
        DeviceError: the device is not there, or does not take the precision.
    """
    check_device(device)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if device.startswith("cuda") and processes == 1:
        os.environ["ACCELERATE_TORCH_DEVICE"] = f"cuda:{_index_of(device)}"
    if processes > 1:
        # Its functions take the group of processes for a default value where there is one at their import: they would
        # hold it past its end, and a thread of it that asks for Python while the process ends aborts that process.
        importlib.import_module("torch.distributed.nn.functional")
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps the first choice of a process forever
    try:
        shared = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        handlers = [shared] if alternating else []
        scaled = "fp16" if mixed_precision == "fp16" else "no"
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision=scaled, kwargs_handlers=handlers)
    except (ValueError, RuntimeError) as error:
        raise DeviceError(f"Cannot train with mixed precision '{mixed_precision}' on '{device}': {error}") from error
    finally:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    if accelerator.num_processes > 1:
        _leave_group_at_exit()
    elif processes > 1:
        raise DeviceError(
            f"{processes} processes were started, and each would train alone: torch sees no GPU for them here.\n"
            "Pass --device cpu."
        )
    return accelerator


def check_device(device: str) -> None:
    """Refuse a device that cannot be trained on.

    Raises:
        ConfigError: a device of another form, or one GPU for several processes.
        DeviceError: the device is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(unknown("device", device, ("auto", "cpu", "cuda", "cuda:N")))
    if device.startswith("cuda:") and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(f"With several processes, each needs a GPU: pass --device cuda, not {device}.")
    if device.startswith("cuda") and _index_of(device) >= (found := torch.cuda.device_count()):
        raise DeviceError(
            f"{device} does not exist: torch {torch.__version__} sees {found} CUDA devices here.\n"
            "Use --device cpu, or install a torch build with CUDA and check nvidia-smi."
        )


def _index_of(device: str) -> int:
    return int(device.partition(":")[2] or 0)


@functools.cache
def _leave_group_at_exit() -> None:
    """Several trainings share the group of processes: once left, it cannot be entered again."""

    def leave() -> None:
        if torch.distributed.is_initialized():
            gc.collect()  # what was trained holds the group, in a cycle
            torch.distributed.destroy_process_group()

    atexit.register(leave)


def is_main() -> bool:
    """Tell whether this process, of those that accelerate launch started, owns the folder."""
    return int(os.environ.get("RANK", 0)) == 0
