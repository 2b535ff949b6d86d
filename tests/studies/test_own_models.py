"""Studies of a model that somebody brings: what is wrong with it is told, and nothing of his is changed by being studied."""

import logging
import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, NonFiniteError
from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget
from latlas.inversion.invert import invert
from latlas.measurements.features import RawPixels
from latlas.models.adapters.callables import CallableModel
from latlas.models.adapters.modules import ModuleModel, from_module
from latlas.studies.calibrate import calibrate_sampler
from latlas.studies.compare import compare
from latlas.studies.coverage import cover
from latlas.studies.diagnose import Diagnosis, diagnose
from latlas.studies.matrix import compare_all
from latlas.studies.pruning import prune
from latlas.studies.range_test import range_test
from latlas.studies.support import build_support_set

SHAPE = (3, 4, 6)  # colour, and not square
FEW = Budget(steps=3)


class Own(nn.Module):
    """A linear autoencoder on [-1, 1] with batch normalisation and dropout, as it comes out of somebody's training loop."""

    def __init__(self, latent: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(latent)
        basis = torch.linalg.qr(torch.randn(72, latent, generator=generator)).Q
        self.basis = nn.Parameter(basis)
        self.norm = nn.BatchNorm1d(72, affine=False)
        self.drop = nn.Dropout(0.5)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.drop(self.norm(images.flatten(1))) @ self.basis
        return mean, torch.full_like(mean, -2.0)

    def decode(self, codes: Tensor) -> Tensor:
        return (self.drop(codes) @ self.basis.T).view(-1, *SHAPE).clamp(-1, 1)


@pytest.fixture
def own() -> ModuleModel:
    return from_module(Own(), image_shape=SHAPE, latent_shape=(3,), value_range=(-1, 1), standard_normal=True)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return ImageSet("own images", torch.rand(160, *SHAPE, generator=torch.Generator().manual_seed(5)))


STUDIES: dict[str, Callable[[ModuleModel, ImageSet], Any]] = {
    "Diagnosis": lambda model, images: diagnose(model, images),
    "Comparison": lambda model, images: compare(model, model, images),
    "ComparisonMatrix": lambda model, images: compare_all([model, model], images),
    "PrunedModel": lambda model, images: prune(model, images, keep=2),
    "Calibration": lambda model, images: calibrate_sampler(
        model, images, images, features=RawPixels(SHAPE), kinds=("prior", "mixture"), components=2
    ),
    "Inversion": lambda model, images: invert(model, images.slice(0, 4), budget=FEW),
    "RangeResult": lambda model, images: range_test(model, images.slice(0, 4), budget=FEW, samples=30),
    "Coverage": lambda model, images: cover(
        model, build_support_set(model, images, variables=2), images, represented=True, budget=FEW, samples=20, controls=40
    ),
}


def _numbers(result: Any) -> str:
    tensors = {key: value for key, value in vars(result).items() if isinstance(value, Tensor)}
    told = result.to_json() if hasattr(result, "to_json") else ""
    if isinstance(told, dict):
        told.pop("times", None)
    return f"{told}{[(key, value.tolist()) for key, value in tensors.items()]}"


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_leaves_the_callers_chance_and_modes_as_they_were_and_owes_them_nothing(
    name: str, own: ModuleModel, images: ImageSet
) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # what is in use elsewhere
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()  # type: ignore[index]
        weights = {key: value.clone() for key, value in own.state_dict().items()}
        found.append(STUDIES[name](own, images))
        assert torch.get_rng_state().equal(before[0])
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
        assert torch.get_num_threads() == before[2]
        assert torch.is_grad_enabled()
        assert all(value.equal(weights[key]) for key, value in own.state_dict().items())
        assert all(weight.requires_grad and weight.grad is None for weight in own.parameters())
    assert _numbers(found[0]) == _numbers(found[1])


@pytest.mark.parametrize("name", STUDIES)
def test_a_result_is_one_line_where_a_notebook_shows_it(name: str, own: ModuleModel, images: ImageSet) -> None:
    shown = repr(STUDIES[name](own, images))
    assert re.fullmatch(rf"<{name} .*>", shown)  # `.` is no line break
    assert len(shown) < 400
    assert "tensor(" not in shown


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_the_same_where_the_caller_switched_gradients_off(
    name: str, mode: Callable[[], Any], own: ModuleModel, images: ImageSet
) -> None:
    expected = _numbers(STUDIES[name](own, images))
    with mode():
        # Images, too, may have been made there.
        assert _numbers(STUDIES[name](own, ImageSet(images.name, images.storage.clone()))) == expected
        assert not torch.is_grad_enabled()


# What a model may do wrong


def linear(decode: Callable[[Tensor], Tensor]) -> CallableModel:
    return CallableModel(
        name="linear",
        image_shape=(1, 2, 3),
        latent_shape=(6,),
        encode_with=lambda images: images.flatten(1),
        decode_with=decode,
    )


def six(n: int = 200) -> ImageSet:
    return ImageSet("six", torch.rand(n, 1, 2, 3, generator=torch.Generator().manual_seed(6)))


def warned(sheet: Diagnosis) -> list[str]:
    return [each.headline for each in sheet.advice if each.level == "warning"]


def test_a_decoder_that_leaves_the_numbers_is_named_with_the_first_image() -> None:
    def broken(codes: Tensor) -> Tensor:
        drawn = codes.unflatten(1, (1, 2, 3)).clone()
        drawn[codes[:, 0] > 0.99] = torch.nan
        return drawn

    images = six()
    first = int((images.storage.flatten(1)[:, 0] > 0.99).nonzero()[0, 0])
    with pytest.raises(NonFiniteError, match=rf"linear decodes the code of image #{first} of six to NaN or infinity"):
        diagnose(linear(broken), images)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda codes: 255 * codes.unflatten(1, (1, 2, 3)),  # values from 0 to 255
        lambda codes: codes.unflatten(1, (1, 3, 2)).transpose(2, 3),  # rows for columns
        lambda codes: codes.unflatten(1, (1, 2, 3)).flip(3),  # the wrong way round, as the order of colours may be
    ],
)
def test_reconstructions_farther_off_than_the_mean_image_are_told_before_all_else(wrong: Callable[[Tensor], Tensor]) -> None:
    sheet = diagnose(linear(wrong), six())
    assert warned(sheet) == ["Reconstructions are farther from the images than one mean image would be."]
    assert sheet.advice[0].level == "warning"
    assert "order of the colours" in sheet.advice[0].text


