"""The torchmetrics shell: the distance of the pure function, however the images are shared out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError
from latlas.measurements.distances import frechet_distance
from latlas.measurements.features import CallableFeatures, RawPixels
from latlas.measurements.metrics import FrechetDistanceMetric

SHAPE = (1, 3, 3)


def pictures(n: int, generator: torch.Generator, *, power: float = 1.0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=generator) ** power


def fed(first: Tensor, second: Tensor, *, size: int = 16) -> FrechetDistanceMetric:
    metric = FrechetDistanceMetric(RawPixels(SHAPE))
    for batch in first.split(size):
        metric.update(batch, first=True)
    for batch in second.split(size):
        metric.update(batch, first=False)
    return metric


def test_batches_give_the_distance_of_the_whole(generator: torch.Generator) -> None:
    a, b = pictures(100, generator), pictures(80, generator, power=2)
    metric = fed(a, b)
    expected = frechet_distance(a.flatten(1), b.flatten(1), resamples=0)
    assert float(metric.compute()) == pytest.approx(expected.value, rel=1e-10)
    assert (metric.distance().n_first, metric.distance().n_second) == (100, 80)
    metric.reset()
    with pytest.raises(IllPosedError, match="at least 2 rows of each cloud, got 0"):
        metric.distance()


def test_two_halves_merged_equal_one_whole(generator: torch.Generator) -> None:
    a, b = pictures(100, generator), pictures(80, generator, power=2)
    one, other = fed(a[:30], b[:50]), fed(a[30:], b[50:])
    one.merge_state(other)
    assert float(one.compute()) == pytest.approx(float(fed(a, b).compute()), rel=1e-10)
    assert one.distance().n_first == 100


def test_neither_network_nor_moments_enter_a_checkpoint() -> None:
    assert FrechetDistanceMetric(RawPixels(SHAPE)).state_dict() == {}


def test_features_that_are_not_finite_are_refused() -> None:
    network = CallableFeatures(name="logs", size=9, compute_with=lambda images: images.flatten(1).log())
    with pytest.raises(NonFiniteError, match="logs returned NaN or infinity for this batch, first for image 0"):
        FrechetDistanceMetric(network).update(torch.zeros(2, *SHAPE), first=True)


SCRIPT = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from latlas.measurements.features import RawPixels
from latlas.measurements.metrics import FrechetDistanceMetric

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
a, b = torch.load(folder / "images.pt", weights_only=True)
metric = FrechetDistanceMetric(RawPixels((1, 3, 3)))
metric.update(a[:30] if rank == 0 else a[30:], first=True)
if rank == 1:
    metric.update(b, first=False)  # one process has seen none of these
(folder / f"{rank}.json").write_text(json.dumps(float(metric.compute())))
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_compute_the_distance_of_all_images(generator: torch.Generator, tmp_path: Path) -> None:
    a, b = pictures(100, generator), pictures(80, generator, power=2)
    torch.save((a, b), tmp_path / "images.pt")
    (tmp_path / "measure.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "measure.py"), str(tmp_path), str(rank)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in started:
            process.kill()
    expected = float(fed(a, b).compute())
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == pytest.approx(
        [expected] * 2, rel=1e-10
    )
