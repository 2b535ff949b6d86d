"""A model of two functions: their answers are checked against what was stated of them, before a number is made of any."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, ImageFormatError, SettingError
from latlas.models.adapters.callables import CallableModel
from latlas.models.protocols import device_of

SHAPE, LATENT = (1, 2, 3), (6,)


def flatten(images: Tensor) -> Tensor:
    return images.flatten(1)


def unflatten(codes: Tensor) -> Tensor:
    return codes.unflatten(1, SHAPE)


def pair(**options: Any) -> CallableModel:
    given: dict[str, Any] = {"encode_with": flatten, "decode_with": unflatten, **options}
    return CallableModel(name="pair", image_shape=SHAPE, latent_shape=LATENT, **given)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(4, *SHAPE, generator=generator)


# Codes


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: (x, x, x), "pair encodes images as a tuple of 3"),
        (lambda x: x.flatten(1).numpy(), "pair encodes images as a ndarray"),
        (lambda x: None, "pair encodes images as a NoneType"),
        (lambda x: (x.flatten(1), x.flatten(1)[:, :1]), r"means of \(4, 6\) and log-variances of \(4, 1\)"),
        (lambda x: (x.flatten(1), x.flatten(1).mean(1)), r"means of \(4, 6\) and log-variances of \(4,\)"),
    ],
)
def test_an_answer_that_could_mean_anything_is_refused(answer: Any, words: str, images: Tensor) -> None:
    with pytest.raises(CapabilityError, match=words):
        pair(encode_with=answer).encode(images)


@pytest.mark.parametrize("answer", [lambda x: x.flatten(1)[:, :5], lambda x: x.flatten(1)[:1], lambda x: x])
def test_codes_are_of_the_shape_that_was_stated_and_one_an_image(answer: Any, images: Tensor) -> None:
    with pytest.raises(CodeShapeError, match="pair was said to have codes of 6, and it encodes 4 images as"):
        pair(encode_with=answer).encode(images)


def test_lists_and_objects_serve_as_they_do_of_a_module(images: Tensor) -> None:
    posterior = pair(encode_with=lambda x: [x.flatten(1), x.flatten(1) - 1]).encode(images)
    assert posterior.log_variance is not None
    assert posterior.log_variance.equal(images.flatten(1) - 1)


# Images


@pytest.mark.parametrize(
    "draw",
    [
        lambda codes: codes,
        lambda codes: codes.view(-1, 2, 3),
        lambda codes: codes.view(-1, 1, 3, 2),
        lambda codes: codes.mean(1).view(-1, 1, 1, 1),  # would have been spread over all pixels
    ],
)
def test_images_are_of_the_shape_that_was_stated(draw: Any, images: Tensor) -> None:
    with pytest.raises(ImageFormatError, match="pair says that its images have shape 1x2x3, and draws"):
        pair(decode_with=draw).decode(images.flatten(1))


def test_a_decoder_gives_one_image_a_code(images: Tensor) -> None:
    with pytest.raises(ImageFormatError, match="pair draws 1 images of 4 codes"):
        pair(decode_with=lambda codes: unflatten(codes[:1])).decode(images.flatten(1))


def test_images_of_another_range_are_told_of_once(images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    model = pair(decode_with=lambda codes: 2 * unflatten(codes) - 1)
    codes = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]])
    with caplog.at_level(logging.WARNING):
        model.decode(codes)
        model.decode(codes)
    (told,) = caplog.messages
    assert told == (
        "pair draws 50 % of its pixels outside of 0 to 1, from -1 to 1. latlas takes them for values in [0, 1]: rescale what decode_with "
        "returns."
    )


def test_a_little_beyond_the_range_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    model = pair(decode_with=lambda codes: 1.08 * unflatten(codes) - 0.04)
    with caplog.at_level(logging.WARNING):
        model.decode(torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]]))
    assert not caplog.messages


def test_a_derivative_may_be_the_first_that_is_asked_of_a_decoder(images: Tensor) -> None:
    model = pair()
    jacobian = torch.vmap(torch.func.jacrev(lambda code: model.decode(code[None]).flatten()))(images.flatten(1))
    assert jacobian.equal(torch.eye(6).expand(4, 6, 6))


# Draws


def test_a_sampler_that_leaves_its_generator_alone_is_refused() -> None:
    model = pair(sample_with=lambda n, generator: torch.randn(n, 6))
    with pytest.raises(
        SettingError, match=r"draws other codes from the same generator.*torch\.randn\(n, 16, generator=generator\)"
    ):
        model.sample_codes(3, torch.Generator().manual_seed(0))


def test_looking_at_a_sampler_does_not_change_what_it_draws() -> None:
    looked = pair(sample_with=lambda n, generator: torch.rand(n, 6, generator=generator))
    ours, theirs = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for _ in range(3):
        assert looked.sample_codes(4, ours).equal(torch.rand(4, 6, generator=theirs))


@pytest.mark.parametrize("draw", [lambda n, g: torch.zeros(n, 5), lambda n, g: torch.zeros(6)])
def test_draws_are_of_the_shape_that_was_stated(draw: Any) -> None:
    with pytest.raises(CodeShapeError, match="asked for 3 its sample_with draws"):
        pair(sample_with=draw).sample_codes(3, torch.Generator())


def test_a_sampler_that_takes_no_generator_is_told_what_to_take() -> None:
    with pytest.raises(SettingError, match=r"takes a number and a torch\.Generator"):
        pair(sample_with=lambda n: torch.zeros(n, 6)).sample_codes(3, torch.Generator())


# Settings


def test_a_device_may_be_given_by_name() -> None:
    assert device_of(pair(device="meta")) == torch.device("meta")
    with pytest.raises(SettingError, match="unknown device 'gpu'"):
        pair(device="gpu")
