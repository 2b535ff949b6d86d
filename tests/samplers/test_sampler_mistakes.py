"""A sampler is refused before anything is fitted where the codes, or what is asked for, cannot give one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError, SettingError
from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.samplers.fit import SAMPLER_KINDS, fit_sampler
from latlas.samplers.second_stage import SecondStageSettings

QUICK = SecondStageSettings(width=8, layers=1, epochs=1)
EVERY_KIND = pytest.mark.parametrize("kind", SAMPLER_KINDS)


def encoding(mean: Tensor, log_variance: Tensor | None = None) -> Encoding:
    return Encoding(
        mean=mean, log_variance=log_variance, model="m", images="faces", images_hash="h", provenance=Provenance(made_by="test")
    )


def codes(n: int = 40, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


@EVERY_KIND
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_code_that_is_no_number_is_named_by_its_row(kind: str, value: float) -> None:
    broken = codes()
    broken[7, 1] = value
    with pytest.raises(NonFiniteError, match=r"^Row 7 of the codes of faces holds NaN or infinity"):
        fit_sampler(kind, encoding(broken), second_stage=QUICK)
    with pytest.raises(NonFiniteError, match=r"^Row 7 "):
        fit_sampler(kind, encoding(broken.reshape(40, 3, 1, 1)), second_stage=QUICK)


@EVERY_KIND
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_posterior_without_a_variance_is_named_by_its_row(kind: str, value: float) -> None:
    broken = torch.zeros(40, 3)
    broken[11, 2] = value
    with pytest.raises(NonFiniteError, match=r"^Row 11 of the codes of faces"):
        fit_sampler(kind, encoding(codes(), broken), second_stage=QUICK)


@EVERY_KIND
def test_posteriors_of_no_width_are_those_of_a_deterministic_encoder(kind: str) -> None:
    found = [
        fit_sampler(kind, encoding(codes(), widths), second_stage=QUICK).sample(50, torch.Generator().manual_seed(1))
        for widths in (None, torch.full((40, 3), -math.inf))
    ]
    torch.testing.assert_close(*found)


@EVERY_KIND
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_codes_that_are_all_alike_are_told_and_not_fitted(kind: str, value: float, dtype: torch.dtype) -> None:
    """Their variance is nothing but rounding: any ratio to it is a number without a meaning."""
    same = torch.full((40, 3), value, dtype=dtype)
    for widths in (None, torch.full((40, 3), -math.inf)):
        with pytest.raises(IllPosedError, match=r"All 40 codes of faces are alike.*may have collapsed"):
            fit_sampler(kind, encoding(same, widths), components=2, second_stage=QUICK)


@EVERY_KIND
def test_alike_means_of_posteriors_with_a_width_can_be_sampled(kind: str) -> None:
    """As of a model all of whose variables have collapsed: its aggregate posterior is the prior."""
    sampler = fit_sampler(kind, encoding(torch.zeros(400, 3), torch.zeros(400, 3)), components=2, second_stage=QUICK)
    assert sampler.variance_ratio == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("kind", [kind for kind in SAMPLER_KINDS if kind != "prior"])  # which has units of its own
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_sampler_of_codes_in_other_units_draws_in_those_units(kind: str, unit: float) -> None:
    some = codes(200).double() + 2.0
    plain, scaled = (
        fit_sampler(kind, encoding(part), components=2, renormalised=True, second_stage=QUICK).sample(
            60, torch.Generator().manual_seed(1)
        )
        for part in (some, some * unit)
    )
    torch.testing.assert_close(scaled / unit, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("components", [0, -1])
def test_a_mixture_of_no_components_is_refused(components: int) -> None:
    with pytest.raises(SettingError, match=f"at least 1 component, got {components}"):
        fit_sampler("mixture", encoding(codes()), components=components)
    fit_sampler("gaussian", encoding(codes()), components=components)  # where there is no mixture, nobody asks


@pytest.mark.parametrize("name", ["width", "layers", "epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_second_stage_of_nothing_is_refused(name: str, value: int) -> None:
    with pytest.raises(SettingError, match=f"{name} must be at least 1, got {value}"):
        fit_sampler("second-stage", encoding(codes()), second_stage=replace(QUICK, **{name: value}))


@pytest.mark.parametrize("rate", [0.0, -1e-3, math.nan, math.inf])
def test_a_second_stage_needs_a_learning_rate(rate: float) -> None:
    with pytest.raises(SettingError, match="finite learning rate above 0"):
        fit_sampler("second-stage", encoding(codes()), second_stage=replace(QUICK, learning_rate=rate))
