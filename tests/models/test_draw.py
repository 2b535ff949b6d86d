"""DRAW: posterior and codes come together, the decoder replays them, and the windows are those of the paper."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import ImageFormatError, SettingError
from latlas.models.architectures.architecture import SequentialEncoder
from latlas.models.architectures.draw import Draw, DrawDecoder, DrawEncoder, Window, filter_bank
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE

SHAPES = [(1, 28, 28), (3, 12, 17)]
both = pytest.mark.parametrize("attention", [True, False], ids=["with attention", "without"])
shapes = pytest.mark.parametrize("image_shape", SHAPES, ids=str)


def build(image_shape: tuple[int, int, int], *, attention: bool, steps: int = 4) -> tuple[VAE, DrawEncoder, DrawDecoder]:
    torch.manual_seed(0)
    model = VAE(Draw(steps=steps, latent=3, hidden=20, attention=attention, read=3, write=4), image_shape)
    with torch.no_grad():  # starts are zero at first, and would hide what forgets them
        for parameter in (model.encoder.start, model.decoder.start, model.decoder.blank):
            parameter.normal_(std=0.5)
    assert isinstance(model.encoder, DrawEncoder)
    assert isinstance(model.decoder, DrawDecoder)
    return model, model.encoder, model.decoder


def some(image_shape: tuple[int, int, int], n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, *image_shape, generator=generator), torch.randn(n, 12, generator=generator)


# The laws of a code that is drawn in steps


@both
@shapes
def test_encoding_follows_the_means(image_shape: tuple[int, int, int], attention: bool) -> None:
    model, _, _ = build(image_shape, attention=attention)
    images, noise = some(image_shape)
    posterior, codes = model.infer(images, torch.zeros_like(noise))
    encoded = model.encode(images)
    assert posterior.mean.equal(encoded.mean)
    assert codes.equal(encoded.mean)
    assert posterior.log_variance is not None
    assert encoded.log_variance is not None
    assert posterior.log_variance.equal(encoded.log_variance)


@both
@shapes
def test_the_codes_are_mean_and_noise_times_deviation(image_shape: tuple[int, int, int], attention: bool) -> None:
    model, _, _ = build(image_shape, attention=attention)
    images, noise = some(image_shape)
    posterior, codes = model.infer(images, noise)
    assert posterior.log_variance is not None
    assert codes.shape == (5, *model.latent_shape)
    torch.testing.assert_close(codes, posterior.mean + noise * (0.5 * posterior.log_variance).exp(), rtol=0, atol=0)


@both
@shapes
def test_the_decoder_draws_the_canvas_that_the_encoder_saw(image_shape: tuple[int, int, int], attention: bool) -> None:
    model, encoder, decoder = build(image_shape, attention=attention)
    images, noise = some(image_shape)
    _, _, codes, canvas = encoder.unroll(images, noise, decoder)
    torch.testing.assert_close(model.decode_logits(codes), canvas, rtol=0, atol=0)


@both
def test_a_step_depends_on_the_noise_of_earlier_steps_alone(attention: bool) -> None:
    model, _, _ = build((1, 28, 28), attention=attention)
    images, noise = some((1, 28, 28))
    other = noise.clone()
    other[:, 3:6] += 1.0  # the second of four steps
    first, second = (model.infer(images, each)[0].mean for each in (noise, other))
    assert first[:, :6].equal(second[:, :6])
    assert bool((first[:, 6:] != second[:, 6:]).any())


def test_vaes_whose_codes_come_at_once_infer_by_the_ordinary_reparameterisation() -> None:
    torch.manual_seed(0)
    model = VAE(architecture("dense", widths=(8,), latent=3), (1, 8, 8))
    assert not isinstance(model.encoder, SequentialEncoder)
    images, noise = torch.rand(4, 1, 8, 8), torch.randn(4, 3)
    posterior, codes = model.infer(images, noise)
    assert posterior.mean.equal(model.encode(images).mean)
    assert posterior.log_variance is not None
    assert codes.equal(posterior.mean + noise * (0.5 * posterior.log_variance).exp())


@both
def test_one_step_is_written_out(attention: bool) -> None:
    """The equations 3 to 8 by hand, with torch's LSTM cells."""
    model, encoder, decoder = build((1, 28, 28), attention=attention, steps=1)
    images, noise = some((1, 28, 28))[0], torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    missing = images - decoder.blank.sigmoid()
    state = decoder.start[0].expand(5, -1)
    glimpse = encoder.look(images, missing, state)
    hidden, _ = encoder.network(
        torch.cat([glimpse, state], dim=1), (encoder.start[0].expand(5, -1), encoder.start[1].expand(5, -1))
    )
    mean, log_variance = encoder.head(hidden)[:, :3], encoder.head(hidden)[:, 3:]
    code = mean + noise * (0.5 * log_variance).exp()
    after, _ = decoder.network(code, (state, decoder.start[1].expand(5, -1)))
    patch = decoder.patch(after)
    if decoder.window is None:
        drawn = decoder.blank + patch.view(5, 1, 28, 28)
    else:
        rows, columns, intensity = decoder.window(after)
        stroke = torch.einsum("nik,nij,njl->nkl", rows[:, 0], patch.view(5, 4, 4), columns[:, 0])
        drawn = decoder.blank + stroke[:, None] / intensity
    posterior, codes = model.infer(images, noise)
    torch.testing.assert_close(posterior.mean, mean)
    torch.testing.assert_close(codes, code)
    torch.testing.assert_close(model.decode_logits(codes), drawn)


