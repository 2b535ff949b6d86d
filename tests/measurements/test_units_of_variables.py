"""What does not depend on the units of a code must not: variables a million times as large as others, and as small."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from latlas.measurements.similarity import canonical_correlations, mean_cca, similarity
from latlas.numerics.moments import PairedMoments

UNITS = [1e-7, 1e-6, 1e-3, 1e3, 1e6, 1e7]


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    source = torch.randn(300, 5, generator=generator, dtype=torch.float64)
    source[:, 3] += 0.5 * source[:, 0]
    noise = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    return source, source @ torch.randn(5, 4, generator=generator, dtype=torch.float64) + 2.0 * noise


def by_qr(source: Tensor, target: Tensor) -> np.ndarray:
    """Canonical correlations as the cosines of the angles between the two column spaces (Björck and Golub 1973)."""
    left, right = ((part - part.mean(dim=0)).numpy() for part in (source, target))
    return np.sort(np.cos(scipy.linalg.subspace_angles(left, right)))[::-1]


@pytest.mark.parametrize("unit", UNITS)
def test_canonical_correlations_do_not_depend_on_the_unit_of_a_variable(pair: tuple[Tensor, Tensor], unit: float) -> None:
    source, target = pair
    wanted = by_qr(source, target)
    for variable in range(5):
        scaled = source.clone()
        scaled[:, variable] *= unit
        for moments in (PairedMoments.of(scaled, target), PairedMoments.of(target, scaled)):
            np.testing.assert_allclose(canonical_correlations(moments).numpy(), wanted, atol=1e-12)


def test_variables_of_twelve_decades_side_by_side_are_joined_by_an_affine_map_all_the_same(generator: torch.Generator) -> None:
    source = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    target = source @ torch.randn(3, 3, generator=generator, dtype=torch.float64)
    units = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    assert mean_cca(PairedMoments.of(source * units, target / units)) == pytest.approx(1.0, abs=1e-12)


def test_variables_that_are_rounding_beside_the_others_take_no_part(
    pair: tuple[Tensor, Tensor], generator: torch.Generator
) -> None:
    source, target = pair
    rounding = 1e-12 * torch.randn(300, 2, generator=generator, dtype=torch.float64)
    constant = torch.full((300, 1), 0.1, dtype=torch.float64)
    more = torch.cat([source, rounding, constant], dim=1)
    np.testing.assert_allclose(canonical_correlations(PairedMoments.of(more, target)).numpy(), by_qr(source, target), atol=1e-9)


def test_svcca_weighs_variables_by_their_units_as_before(pair: tuple[Tensor, Tensor]) -> None:
    """Its directions are those of the largest variance: of a set dominated by one variable, that one alone."""
    source, target = pair
    scaled = source.clone()
    scaled[:, 2] *= 1e3
    left, right = (part - part.mean(dim=0) for part in (source[:, 2:3], target))
    # One direction holds 99 % of the scaled source; the target keeps those that hold 99 % of it.
    values, vectors = np.linalg.eigh(np.cov(right.T.numpy()))
    kept = int((np.cumsum(values[::-1]) < 0.99 * values.sum()).sum()) + 1
    basis = right.numpy() @ vectors[:, ::-1][:, :kept]
    assert similarity(scaled, target).svcca == pytest.approx(by_qr(left, torch.from_numpy(basis)).max(), abs=1e-3)
