"""The study of sectors: Gaussian codes are found to be Gaussian, and dependence is found where it was planted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, SettingError
from latlas.encodings.mapped import map_rows
from latlas.studies.sectors import study_sectors
from latlas.supports.sectors import Sectors

SECTORS = Sectors(variables=(3, 0, 2), threshold=0.2, centre=(0.1, 0.0, -0.1), scale=(1.0, 2.0, 0.5))


def gaussian(n: int, *, seed: int = 0, correlated: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 4, generator=generator)
    mixing = torch.eye(4) + 0.5 * torch.randn(4, 4, generator=generator)
    return (rows @ mixing if correlated else rows * torch.tensor([2.0, 1.0, 0.5, 1.0])) + 0.2


def test_counts_are_those_of_the_sectors() -> None:
    codes = gaussian(2000)
    study = study_sectors(codes, SECTORS)
    assert study.occupancy.equal(SECTORS.occupancy(codes))
    assert study.curve.codes == study.codes == 2000
    for test in study.tests.values():
        assert float(test.expected.sum()) == pytest.approx(int(study.occupancy.sum()))
    json.dumps(study.to_json(), allow_nan=False)


def test_correlated_gaussian_codes_contradict_independence_and_not_the_gaussian() -> None:
    study = study_sectors(gaussian(20_000), SECTORS)
    assert study.tests["uniform"].p_value < 1e-10
    assert study.tests["independence"].p_value < 1e-10
    assert study.tests["gaussian"].p_value > 1e-3
    assert study.reference is study.tests["gaussian"]
    inside = int(study.occupancy.sum())
    assert study.inside["gaussian"] == pytest.approx(inside, abs=5 * inside**0.5)
    assert study.integration_error is not None
    assert study.integration_error < 2.0


def test_independent_codes_contradict_neither() -> None:
    study = study_sectors(gaussian(20_000, correlated=False), SECTORS)
    assert study.tests["independence"].p_value > 1e-3
    assert study.tests["gaussian"].p_value > 1e-3
    assert study.inside["independence"] == pytest.approx(study.inside["gaussian"], rel=0.02)


def test_p_values_against_the_gaussian_are_nowhere_too_small() -> None:
    """Fitted to the codes, it lies nearer to them than the truth does: p-values are on the large side, and never below."""
    found = [study_sectors(gaussian(800, seed=seed), SECTORS, steps=2).tests["gaussian"].p_value for seed in range(40)]
    assert stats.kstest(np.array(found), "uniform", alternative="greater").pvalue > 0.01


def test_what_independence_puts_in_sectors_is_the_product_of_the_shares_beyond() -> None:
    codes = gaussian(500)
    middle, unit = np.array(SECTORS.centre), np.array(SECTORS.scale)
    beyond = np.abs((codes.numpy()[:, [3, 0, 2]] - middle) / unit) > 0.2
    assert study_sectors(codes, SECTORS).inside["independence"] == pytest.approx(500 * beyond.mean(axis=0).prod(), rel=1e-6)


def test_dependence_of_three_variables_that_no_pair_shows_is_found() -> None:
    """Codes with an even number of sides below 0 are made twice as many: each pair stays independent and Gaussian."""
    codes = torch.randn(6000, 3, generator=torch.Generator().manual_seed(4))
    odd = (codes.prod(dim=1) < 0).nonzero().flatten()
    codes[odd[::3], 0] *= -1.0
    sectors = Sectors(variables=(0, 1, 2), threshold=0.1)
    study = study_sectors(codes, sectors, shown=5)
    for null in ("independence", "gaussian"):
        assert study.tests[null].p_value < 1e-10
    even = {number for number in range(8) if np.prod(sectors.directions(number)) > 0}
    assert study.examples["fuller than expected"][0] in even
    assert study.examples["emptier than expected"][0] not in even
    assert study.examples["fullest"][0] == int(study.occupancy.argmax())
    for number, rows in study.examples.values():
        assert len(set(rows.tolist())) == 5
        assert set(sectors.of(codes[rows]).tolist()) == {number}


def test_the_emptiest_example_has_someone_to_show() -> None:
    study = study_sectors(torch.tensor([[1.0, 1.0], [2.0, 1.0], [-1.0, 1.0]]), Sectors(variables=(0, 1), threshold=0.0))
    assert study.occupancy.tolist() == [0, 0, 1, 2]
    assert study.examples["emptiest"] == (2, study.examples["emptiest"][1])
    assert study.examples["emptiest"][1].tolist() == [2]


def test_where_no_gaussian_has_a_density_independence_is_the_reference() -> None:
    rows = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 2).contiguous()
    study = study_sectors(rows, Sectors(variables=(0, 1), threshold=0.0))
    assert set(study.tests) == {"uniform", "independence"}
    assert study.reference.against == "independence"
    assert study.integration_error is None


def test_codes_that_stay_on_disk_give_the_same(tmp_path: Path) -> None:
    codes = gaussian(40_000)
    path = tmp_path / "mean.npy"
    np.save(path, codes.numpy())
    assert study_sectors(map_rows(path), SECTORS).to_json() == study_sectors(codes, SECTORS).to_json()


def test_nonsense_is_refused() -> None:
    with pytest.raises(IllPosedError, match=r"No code lies beyond the threshold 0\.2 in all variables"):
        study_sectors(torch.zeros(5, 4), Sectors(variables=(0, 1), threshold=0.2))
    with pytest.raises(CodeShapeError, match="need vector codes"):
        study_sectors(torch.ones(5, 4, 2, 2), SECTORS)
    with pytest.raises(SettingError, match="at least 1 member"):
        study_sectors(gaussian(20), SECTORS, shown=0)
