"""Any torch module with methods that encode and decode: its answers are understood, its range and scale converted."""

import logging
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, CodeShapeError, ImageFormatError, SettingError
from latlas.models.adapters.callables import CallableModel
from latlas.models.adapters.modules import ModuleModel, from_module
from latlas.models.protocols import CodeScale, require_autoencoder, require_generator

SHAPE, LATENT = (1, 2, 3), (6,)


class Pixels(nn.Module):
    """Codes are the pixels, times a weight; `form` says how the answer is given."""

    def __init__(self, form: Any = lambda mean, log_variance: mean, weight: float = 2.0) -> None:
        super().__init__()
        self.form = form
        self.weight = nn.Parameter(torch.tensor(weight))
        self.dropout = nn.Dropout(0.5)

    def encode(self, images: Tensor) -> Any:
        mean = self.dropout(images.flatten(1) * self.weight)
        return self.form(mean, mean - 1)

    def decode(self, codes: Tensor) -> Tensor:
        return (codes / self.weight).unflatten(1, SHAPE)


class Answer(SimpleNamespace):
    """Something with attributes."""


def wrap(module: nn.Module, **options: Any) -> ModuleModel:
    return from_module(module, **{"image_shape": SHAPE, "latent_shape": LATENT, **options})


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(4, *SHAPE, generator=generator)


# What encoders answer with


@pytest.mark.parametrize(
    "form",
    [
        lambda mean, log_variance: (mean, log_variance),
        lambda mean, log_variance: [mean, log_variance],
        lambda mean, log_variance: Answer(latent_dist=Answer(mean=mean, logvar=log_variance)),
        lambda mean, log_variance: (Answer(latent_dist=Answer(mean=mean, logvar=log_variance)),),
        lambda mean, log_variance: OrderedDict(embedding=mean, log_covariance=log_variance),
        lambda mean, log_variance: Answer(embedding=mean, log_covariance=log_variance),
        lambda mean, log_variance: {"latent": mean, "logvar": log_variance},
    ],
    ids=["pair", "list", "latent_dist", "one of latent_dist", "mapping", "attributes", "latent and logvar"],
)
def test_means_and_log_variances_are_found_in_every_form(form: Any, images: Tensor) -> None:
    posterior = wrap(Pixels(form)).encode(images)
    assert posterior.mean.equal(2 * images.flatten(1))
    assert posterior.log_variance is not None
    assert posterior.log_variance.equal(2 * images.flatten(1) - 1)


@pytest.mark.parametrize(
    "form",
    [
        lambda mean, _: mean,
        lambda mean, _: (mean,),
        lambda mean, _: Answer(latents=mean),
        lambda mean, _: Answer(latent=mean),
        lambda mean, _: {"embedding": mean},
    ],
    ids=["tensor", "one", "latents", "latent", "embedding"],
)
def test_means_alone_are_a_deterministic_encoder(form: Any, images: Tensor) -> None:
    posterior = wrap(Pixels(form)).encode(images)
    assert posterior.mean.equal(2 * images.flatten(1))
    assert posterior.log_variance is None


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (lambda mean, log_variance: (mean, mean, log_variance), "as a tuple of 3"),  # which of them is the mean?
        (lambda mean, log_variance: {"z": mean, "loss": 0.0}, "as a mapping with z, loss"),
        (lambda mean, log_variance: None, "as a NoneType"),
        (lambda mean, log_variance: Answer(latent_dist=Answer()), "as a Answer"),
        (lambda mean, log_variance: {}, "as a mapping with nothing in it"),
    ],
)
def test_answers_that_could_mean_anything_are_refused_with_what_is_understood(form: Any, found: str, images: Tensor) -> None:
    with pytest.raises(CapabilityError, match=rf"Pixels encodes images {found}\. A tensor, a pair .* wrap its method"):
        wrap(Pixels(form)).encode(images)


