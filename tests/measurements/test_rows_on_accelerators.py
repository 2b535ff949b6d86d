"""Codes and features may lie on an accelerator: statistics take them from there, whatever machine runs the tests."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from latlas.maps import inputs
from latlas.maps.fit import fit_map
from latlas.measurements.directions import find_direction
from latlas.measurements.distances import frechet_distance
from latlas.measurements.similarity import similarity
from latlas.numerics.moments import Moments
from latlas.numerics.normality import cloud_shape
from latlas.supports.sectors import Sectors, beyond, largest_threshold
from latlas.supports.selection import one_per_sector
from latlas.supports.selectors import SELECTORS, select
from latlas.supports.thresholds import threshold_curve


class OnAccelerator(Tensor):
    """A tensor that behaves as one on another device: it meets no other tensor until `cpu` brings it over."""

    content: Tensor

    @staticmethod
    def __new__(cls, content: Tensor, device: str = "cpu") -> "OnAccelerator":
        made: OnAccelerator = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, content.shape, strides=content.stride(), dtype=content.dtype, device=device
        )
        made.content = content
        return made

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return self.content.clone()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        name = function.overloadpacket.__name__
        if name == "copy_":  # the one operation that goes from device to device
            target, source = args[:2]
            assert not isinstance(target, cls)
            return target.copy_(source.content)
        # A list of places becomes a tensor where it is needed.
        if name != "index" and any(isinstance(one, Tensor) and one.ndim and not isinstance(one, cls) for one in given):
            raise RuntimeError("Expected all tensors to be on the same device")
        plain_args, plain_kwargs = tree_map(lambda one: one.content if isinstance(one, cls) else one, (args, kwargs or {}))
        found = function(*plain_args, **plain_kwargs)
        return tree_map(lambda one: cls(one) if isinstance(one, Tensor) else one, found)


def sectors_of(codes: Tensor) -> list[list[int]]:
    sectors = Sectors(variables=(0, 2), threshold=0.1, centre=(0.2, 0.0), scale=(1.0, 2.0))
    chance = torch.Generator().manual_seed(0)
    return [
        sectors.of(codes).tolist(),
        sectors.occupancy(codes).tolist(),
        beyond(1, 0.3, -1).members(codes).tolist(),
        one_per_sector(codes, sectors, at_least=6, generator=chance, choose="central").tolist(),
        one_per_sector(codes, sectors, at_least=6, generator=chance, choose="extreme").tolist(),
    ]


HAS = torch.arange(60) % 3 == 0
MEASURES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "moments": lambda source, _: Moments.of(source).covariance().tolist(),
    "affine map": lambda source, target: fit_map(source, target).weight.tolist(),
    "map by leaving one out": lambda source, target: fit_map(source, target, ridge="loo").weight.tolist(),
    "similarity": lambda source, target: similarity(source, target),
    "Fréchet distance": lambda source, _: frechet_distance(source, source, resamples=0),
    "shape of a cloud": lambda _, target: cloud_shape(target),
    "direction": lambda source, _: find_direction(source, HAS).positions(source).tolist(),
    "step along a direction": lambda source, _: find_direction(source, HAS).move(source, 2.0).tolist(),
    "sectors": lambda source, _: sectors_of(source),
    "largest threshold": lambda source, _: largest_threshold(source, (0, 1)),
    "curve of thresholds": lambda source, _: threshold_curve(source, (0, 1)),
    "selectors": lambda source, _: [select(kind, source, 7).tolist() for kind in SELECTORS],
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_of_rows_on_an_accelerator_is_that_of_the_same_rows_in_memory(
    name: str, dtype: torch.dtype, generator: torch.Generator
) -> None:
    source = torch.randn(60, 4, generator=generator).to(dtype)
    target = torch.randn(60, 2, generator=generator).to(dtype)
    measure = MEASURES[name]
    assert measure(OnAccelerator(source), OnAccelerator(target)) == measure(source, target)


def test_maps_are_taken_in_float64_wherever_a_device_knows_it() -> None:
    rows = torch.ones(2, 3)
    assert inputs.exact_type(OnAccelerator(rows, "cuda")) == torch.float64
    assert inputs.exact_type(rows) == torch.float64
    assert inputs.exact_type(OnAccelerator(rows, "mps")) == torch.float32