def test_the_mean_image_itself_is_no_reason_to_doubt_the_images() -> None:
    images = six()
    mean = images.storage.mean(dim=0)
    sheet = diagnose(linear(lambda codes: mean.expand(len(codes), 1, 2, 3) + 0.0 * codes.unflatten(1, (1, 2, 3))), images)
    assert not warned(sheet)


# Codes that are chance


@pytest.mark.parametrize("ask", [diagnose, lambda model, images: prune(model, images, keep=2)], ids=["diagnose", "prune"])
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_an_encoder_that_draws_samples_is_refused(ask: Callable[[Any, ImageSet], Any], noise: float) -> None:
    """Its collapsed variables would look active: samples of the prior vary by 1."""
    model = replace(
        linear(lambda codes: codes.unflatten(1, (1, 2, 3))),
        encode_with=lambda images: images.flatten(1) + noise * torch.randn(len(images), 6),
    )
    torch.manual_seed(0)
    with pytest.raises(CapabilityError, match=r"linear gives the same images other codes when it is asked again.* Give means"):
        ask(model, six())


def test_an_encoder_whose_codes_depend_on_the_company_of_an_image_is_refused() -> None:
    def normalised(images: Tensor) -> Tensor:  # by batch statistics, which of 200 are not those of 2
        return (images.flatten(1) - images.flatten(1).mean(0)) / images.flatten(1).std(0)

    model = replace(linear(lambda codes: codes.unflatten(1, (1, 2, 3))), encode_with=normalised)
    with pytest.raises(CapabilityError, match="codes that depend on the other images of a batch"):
        diagnose(model, six())


def test_rounding_to_half_precision_is_no_chance() -> None:
    def jittered(images: Tensor) -> Tensor:  # what another batch size may do to a sum in bfloat16
        return images.flatten(1) * (1 + 2.0**-8 * (len(images) == 2))

    model = replace(linear(lambda codes: codes.unflatten(1, (1, 2, 3)).clamp(0, 1)), encode_with=jittered)
    assert not warned(diagnose(model, six()))


# Images that say nothing of others


def test_what_is_measured_on_the_images_it_was_fitted_to_is_told(
    own: ModuleModel, images: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    again = ImageSet("the same under another name", images.storage.clone())
    raw = RawPixels(SHAPE)
    with caplog.at_level(logging.WARNING):
        compare(own, own, images, test=again, brief=True)
        compare_all([own, own], images, test=again)
        calibrate_sampler(own, images, again, features=raw, kinds="prior")
    assert caplog.messages == [
        f"{what} is measured on the images that it was fitted to (own images): errors on others are larger."
        for what in ("The map", "Every map", "Every sampler")
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        compare(own, own, images, brief=True)
        compare_all([own, own], images)
        calibrate_sampler(own, images.slice(0, 80), images.slice(80, 160), features=raw, kinds="prior")
    assert not caplog.messages