def test_a_full_covariance_is_not_taken_for_log_variances(images: Tensor) -> None:
    with pytest.raises(CapabilityError, match=r"means of \(4, 6\) and log-variances of \(4, 6, 6\)"):
        wrap(Pixels(lambda mean, _: (mean, torch.zeros(4, 6, 6)))).encode(images)


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x,), lambda x: Answer(sample=x), lambda x: {"reconstruction": x}])
def test_images_are_found_in_every_form(form: Any, images: Tensor) -> None:
    module = Pixels()
    module.draw = lambda codes: form(module.decode(codes))  # type: ignore[assignment]
    assert wrap(module, decode="draw").decode(2 * images.flatten(1)).allclose(images)


def test_a_method_named_sample_is_no_picture(images: Tensor) -> None:
    module = Pixels()
    module.draw = lambda codes: torch.distributions.Normal(codes, 1.0)  # type: ignore[assignment]
    with pytest.raises(CapabilityError, match="Pixels decodes codes as a Normal"):
        wrap(module, decode="draw").decode(images.flatten(1))


# Range, type and mode


def test_images_are_converted_to_the_range_of_the_module_and_back(images: Tensor) -> None:
    model = wrap(Pixels(), value_range=(-1, 1))
    codes = model.encode(images).mean
    torch.testing.assert_close(codes, 2 * (2 * images.flatten(1) - 1))
    torch.testing.assert_close(model.decode(codes), images)


def test_what_is_drawn_beyond_the_range_is_cut_off() -> None:
    model = wrap(Pixels(weight=1.0), value_range=(-1, 1))
    codes = torch.tensor([[-3.0, -1.0, 0.0, 0.5, 1.0, 9.0]])
    assert model.decode(codes).flatten().tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]


def test_a_module_comes_in_evaluation_mode_and_computes_in_its_own_precision(images: Tensor) -> None:
    module = Pixels().to(torch.bfloat16)
    model = wrap(module)
    assert not module.dropout.training
    mean = model.encode(images).mean
    assert mean.dtype == torch.float32
    assert mean.equal((images.bfloat16().flatten(1) * 2).float())
    assert model.decode(mean).dtype == torch.float32


def test_gradients_reach_the_codes(images: Tensor) -> None:
    codes = (2 * images.flatten(1)).requires_grad_()
    wrap(Pixels()).decode(codes).sum().backward()
    assert codes.grad is not None
    assert codes.grad.allclose(torch.full((4, 6), 0.5))


# Raw and scaled


def test_scaled_codes_are_shifted_and_scaled_by_channel_and_decode_to_the_same_images(generator: torch.Generator) -> None:
    class Grid(nn.Module):
        def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images * 3, images - 2

        def decode(self, codes: Tensor) -> Tensor:
            return codes / 3

    images = torch.rand(4, 3, 2, 2, generator=generator)
    scale = CodeScale(factor=(0.5, -2.0, 4.0), shift=(0.1, 0.2, 0.3))
    raw = ModuleModel(Grid(), image_shape=(3, 2, 2), latent_shape=(3, 2, 2), scale=scale)
    scaled = ModuleModel(Grid(), image_shape=(3, 2, 2), latent_shape=(3, 2, 2), scale=scale, scaled=True)
    assert (raw.scaling, scaled.scaling) == ("raw", "scaled")
    assert raw.encode(images).mean.equal(images * 3)
    posterior = scaled.encode(images)
    for channel in range(3):
        expected = (images[:, channel] * 3 - scale.shift[channel]) * scale.factor[channel]
        torch.testing.assert_close(posterior.mean[:, channel], expected)
    # The deviation of what is scaled is scaled with it: sampled noise times |factor|.
    assert posterior.log_variance is not None
    deviation = (0.5 * (images - 2)).exp() * torch.tensor(scale.factor).abs()[:, None, None]
    torch.testing.assert_close((0.5 * posterior.log_variance).exp(), deviation)
    torch.testing.assert_close(scaled.decode(posterior.mean), images)


def test_one_factor_serves_vectors_too(images: Tensor) -> None:
    model = wrap(Pixels(), scale=CodeScale(factor=(0.25,), shift=(1.0,)), scaled=True)
    torch.testing.assert_close(model.encode(images).mean, (2 * images.flatten(1) - 1) * 0.25)


