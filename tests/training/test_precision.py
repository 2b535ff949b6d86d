"""Precision: a table from architecture and device, the same on every run, and words where a device lacks what was asked."""

import pytest
import torch

from latlas.base.errors import SettingError, UnknownNameError
from latlas.training import precision
from latlas.training.precision import choose_device, choose_precision, has_bfloat16

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def units(monkeypatch: pytest.MonkeyPatch, present: bool) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: present)


@pytest.mark.parametrize(
    # asked for, convolutional, device, bfloat16 units -> number format, channels-last
    ("wanted", "convolutional", "device", "present", "autocast", "channels_last"),
    [
        ("auto", True, CPU, True, "bfloat16", True),
        ("auto", True, CUDA, True, "bfloat16", True),
        ("auto", True, CPU, False, "float32", True),
        ("auto", True, CUDA, False, "float32", True),
        ("auto", False, CPU, True, "float32", False),
        ("auto", False, CPU, False, "float32", False),
        ("auto", False, CUDA, True, "float32", False),
        ("float32", True, CPU, True, "float32", True),
        ("float32", False, CUDA, True, "float32", False),
        ("bfloat16", True, CPU, False, "bfloat16", True),
        ("bfloat16", False, CPU, True, "bfloat16", False),
        ("bfloat16", False, CUDA, True, "bfloat16", False),
    ],
)
def test_the_table(
    wanted: str,
    convolutional: bool,
    device: torch.device,
    present: bool,
    autocast: str,
    channels_last: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units(monkeypatch, present)
    chosen = choose_precision(wanted, convolutional=convolutional, device=device)
    assert (chosen.autocast, chosen.channels_last) == (autocast, channels_last)
    assert chosen.lightning == {"float32": "32-true", "bfloat16": "bf16-mixed"}[autocast]
    assert chosen.to_json() == {"autocast": autocast, "channels_last": channels_last, "why": chosen.why}


@pytest.mark.parametrize(
    ("wanted", "convolutional", "present", "why"),
    [
        ("float32", True, True, "asked for"),
        ("bfloat16", True, True, "asked for"),
        ("auto", False, True, "dense layers"),
        ("auto", True, False, "this cpu has no bfloat16 units"),
        ("auto", True, True, "convolutions on a cpu with bfloat16 units"),
    ],
)
def test_the_record_says_why(
    wanted: str, convolutional: bool, present: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    units(monkeypatch, present)
    assert why in choose_precision(wanted, convolutional=convolutional, device=CPU).why


def test_a_gpu_without_bfloat16_units_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    units(monkeypatch, False)
    with pytest.raises(SettingError, match=r"This GPU has no bfloat16; use --precision float32\."):
        choose_precision("bfloat16", convolutional=True, device=CUDA)


def test_an_unknown_precision_is_answered_with_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown precision 'bfloat61'\. Did you mean 'bfloat16'"):
        choose_precision("bfloat61", convolutional=True, device=CPU)


@pytest.mark.parametrize(("capability", "present"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_have_bfloat16_from_compute_capability_8_on(
    capability: tuple[int, int], present: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(CUDA) is present


@pytest.mark.parametrize("probe", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
@pytest.mark.parametrize("present", [True, False])
def test_either_instruction_set_gives_a_cpu_bfloat16(probe: str, present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, probe, lambda: present, raising=False)
    assert has_bfloat16(CPU) is present


def test_a_torch_without_the_probes_counts_as_a_cpu_without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert has_bfloat16(CPU) is False
    assert has_bfloat16(torch.device("meta")) is False


# Devices


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("wanted", "count", "device"),
    [
        ("auto", 0, torch.device("cpu")),
        ("auto", 2, torch.device("cuda", 0)),
        ("cpu", 2, torch.device("cpu")),
        ("cpu:0", 0, torch.device("cpu")),
        ("cuda", 1, torch.device("cuda")),
        ("cuda:1", 2, torch.device("cuda", 1)),
    ],
)
def test_devices_by_name(wanted: str, count: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, count)
    assert choose_device(wanted) == device


@pytest.mark.parametrize(
    ("wanted", "count", "words"),
    [
        ("cuda", 0, r"torch sees no CUDA GPU\. Use --device cpu"),
        ("cuda:0", 0, r"torch sees no CUDA GPU\. Use --device cpu"),
        ("cuda:2", 2, "there are 2 GPUs, numbered from 0"),
        ("cpu:7", 0, r"the CPU is one device\. Use --device cpu"),
        ("gpu", 1, r"Unknown device 'gpu'\. Use auto, cpu, cuda or cuda:1"),
        ("meta", 1, r"Device meta is not supported\. Use auto, cpu, cuda or cuda:1"),
    ],
)
def test_a_device_that_is_not_here_is_refused_with_one_that_is(
    wanted: str, count: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(SettingError, match=words):
        choose_device(wanted)
