"""A batch of nothing, as the last one of a stream or a process without a share of it, changes no statistic."""

import pytest
import torch

from latlas.base.errors import IllPosedError
from latlas.numerics.moments import MarginalMoments, Moments
from latlas.numerics.posteriors import PosteriorMoments


def test_posteriors_of_no_images_change_nothing(generator: torch.Generator) -> None:
    mean, log_variance = torch.randn(2, 9, 3, generator=generator)
    some, none = PosteriorMoments.of(mean, log_variance), PosteriorMoments.of(mean[:0], log_variance[:0])
    for merged in (some.merge(none), none.merge(some), none.merge(none).merge(some), none.merge(some.merge(none))):
        assert torch.equal(merged.as_rows(), some.as_rows())
    assert none.merge(none).means.count == 0


def test_moments_of_no_rows_change_nothing(generator: torch.Generator) -> None:
    rows = torch.randn(9, 3, generator=generator)
    whole = Moments.of(rows)
    for stream in ([rows[:0], rows], [rows, rows[:0]], [rows[:0], rows, rows[:0]]):
        found = Moments.over(stream)
        assert (found.count, found.mean.tolist(), found.scatter.tolist()) == (9, whole.mean.tolist(), whole.scatter.tolist())


@pytest.mark.parametrize("cuts", [[9], [4, 5], [0, 3, 0, 6], [1] * 9])
def test_marginal_moments_of_a_stream_are_those_of_all_its_rows(cuts: list[int], generator: torch.Generator) -> None:
    rows = 1e4 + torch.randn(9, 2, 3, generator=generator, dtype=torch.float64)
    found = MarginalMoments.over(torch.split(rows, cuts))
    assert found.count == 9
    torch.testing.assert_close(found.mean, rows.mean(dim=0))
    torch.testing.assert_close(found.variance(), rows.var(dim=0, correction=0), rtol=1e-9, atol=0.0)
    with pytest.raises(IllPosedError, match="an empty stream"):
        MarginalMoments.over([])


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 / 7])
def test_what_never_varies_is_constant_by_either_kind_of_moments(value: float, generator: torch.Generator) -> None:
    """Up to the rounding of a mean, which is no variance; and a spread far below the mean is one."""
    rows = torch.full((37, 3), value, dtype=torch.float64)
    rows[:, 2] += 1e-9 * (1.0 + abs(value)) * torch.randn(37, generator=generator, dtype=torch.float64)
    for found in (Moments.of(rows), MarginalMoments.of(rows), MarginalMoments.over(torch.split(rows, 5))):
        assert found.constant().tolist() == [True, True, False]
