"""Gain: on a linear decoder it has a closed form, and a variable that the decoder ignores buys exactly nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.encodings.engines.engine import LocalEngine
from latlas.measurements.gain import reconstruction_gain
from latlas.models.adapters.callables import CallableModel

SHAPE, PIXELS, LATENT, N = (1, 4, 6), 24, 5, 90
IGNORED = 3


@pytest.fixture
def mixing(generator: torch.Generator) -> Tensor:
    """What each variable draws; of unlike strengths, the fourth nothing."""
    strength = torch.tensor([0.02, 0.05, 0.01, 0.0, 0.03])
    return strength[:, None] * torch.randn(LATENT, PIXELS, generator=generator)


def planted(mixing: Tensor) -> CallableModel:
    return CallableModel(
        name="planted",
        image_shape=SHAPE,
        latent_shape=(LATENT,),
        decode_with=lambda codes: (0.5 + codes @ mixing.to(codes.dtype)).unflatten(1, SHAPE),
    )


@pytest.mark.parametrize("n", [90, 1100], ids=["one batch", "more than a batch"])
def test_the_gain_of_a_linear_decoder_has_a_closed_form(n: int, mixing: Tensor, generator: torch.Generator) -> None:
    """Without z_i the residual r grows by z_i a_i: the error by (2 z_i r.a_i + z_i^2 a_i.a_i) / pixels."""
    codes = torch.randn(n, LATENT, generator=generator) + 0.5  # not centred: a gain is about 0, not about the mean
    drawn = 0.5 + codes @ mixing
    residual = 0.02 * torch.randn(n, PIXELS, generator=generator)
    images = ImageSet("planted", (drawn + residual).clamp(0, 1).unflatten(1, SHAPE))
    gain = reconstruction_gain(planted(mixing), codes, images)
    a, z = mixing.double().numpy(), codes.double().numpy()
    r = images.tensor().double().flatten(1).numpy() - (0.5 + z @ a)
    growth = (2 * z * (r @ a.T) + z**2 * np.square(a).sum(axis=1)) / PIXELS
    np.testing.assert_allclose(gain.mean.numpy(), growth.mean(axis=0), rtol=1e-4, atol=1e-9)  # decoded in float32
    expected = growth.std(axis=0, ddof=1) / np.sqrt(n)
    np.testing.assert_allclose(gain.standard_error.numpy(), expected, rtol=1e-4, atol=1e-9)


def test_an_engine_gives_the_gain_and_the_error_of_the_whole(mixing: Tensor, generator: torch.Generator) -> None:
    codes = torch.randn(7, LATENT, generator=generator)
    images = ImageSet("few", torch.rand(7, *SHAPE, generator=generator))
    alone, parted = (reconstruction_gain(planted(mixing), codes, images, engine=engine) for engine in (None, LocalEngine()))
    torch.testing.assert_close(parted.mean, alone.mean, rtol=1e-12, atol=1e-18)
    torch.testing.assert_close(parted.standard_error, alone.standard_error, rtol=1e-9, atol=1e-18)


def test_a_variable_that_the_decoder_ignores_gains_exactly_nothing(mixing: Tensor, generator: torch.Generator) -> None:
    codes = torch.randn(N, LATENT, generator=generator)
    images = ImageSet("noise", torch.rand(N, *SHAPE, generator=generator))
    gain = reconstruction_gain(planted(mixing), codes, images)
    assert float(gain.mean[IGNORED]) == 0.0
    assert float(gain.standard_error[IGNORED]) == 0.0


def test_variables_are_ordered_by_what_they_draw(mixing: Tensor, generator: torch.Generator) -> None:
    codes = torch.randn(N, LATENT, generator=generator)
    images = ImageSet("own", (0.5 + codes @ mixing).unflatten(1, SHAPE))
    assert reconstruction_gain(planted(mixing), codes, images).order() == [1, 4, 0, 2, IGNORED]


def test_a_variable_that_does_harm_has_a_negative_gain_and_comes_last(mixing: Tensor, generator: torch.Generator) -> None:
    codes = torch.randn(N, LATENT, generator=generator)
    images = ImageSet("own", (0.5 + codes @ mixing).unflatten(1, SHAPE))
    spoiled = codes.clone()
    spoiled[:, 2] = 3 * torch.randn(N, generator=generator)
    gain = reconstruction_gain(planted(mixing), spoiled, images)
    assert float(gain.mean[2]) < 0
    assert gain.order()[-1] == 2


def test_codes_stay_as_they_were(mixing: Tensor, generator: torch.Generator) -> None:
    codes = torch.randn(N, LATENT, generator=generator)
    before = codes.clone()
    reconstruction_gain(planted(mixing), codes, ImageSet("noise", torch.rand(N, *SHAPE, generator=generator)))
    assert codes.equal(before)


def test_a_channel_of_a_spatial_code_is_one_variable(generator: torch.Generator) -> None:
    """Both channels are drawn one above the other: without a channel, half the picture is black."""
    images = ImageSet("noise", torch.rand(N, 1, 4, 6, generator=generator))
    codes = images.tensor().reshape(N, 2, 2, 6)
    decoder = CallableModel(
        name="stacked", image_shape=SHAPE, latent_shape=(2, 2, 6), decode_with=lambda z: z.reshape(-1, *SHAPE)
    )
    gain = reconstruction_gain(decoder, codes, images)
    expected = np.square(codes.double().numpy()).reshape(N, 2, 12).sum(axis=2).mean(axis=0) / PIXELS
    np.testing.assert_allclose(gain.mean.numpy(), expected, rtol=1e-9)


def test_one_image_has_a_gain_and_no_standard_error(mixing: Tensor) -> None:
    gain = reconstruction_gain(planted(mixing), torch.ones(1, LATENT), ImageSet("one", torch.full((1, *SHAPE), 0.5)))
    assert bool(gain.mean.isfinite().all())
    assert bool(gain.standard_error.isnan().all())


def test_progress_is_told_in_variables(mixing: Tensor) -> None:
    told: list[tuple[str, int, int | None]] = []
    reconstruction_gain(
        planted(mixing),
        torch.ones(2, LATENT),
        ImageSet("two", torch.full((2, *SHAPE), 0.5)),
        progress=lambda task, done, total, note="": told.append((task, done, total)),
    )
    assert told == [("gain of each variable", done, LATENT) for done in range(LATENT + 1)]