# Windows


def reference_filters(centre: float, stride: float, variance: float, grid: int, size: int) -> np.ndarray:
    """Equations 19, 20 and 25 of the paper as they stand, one number at a time in float64."""
    filters = np.zeros((grid, size))
    for i in range(1, grid + 1):
        mean = centre + (i - grid / 2 - 0.5) * stride
        for a in range(1, size + 1):
            filters[i - 1, a - 1] = math.exp(-((a - mean) ** 2) / (2 * variance))
        filters[i - 1] /= filters[i - 1].sum()
    return filters


@pytest.mark.parametrize(("grid", "size"), [(2, 28), (5, 28), (12, 17)])
def test_filters_are_those_of_the_paper(grid: int, size: int) -> None:
    draws = np.random.default_rng(3).normal(size=(20, 3))
    centres, strides, log_variances = (size + 1) / 2 * (0.5 * draws[:, 0] + 1), np.exp(draws[:, 1]), draws[:, 2]
    ours = filter_bank(*(torch.tensor(each)[:, None] for each in (centres, strides, log_variances)), grid=grid, size=size)
    assert ours.shape == (20, 1, grid, size)
    for row, centre, stride, log_variance in zip(ours[:, 0].numpy(), centres, strides, log_variances, strict=True):
        near = [abs(centre + (i - grid / 2 - 0.5) * stride - (size + 1) / 2) < size / 2 + 3 for i in range(1, grid + 1)]
        expected = reference_filters(centre, stride, math.exp(log_variance), grid, size)[near]
        np.testing.assert_allclose(row[near], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("centre", [-1e6, -40.0, 1.0, 14.5, 28.0, 1e6])
@pytest.mark.parametrize("log_variance", [-12.0, 0.0, 12.0])
def test_each_filter_sums_to_one_wherever_it_lies(centre: float, log_variance: float) -> None:
    """Far outside the paper's quotient is 0 / 0; its limit puts all weight on the nearest pixel."""
    filters = filter_bank(*(torch.tensor([[value]]) for value in (centre, 2.0, log_variance)), grid=5, size=28)
    assert bool((filters >= 0).all())
    torch.testing.assert_close(filters.sum(dim=3), torch.ones(1, 1, 5))


def test_a_window_at_rest_spans_the_image_and_adds_no_intensity() -> None:
    """With all five parameters 0: centred, deviation 1, from the first pixel to the last."""
    window = Window(4, 5, (1, 9, 9))
    torch.nn.init.zeros_(window.place.weight)
    torch.nn.init.zeros_(window.place.bias)
    rows, columns, intensity = window(torch.zeros(2, 4))
    expected = reference_filters(5.0, 2.0, 1.0, 5, 9)
    for filters in (rows, columns):
        np.testing.assert_allclose(filters[0, 0].detach().numpy(), expected, rtol=1e-5, atol=1e-7)
    assert intensity.flatten().tolist() == [1.0, 1.0]


def test_reading_is_the_filters_on_both_sides_for_each_colour() -> None:
    _, encoder, _ = build((3, 12, 17), attention=True)
    images, _ = some((3, 12, 17), n=2)
    state = torch.randn(2, 20, generator=torch.Generator().manual_seed(4))
    missing = images - 0.25
    assert encoder.window is not None
    across, down, log_variance, log_stride, log_intensity = encoder.window.place(state).detach().double().numpy().T
    seen = []
    for n in range(2):
        stride = (17 - 1) / (3 - 1) * math.exp(log_stride[n])
        rows = reference_filters((12 + 1) / 2 * (down[n] + 1), stride, math.exp(log_variance[n]), 3, 12)
        columns = reference_filters((17 + 1) / 2 * (across[n] + 1), stride, math.exp(log_variance[n]), 3, 17)
        stack = [*images[n].double().numpy(), *missing[n].double().numpy()]
        seen.append(np.concatenate([(math.exp(log_intensity[n]) * rows @ plane @ columns.T).ravel() for plane in stack]))
    np.testing.assert_allclose(encoder.look(images, missing, state).detach().numpy(), seen, rtol=1e-4, atol=1e-5)


# Settings


def test_the_latent_space_holds_all_steps() -> None:
    assert Draw().latent_shape((1, 28, 28)) == (100,)
    assert Draw(steps=64, latent=100).latent_shape((1, 28, 28)) == (6400,)


def test_a_window_of_one_filter_is_refused() -> None:
    with pytest.raises(SettingError, match="draw: a window needs 2 x 2 filters at least, got read 1, write 5"):
        Draw(read=1)
    assert Draw(read=1, attention=False).read == 1


def test_images_of_another_size_are_refused() -> None:
    model, _, _ = build((1, 28, 28), attention=True)
    for ask in (model.encode, lambda images: model.infer(images, torch.zeros(2, 12))):
        with pytest.raises(ImageFormatError, match="can be resized with --resize 28"):
            ask(torch.rand(2, 1, 20, 20))