@pytest.mark.parametrize(
    ("factor", "shift"), [((0.0,), (0.0,)), ((1.0,), (float("nan"),)), ((float("inf"),), (0.0,)), ((), (0.0,))]
)
def test_a_scale_that_cannot_be_undone_is_refused(factor: tuple[float, ...], shift: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match="A scale "):
        CodeScale(factor=factor, shift=shift)


# What changes the fingerprint


def test_the_fingerprint_changes_with_everything_that_changes_the_codes() -> None:
    scale = CodeScale(factor=(0.5,))
    module, other = Pixels(), Pixels()
    assert wrap(module).fingerprint == wrap(other).fingerprint == wrap(module, name="another", scale=scale).fingerprint
    module.embed = module.encode  # type: ignore[assignment]
    prints = [
        wrap(module).fingerprint,
        wrap(Pixels(weight=2.5)).fingerprint,
        wrap(module, value_range=(-1, 1)).fingerprint,
        wrap(module, encode="embed").fingerprint,
        wrap(module, scale=scale, scaled=True).fingerprint,
        wrap(module, scale=CodeScale(factor=(0.6,)), scaled=True).fingerprint,
        wrap(module, scale=CodeScale(), scaled=True).fingerprint,
    ]
    assert len(set(prints)) == len(prints)


# What it can do, and what is wrong


