"""Codes from the aggregate posterior of given images: a mixture with known moments, and a range test for models without a prior."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, SettingError
from latlas.base.provenance import UNSTATED, Provenance
from latlas.base.seeds import generator
from latlas.data.images import ImageSet, to_pixels
from latlas.encodings.aggregate import AggregateGenerator, check_apart, with_codes_of
from latlas.encodings.encoding import Encoding
from latlas.inversion.descent import Budget
from latlas.inversion.invert import start_codes
from latlas.models.adapters.callables import CallableModel
from latlas.models.protocols import require_generator
from latlas.studies.range_calibration import calibrate_range
from latlas.studies.range_test import range_test

SHAPE, LATENT = (1, 2, 3), 2
DRAWING = torch.tensor([[0.3, 0.0, 0.0, 0.1, 0.0, 0.0], [0.0, 0.2, 0.0, 0.0, 0.0, 0.2]])


class WithoutPrior:
    """An autoencoder that states no prior: all of another model but what draws codes."""

    def __init__(self, inner: CallableModel) -> None:
        self.encode, self.decode = inner.encode, inner.decode
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.image_shape, self.latent_shape = inner.image_shape, inner.latent_shape


def linear() -> WithoutPrior:
    """Least squares in, a matrix out."""

    def draw(codes: Tensor) -> Tensor:
        return (0.5 + codes @ DRAWING.to(codes)).unflatten(1, SHAPE)

    def find(images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ torch.linalg.pinv(DRAWING).to(images)

    return WithoutPrior(
        CallableModel(
            image_shape=SHAPE, latent_shape=(LATENT,), encode_with=find, decode_with=draw, name="linear", fingerprint="linear"
        )
    )


def encoding(mean: Tensor, log_variance: Tensor | None) -> Encoding:
    return Encoding(
        mean=mean,
        log_variance=log_variance,
        model="linear",
        images="planted",
        images_hash="0",
        provenance=Provenance(made_by="test"),
    )


def test_codes_have_the_moments_of_the_mixture_of_every_second_image() -> None:
    mean = torch.tensor([[-1.0, 0.0], [9.0, 9.0], [1.0, 2.0], [9.0, 9.0], [0.0, 4.0]])
    variance = torch.tensor([[0.25, 1.0], [9.0, 9.0], [0.09, 0.04], [9.0, 9.0], [0.01, 0.16]])
    model = AggregateGenerator(linear(), encoding(mean, variance.log()))
    codes = model.sample_codes(90_000, generator(0)).double()
    # The law of total variance: within the components, and between them.
    expected = variance[::2].double().mean(dim=0) + mean[::2].double().var(dim=0, correction=0)
    torch.testing.assert_close(codes.mean(dim=0), mean[::2].double().mean(dim=0), rtol=0, atol=0.01)
    torch.testing.assert_close(codes.var(dim=0), expected, rtol=0.02, atol=0)


def test_without_variances_each_image_gives_its_code_once_before_any_twice() -> None:
    mean = torch.arange(20.0).reshape(10, 2)
    model = AggregateGenerator(linear(), encoding(mean, None))
    drawn = model.sample_codes(7, generator(1))
    assert sorted(drawn[:5, 0].tolist()) == mean[::2, 0].tolist()
    assert drawn.unique(dim=0).shape[0] == 5
    assert not torch.equal(drawn[:5], model.sample_codes(5, generator(2)))


def test_descents_start_from_other_images_than_own_samples_are_drawn_from() -> None:
    mean = torch.arange(20.0).reshape(10, 2)
    model = AggregateGenerator(linear(), encoding(mean, None))
    assert sorted(start_codes(model, 5, generator(1))[:, 0].tolist()) == mean[1::2, 0].tolist()


def test_images_that_the_decoder_makes_are_rejected_as_rarely_as_own_samples() -> None:
    """An encoder that shrinks, and too few steps: what is left must be left of own samples and of others alike."""
    exact = linear()
    shrinking = WithoutPrior(
        CallableModel(
            image_shape=SHAPE,
            latent_shape=(LATENT,),
            encode_with=lambda images: 0.5 * exact.encode(images).mean,
            decode_with=exact.decode,
            name="shrinking",
            fingerprint="shrinking",
        )
    )
    drawn = ImageSet("all", exact.decode(torch.rand(700, LATENT, generator=generator(5)) - 0.5))
    known, held_out = drawn.slice(0, 400), drawn.slice(400, 700)
    # What is in range by construction: the decoder's images of the codes of images that it has not seen.
    inside = ImageSet("in range", to_pixels(shrinking.decode(shrinking.encode(held_out.tensor()).mean)))
    budget = Budget(steps=20, learning_rate=0.02)
    found = range_test(with_codes_of(shrinking, known), inside, samples=200, budget=budget)
    rejected = int(found.rejected.sum())
    # The number rejected of 300 by ranks among 200 is beta-binomial: 10 of the 200 lie at or beyond the 5 % rank.
    assert stats.betabinom(300, 10, 191).ppf(0.0005) <= rejected <= stats.betabinom(300, 10, 191).ppf(0.9995)


def test_a_model_that_states_no_fingerprint_stays_unstated() -> None:
    model = linear()
    model.fingerprint = UNSTATED
    images = ImageSet("pictures", model.decode(torch.rand(4, LATENT, generator=generator(6))))
    first, second = with_codes_of(model, images), with_codes_of(model, images)
    assert first.fingerprint == UNSTATED
    calibration = calibrate_range(first, samples=20, budget=Budget(steps=2))
    with pytest.raises(SettingError, match="of another generator"):
        range_test(second, images, calibration=calibration)


def test_an_image_that_is_to_be_judged_gives_no_codes() -> None:
    images = ImageSet("pictures", torch.rand(6, *SHAPE, generator=generator(6)))
    check_apart(images.slice(0, 3), images.slice(3, 6))
    with pytest.raises(SettingError, match="is to be judged and is in"):
        check_apart(images.slice(0, 4), images.slice(3, 6))


def test_a_model_without_a_prior_becomes_a_generator_of_its_own_images() -> None:
    model = linear()
    with pytest.raises(CapabilityError, match="--codes-of"):
        require_generator(model, "A range test")
    images = ImageSet("pictures", model.decode(torch.rand(80, LATENT, generator=generator(3))))
    drawing = require_generator(with_codes_of(model, images), "A range test")
    codes = drawing.sample_codes(40, generator(4))
    # Those of the images to within their 8 bits.
    assert float((drawing.decode(codes)[:, None] - images.tensor()[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1).max()) < 1e-2
    other = ImageSet("others", images.tensor() * 0.5)
    assert with_codes_of(model, images).fingerprint != with_codes_of(model, other).fingerprint


def test_codes_that_are_not_the_models_are_refused() -> None:
    with pytest.raises(CapabilityError, match=r"encode the images with this model"):
        AggregateGenerator(linear(), encoding(torch.zeros(3, 4), None))
    with pytest.raises(IllPosedError, match="holds 1"):
        AggregateGenerator(linear(), encoding(torch.zeros(1, LATENT), None))
