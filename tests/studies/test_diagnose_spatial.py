"""Diagnosis of spatial latents: the numbers that a diffusion model needs, checked against the stated ones, and their page."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latlas.data.images import ImageSet
from latlas.models.adapters.modules import ModuleModel
from latlas.models.protocols import CodeScale
from latlas.reports.diagnosis import diagnosis_report
from latlas.reports.page import render
from latlas.studies.diagnose import Diagnosis, diagnose

SHAPE = (3, 8, 8)


class Pooled(nn.Module):
    """Codes are four times the mean of each 2 x 2 patch, less 1; where asked for, with a posterior variance of 0.25."""

    def __init__(self, *, variances: bool) -> None:
        super().__init__()
        self.variances = variances

    def encode(self, images: Tensor) -> Any:
        mean = 4 * nn.functional.avg_pool2d(images, 2) - 1
        return (mean, torch.full_like(mean, 0.25).log()) if self.variances else mean

    def decode(self, codes: Tensor) -> Tensor:
        return nn.functional.interpolate((codes + 1) / 4, scale_factor=2)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(5)
    level = torch.rand(120, 3, 1, 1, generator=generator)
    return ImageSet("squares", (0.6 * level + 0.4 * torch.rand(120, *SHAPE, generator=generator)).clamp(0, 1))


def model(*, variances: bool = True, **options: Any) -> ModuleModel:
    return ModuleModel(Pooled(variances=variances), image_shape=SHAPE, latent_shape=(3, 4, 4), name="pooled", **options)


def codes_of(images: ImageSet) -> np.ndarray:
    return 4 * images.tensor().double().numpy().reshape(120, 3, 4, 2, 4, 2).mean(axis=(3, 5)) - 1


def advice_on_scale(sheet: Diagnosis) -> Any:
    (found,) = [
        advice
        for advice in sheet.advice
        if "scale" in advice.headline or "scaling_factor" in advice.headline or "do not vary" in advice.text
    ]
    return found


def test_the_numbers_of_a_diffusion_model_stand_in_the_record(images: ImageSet) -> None:
    sheet, codes = diagnose(model(), images), codes_of(images)
    record = json.loads(json.dumps(sheet.to_json(), allow_nan=False))["scaling"]
    assert record["scaling_factor"] == pytest.approx(1 / np.sqrt(codes.var() + 0.25), rel=1e-5)
    assert record["shift_factor"] == pytest.approx(codes.mean(), rel=1e-5)
    np.testing.assert_allclose(record["latents_mean"], codes.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(record["latents_std"], np.sqrt(codes.var(axis=(0, 2, 3)) + 0.25), rtol=1e-5)
    assert record["configured"] is None
    advice = advice_on_scale(sheet)
    assert advice.level == "note"
    assert (
        f"needs scaling_factor {record['scaling_factor']:.4g} and shift_factor {record['shift_factor']:.4g}" in advice.headline
    )


@pytest.mark.parametrize("scaled", [False, True], ids=["raw", "scaled"])
@pytest.mark.parametrize(("ratio", "fits"), [(1.0, True), (0.4, False)])
def test_a_stated_scale_is_checked_alike_on_raw_and_on_scaled_latents(
    images: ImageSet, ratio: float, fits: bool, scaled: bool
) -> None:
    codes = codes_of(images)
    right = 1 / np.sqrt(codes.var() + 0.25)
    scale = CodeScale(factor=(ratio * right,), shift=(float(codes.mean()),))
    sheet = diagnose(model(scale=scale, scaled=scaled), images)
    record = sheet.to_json()["scaling"]
    assert record["scaling_factor"] == pytest.approx(right, rel=1e-5)  # of raw latents, whichever were asked for
    assert record["configured"]["scale"] == {"factor": [ratio * right], "shift": [float(codes.mean())]}
    assert record["configured"]["deviation"] == pytest.approx(ratio, rel=1e-5)
    assert record["configured"]["mean"] == pytest.approx(0, abs=1e-5)
    assert record["configured"]["fits"] is fits
    advice = advice_on_scale(sheet)
    assert advice.level == ("good" if fits else "note")
    assert f"deviation {ratio:.3g}" in advice.text
    assert fits or f"set scaling_factor {right:.4g}" in advice.text


def test_findings_stay_in_the_order_of_urgency(images: ImageSet) -> None:
    for scale in (None, CodeScale(factor=(100.0,))):
        levels = [advice.level for advice in diagnose(model(scale=scale), images).advice]
        assert levels == sorted(levels, key=["warning", "note", "good"].index)


def test_latents_that_do_not_vary_have_no_scale(images: ImageSet) -> None:
    still = ImageSet(
        "still", images.tensor()[:1].expand(5, -1, -1, -1).mean(dim=(1, 2, 3), keepdim=True).expand(5, *SHAPE).clone()
    )
    sheet = diagnose(model(variances=False), still)
    record = json.loads(json.dumps(sheet.to_json(), allow_nan=False))["scaling"]
    assert record["scaling_factor"] is None
    assert any("latents of these images do not vary" in advice.headline for advice in sheet.advice)
    assert "pooled" in render(diagnosis_report(sheet, model(variances=False), still))


def test_a_vector_latent_space_has_no_such_numbers(images: ImageSet) -> None:
    class Flat(nn.Module):
        def encode(self, images: Tensor) -> Tensor:
            return images.flatten(1)

        def decode(self, codes: Tensor) -> Tensor:
            return codes.unflatten(1, SHAPE)

    sheet = diagnose(ModuleModel(Flat(), image_shape=SHAPE, latent_shape=(192,)), images)
    assert sheet.scaling is None
    assert sheet.to_json()["scaling"] is None


@pytest.mark.parametrize("variances", [True, False], ids=["variational", "deterministic"])
@pytest.mark.filterwarnings("error")
def test_the_page_shows_the_numbers_and_draws_a_deterministic_encoder_too(images: ImageSet, variances: bool) -> None:
    which = model(variances=variances, scale=CodeScale(factor=(0.5,)))
    sheet = diagnose(which, images)
    page = render(diagnosis_report(sheet, which, images))
    assert sheet.scaling is not None
    for words in ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "deviation after the model's own scale"):
        assert words.replace("'", "&#39;") in page
    assert f"{sheet.scaling.scaling_factor:.4g}" in page
    assert f"{float(sheet.scaling.latents_std[2]):.4g}" in page
    assert ("a deterministic encoder has none" in page) is not variances
    assert "inf" not in [cell.strip("</td> ") for cell in page.split("<td")]
