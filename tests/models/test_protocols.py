"""What a model must offer: a pair of functions serves wherever a VAE does, and what is missing is told before any work."""

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, ImageFormatError, SettingError
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.registry import architecture
from latlas.models.protocols import (
    LatentModel,
    check_codes,
    check_images,
    checked_shapes,
    device_of,
    require_autoencoder,
    require_encoder,
    require_generator,
)
from latlas.models.vae import VAE


def flatten(images: Tensor) -> Tensor:
    return images.flatten(1)


def unflatten(codes: Tensor) -> Tensor:
    return codes.unflatten(1, (1, 2, 3))


def pair(**options: object) -> CallableModel:
    given = {"encode_with": flatten, "decode_with": unflatten, **options}
    return CallableModel(name="pair", image_shape=(1, 2, 3), latent_shape=(6,), **given)  # type: ignore[arg-type]


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(architecture("dense", widths=(8,), latent=6), (1, 2, 3))


class Stranger:
    """A model of no class of ours, which only decodes."""

    name = "stranger"
    image_shape = (1, 2, 3)
    latent_shape = (6,)
    fingerprint = "f"

    def decode(self, codes: Tensor) -> Tensor:
        return unflatten(codes)


# A pair of functions


def test_a_pair_of_functions_encodes_and_decodes_by_them(generator: torch.Generator) -> None:
    images = torch.rand(4, 1, 2, 3, generator=generator)
    posterior = pair().encode(images)
    assert posterior.mean.equal(images.flatten(1))
    assert posterior.log_variance is None
    assert pair().decode(posterior.mean).equal(images)


def test_a_function_may_give_log_variances_too() -> None:
    model = pair(encode_with=lambda images: (flatten(images), -flatten(images)))
    posterior = model.encode(torch.ones(2, 1, 2, 3))
    assert posterior.log_variance is not None
    assert posterior.mean.equal(torch.ones(2, 6))
    assert posterior.log_variance.equal(-torch.ones(2, 6))


def test_a_function_that_was_not_given_is_missed_by_name() -> None:
    with pytest.raises(CapabilityError, match="pair was given no function to encode with"):
        pair(encode_with=None).encode(torch.rand(1, 1, 2, 3))
    with pytest.raises(CapabilityError, match="pair was given no function to decode with"):
        pair(decode_with=None).decode(torch.rand(1, 6))


def test_codes_of_another_latent_space_do_not_reach_the_function() -> None:
    with pytest.raises(CodeShapeError, match="pair takes codes of shape 6, got 2x3"):
        pair(decode_with=lambda codes: pytest.fail("was called")).decode(torch.zeros(4, 2, 3))


def test_codes_are_drawn_from_the_function_given_or_from_a_standard_normal() -> None:
    generator = torch.Generator().manual_seed(1)
    own = pair(sample_with=lambda n, generator: torch.rand(n, 6, generator=generator))
    assert own.sample_codes(5, generator).equal(torch.rand(5, 6, generator=torch.Generator().manual_seed(1)))
    normal = pair().sample_codes(5000, torch.Generator().manual_seed(1))
    assert normal.shape == (5000, 6)
    assert float(normal.mean(dim=0).abs().max()) < 5 / 5000**0.5
    assert float((normal.std(dim=0) - 1).abs().max()) < 5 / 10_000**0.5


def test_a_spatial_latent_space_is_drawn_in_its_shape() -> None:
    model = CallableModel(name="grid", image_shape=(1, 2, 3), latent_shape=(4, 2, 2), decode_with=unflatten)
    assert model.sample_codes(3, torch.Generator().manual_seed(0)).shape == (3, 4, 2, 2)


def test_two_models_are_equal_only_where_they_are_one() -> None:
    model = pair()
    assert model == model
    assert model != pair()
    assert len({model, pair()}) == 2


# What is asked of a model


@pytest.mark.parametrize("model", [vae(), pair()], ids=["vae", "pair"])
def test_a_model_that_can_do_everything_passes_every_question(model: LatentModel) -> None:
    assert isinstance(model, LatentModel)
    for require in (require_autoencoder, require_encoder, require_generator):
        assert require(model, "Comparing") is model


def test_what_a_model_lacks_is_told_with_the_question_and_its_name() -> None:
    with pytest.raises(CapabilityError, match=r"Comparing needs an encoder, which stranger lacks. Give a model that encodes"):
        require_autoencoder(Stranger(), "Comparing")
    with pytest.raises(CapabilityError, match="Encoding needs an encoder, which stranger lacks"):
        require_encoder(Stranger(), "Encoding")
    with pytest.raises(CapabilityError, match="Sampling needs a decoder that can draw its own codes, which stranger is not"):
        require_generator(Stranger(), "Sampling")


