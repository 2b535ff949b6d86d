"""Which number format and memory layout a training uses, and why: a table, so that a seed decides a run."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from latlas.base.errors import SettingError, unknown_name
from latlas.base.launch import local_rank

PrecisionName = Literal["auto", "float32", "bfloat16"]
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What a run computes in; part of its record."""

    autocast: str  # "float32" (no autocast) or "bfloat16"
    channels_last: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @property
    def lightning(self) -> Literal["32-true", "bf16-mixed"]:
        """The name that Lightning's Trainer has for it."""
        return "bf16-mixed" if self.autocast == "bfloat16" else "32-true"


def choose_precision(wanted: str, *, convolutional: bool, device: torch.device) -> Precision:
    """Return the precision asked for, or for "auto" what the table says is faster on this device.

    bfloat16 with channels-last made a 64 x 64 convolutional VAE four times faster on a CPU with bfloat16 units; on small
    dense networks the casts cost more than they save.

    Raises:
        UnknownNameError: not one of "auto", "float32", "bfloat16".
        SettingError: bfloat16 on a device that has none.
    """
    if wanted not in PRECISIONS:
        raise unknown_name("precision", wanted, PRECISIONS)
    native = has_bfloat16(device)
    if wanted == "bfloat16":
        if device.type == "cuda" and not native:
            raise SettingError("This GPU has no bfloat16; use --precision float32.")
        return Precision(autocast="bfloat16", channels_last=convolutional, why="asked for")
    if wanted == "float32":
        return Precision(autocast="float32", channels_last=convolutional, why="asked for")
    if not convolutional:
        return Precision(autocast="float32", channels_last=False, why="dense layers this small gain nothing from bfloat16")
    if not native:
        return Precision(autocast="float32", channels_last=True, why=f"this {device.type} has no bfloat16 units")
    return Precision(autocast="bfloat16", channels_last=True, why=f"convolutions on a {device.type} with bfloat16 units")


def choose_device(wanted: str) -> torch.device:
    """Return the device of that name; "auto" is a CUDA GPU (the first, or this process's of several), else the CPU.

    Raises:
        SettingError: no such device here.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank() % torch.cuda.device_count())
        return torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as failure:
        raise SettingError(f"Unknown device {wanted!r}. Use auto, cpu, cuda or cuda:1.") from failure
    if device.type == "cpu":
        if device.index:  # cpu:1 can hold a tensor, and no training can run there
            raise SettingError(f"Device {wanted} was asked for, and the CPU is one device. Use --device cpu.")
        return torch.device("cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingError(f"Device {wanted} was asked for and torch sees no CUDA GPU. Use --device cpu.")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise SettingError(f"Device {wanted} was asked for and there are {torch.cuda.device_count()} GPUs, numbered from 0.")
    if device.type not in ("cpu", "cuda"):
        # Statistics are accumulated in float64, which other back ends lack.
        raise SettingError(f"Device {wanted} is not supported. Use auto, cpu, cuda or cuda:1.")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0))
    if device.type == "cpu":
        return _cpu_has_bfloat16()
    return False


def _cpu_has_bfloat16() -> bool:
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(probe()) for probe in (getattr(torch.cpu, name, None) for name in probes) if probe is not None)