def test_what_a_module_cannot_do_is_known_before_any_work() -> None:
    assert require_autoencoder(wrap(Pixels()), "Comparing")
    with pytest.raises(CapabilityError, match="Comparing needs a decoder, which Pixels lacks"):
        require_autoencoder(wrap(Pixels(), decode=None), "Comparing")
    with pytest.raises(CapabilityError, match="was given no method to decode with"):
        wrap(Pixels(), decode=None).decode(torch.zeros(1, 6))
    with pytest.raises(CapabilityError, match="Sampling needs a decoder that can draw its own codes, which Pixels is not"):
        require_generator(wrap(Pixels()), "Sampling")
    with pytest.raises(CapabilityError, match="Nothing is known of the prior"):
        wrap(Pixels()).sample_codes(2, torch.Generator())
    drawn = wrap(Pixels(), standard_normal=True)
    assert require_generator(drawn, "Sampling") is drawn
    assert drawn.sample_codes(5, torch.Generator().manual_seed(0)).shape == (5, 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encode": "embed"}, r"Pixels has no method 'embed'. Name the ones it has"),
        ({"decode": "weight"}, "Pixels has no method 'weight'"),
        ({"value_range": (1, 0)}, r"value_range takes \(lowest, highest\), as in \(-1, 1\); got \(1, 0\)"),
        ({"value_range": (0, float("inf"))}, "value_range takes"),
        ({"scaled": True}, "Pixels states no scale for its codes. Ask for raw codes"),
        ({"scale": CodeScale(factor=(1.0, 2.0))}, "6 latent channels, and its scale has 2 factors and 1 shifts"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        wrap(Pixels(), **options)


def test_shapes_are_checked_against_what_was_stated(images: Tensor) -> None:
    with pytest.raises(ImageFormatError, match="takes images of 1x2x3"):
        wrap(Pixels()).encode(torch.rand(2, 1, 3, 2))
    with pytest.raises(CodeShapeError, match="takes codes of shape 6, got 5"):
        wrap(Pixels()).decode(torch.rand(2, 5))
    with pytest.raises(CodeShapeError, match="said to have codes of 3, and it encodes 4 images as 4x6"):
        wrap(Pixels(), latent_shape=(3,)).encode(images)
    with pytest.raises(ImageFormatError, match="said to make images of 1x3x2, and it decodes 4 codes to 4x1x2x3"):
        wrap(Pixels(), image_shape=(1, 3, 2)).decode(images.flatten(1))


def test_a_model_that_serves_other_sizes_says_how_to_ask_for_them() -> None:
    model = wrap(Pixels(), image_shape=(1, 8, 8), stride=4)
    with pytest.raises(ImageFormatError, match=r"serves other sizes too: ask for it with \?size=12\.$"):
        model.encode(torch.rand(1, 1, 12, 12))
    with pytest.raises(ImageFormatError, match="--resize 8"):
        model.encode(torch.rand(1, 1, 10, 10))


# What is stated of it


@pytest.mark.parametrize("shape", [(28, 28), [28, 28], (1, 28, 28, 1), (1, 28, 0), (1, -28, 28), ()])
def test_an_image_shape_that_no_image_has_is_refused_at_once(shape: Any) -> None:
    with pytest.raises(SettingError) as mistake:
        from_module(Pixels(), image_shape=shape, latent_shape=LATENT)
    assert "image_shape takes channels, height and width" in str(mistake.value)
    assert repr(shape) in str(mistake.value)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("shape", [(), (0,), (-6,), (2, 3), (1, 2, 3, 4)])
def test_a_latent_shape_that_no_code_has_is_refused_at_once(shape: Any) -> None:
    with pytest.raises(SettingError, match="latent_shape takes the number of variables"):
        from_module(Pixels(), image_shape=SHAPE, latent_shape=shape)


def test_shapes_may_be_what_torch_gives(images: Tensor) -> None:
    model = from_module(Pixels(), image_shape=images.shape[1:], latent_shape=torch.Size([6]))
    assert model.image_shape == SHAPE
    assert type(model.image_shape) is tuple
    assert torch.equal(model.encode(images).mean, wrap(Pixels()).encode(images).mean)


def test_a_pair_of_functions_with_an_impossible_shape_is_refused_at_once() -> None:
    with pytest.raises(SettingError, match="pair: image_shape takes channels, height and width"):
        CallableModel(name="pair", image_shape=(1, 28, 0), latent_shape=LATENT)


# What is looked at once


class Variational(nn.Module):
    """A VAE as textbooks write it; the last of its methods draws."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def posterior(self, images: Tensor) -> torch.distributions.Normal:
        mean = images.flatten(1) * self.weight
        return torch.distributions.Normal(mean, 0.5 * torch.ones_like(mean))

    def independent(self, images: Tensor) -> torch.distributions.Independent:
        return torch.distributions.Independent(self.posterior(images), 1)

    def sample(self, images: Tensor) -> Tensor:
        return self.posterior(images).sample()


@pytest.mark.parametrize("method", ["posterior", "independent"])
def test_a_normal_distribution_is_understood(method: str, images: Tensor) -> None:
    posterior = wrap(Variational(), encode=method, decode=None).encode(images)
    assert posterior.mean.equal(2 * images.flatten(1))
    assert posterior.log_variance is not None
    torch.testing.assert_close(posterior.log_variance.exp(), torch.full((4, 6), 0.25))


def test_an_encoder_that_draws_samples_is_refused(images: Tensor) -> None:
    torch.manual_seed(0)
    with pytest.raises(CapabilityError, match=r"Variational gives the same images other codes .* Give means"):
        wrap(Variational(), encode="sample", decode=None).encode(images)


def test_pixels_that_are_cut_off_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    model = wrap(Pixels(weight=1.0))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            model.decode(torch.tensor([[-1.0, -0.6, -0.2, 0.2, 0.6, 1.0]]))
    (told,) = caplog.messages
    assert told.startswith("Pixels draws 50 % of its pixels outside of 0 to 1, from -1 to 1.")
    assert "another value_range, as (-1, 1)?" in told
    caplog.clear()
    wrap(Pixels(weight=1.0), value_range=(-1, 1)).decode(torch.tensor([[-1.0, -0.6, -0.2, 0.2, 0.6, 1.0]]))
    assert not caplog.messages


def test_a_network_inside_of_another_is_pointed_to() -> None:
    with pytest.raises(SettingError, match=r"DataParallel has no method 'encode'\. Give its \.module, which has it\."):
        wrap(nn.DataParallel(Pixels()))