def test_a_pair_without_one_of_its_functions_is_found_out_by_the_question_and_not_in_the_middle_of_the_work() -> None:
    with pytest.raises(CapabilityError, match="Comparing needs an encoder, which pair lacks"):
        require_autoencoder(pair(encode_with=None), "Comparing")
    with pytest.raises(CapabilityError, match="Comparing needs a decoder, which pair lacks"):
        require_autoencoder(pair(decode_with=None), "Comparing")
    with pytest.raises(CapabilityError, match="Encoding needs an encoder, which pair lacks"):
        require_encoder(pair(encode_with=None), "Encoding")
    with pytest.raises(CapabilityError, match="Sampling needs a decoder"):
        require_generator(pair(decode_with=None), "Sampling")
    assert require_generator(pair(encode_with=None), "Sampling").name == "pair"
    assert require_encoder(pair(decode_with=None), "Encoding").name == "pair"


def test_image_shapes_are_compared_in_full() -> None:
    check_images((1, 2, 3), pair(), name="mnist")
    with pytest.raises(ImageFormatError, match=r"pair takes images of 1x2x3 \(channels x height x width\), mnist has 1x3x2"):
        check_images((1, 3, 2), pair(), name="mnist")
    with pytest.raises(ImageFormatError, match="mnist has 3x2x3"):
        check_images((3, 2, 3), pair(), name="mnist")


class Square(Stranger):
    """As Stranger, for colour images of 8 x 8."""

    image_shape = (3, 8, 8)


class Deep(Stranger):
    """As Stranger, for images of four channels."""

    image_shape = (4, 2, 3)


@pytest.mark.parametrize(
    ("model", "shape", "cure"),
    [
        (Square(), (3, 9, 9), r"Folders of pictures can be resized with --resize 8; convert arrays before\.$"),
        (Square(), (1, 8, 8), r"takes colour images and these are grey\. Pictures in files .*DATA ends in \?channels=3,"),
        (Stranger(), (3, 2, 3), r"takes grey images and these are colour\. Pictures in files .*DATA ends in \?channels=1,"),
        (
            Square(),
            (1, 9, 12),
            r"are grey\. Pictures in files .*DATA ends in \?size=8&channels=3, .*; convert others before\.$",
        ),
        (Stranger(), (4, 2, 3), r"takes grey images and these are 4-channel\. .*DATA ends in \?channels=1,"),
        (Deep(), (3, 2, 3), r"The model takes 4-channel images and these are colour: convert them to 4-channel before\.$"),
        (Stranger(), (1, 3, 3), r"Resize them to a height of 2 and a width of 3 before\.$"),
    ],
)
def test_the_cure_fits_what_differs(model: LatentModel, shape: tuple[int, int, int], cure: str) -> None:
    with pytest.raises(ImageFormatError, match=cure):
        check_images(shape, model, name="mnist")


def test_code_shapes_are_compared_in_full() -> None:
    check_codes(torch.zeros(0, 6), pair())
    with pytest.raises(CodeShapeError, match="takes codes of shape 6, got 5"):
        check_codes(torch.zeros(6, 5), pair())


def test_a_model_computes_where_its_parameters_lie() -> None:
    assert device_of(vae()) == torch.device("cpu")
    with torch.device("meta"):
        assert device_of(vae()) == torch.device("meta")
    assert device_of(pair(device=torch.device("meta"))) == torch.device("meta")
    assert device_of(Stranger()) == torch.device("cpu")
    assert device_of(torch.nn.ReLU()) == torch.device("cpu")


@pytest.mark.parametrize(
    ("image_shape", "latent_shape", "words"),
    [
        ((28, 28), (6,), "image_shape"),
        ((1, 28.0, 28), (6,), "image_shape"),
        (("1", "28", "28"), (6,), "image_shape"),
        ([[1, 28, 28]], (6,), "image_shape"),
        (784, (6,), "image_shape"),
        (None, (6,), "image_shape"),
        ((1, 28, 28), 6, "latent_shape"),
        ((1, 28, 28), (2.5,), "latent_shape"),
    ],
)
def test_what_is_no_shape_is_refused(image_shape: object, latent_shape: object, words: str) -> None:
    with pytest.raises(SettingError, match=f"^mine: {words} takes .*whole numbers above 0"):
        checked_shapes(image_shape, latent_shape, name="mine")


def test_shapes_come_back_as_tuples_of_python_numbers() -> None:
    found = checked_shapes(torch.zeros(1, 28, 20).shape, np.array([4, 8, 8]), name="mine")
    assert found == ((1, 28, 20), (4, 8, 8))
    assert {type(size) for shape in found for size in shape} == {int}
