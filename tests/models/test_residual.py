"""ResNet and Split: the layers of the papers, the frame around an image, and the blend against its formula."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latlas.base.errors import ImageFormatError
from latlas.models.architectures.blocks import ResidualBlock, doubling, halving
from latlas.models.architectures.registry import architecture
from latlas.models.architectures.resnet import ResNet
from latlas.models.architectures.split import Split, SplitDecoder, blend_logits
from latlas.models.vae import VAE


def doublings(model: VAE) -> list[tuple[int, int]]:
    return [(m.in_channels, m.out_channels) for m in model.decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)]


def residual_widths(module: torch.nn.Module) -> list[int]:
    return [block.shortcut.in_channels for block in module.modules() if isinstance(block, ResidualBlock)]


# ResNet


@pytest.mark.parametrize(
    ("side", "scales", "encoder", "decoder"),
    [(32, 3, [32, 64, 128], [512, 256, 128, 64, 32]), (64, 4, [32, 64, 128, 256], [1024, 512, 256, 128, 64, 32])],
    ids=["CIFAR-10", "CelebA"],
)
def test_resnet_has_the_channels_of_the_balancing_paper(side: int, scales: int, encoder: list[int], decoder: list[int]) -> None:
    with torch.device("meta"):
        model = VAE(ResNet(scales=scales), (3, side, side))
    assert residual_widths(model.encoder) == encoder
    assert residual_widths(model.decoder) == decoder[1:]
    assert doublings(model) == list(pairwise(decoder))
    assert model.decoder.head.out_features == 2 * 2 * decoder[0]
    assert model.latent_shape == (64,)


def test_no_grid_of_the_decoder_has_more_than_1024_channels() -> None:
    with torch.device("meta"):
        model = VAE(ResNet(base_dim=256), (3, 32, 32))
    assert doublings(model) == [(1024, 1024), (1024, 1024), (1024, 512), (512, 256)]


@pytest.mark.parametrize("side", [4, 5, 16, 17, 27, 28, 31, 33])
def test_resnet_serves_any_square_side_from_two_to_the_scales(side: int) -> None:
    torch.manual_seed(0)
    model = VAE(ResNet(scales=2, base_dim=3, fc_dim=6, latent=2), (1, side, side))
    assert model.decode(model.encode(torch.rand(2, 1, side, side)).mean).shape == (2, 1, side, side)


@pytest.mark.parametrize(("name", "scales", "side"), [("resnet", 3, 7), ("split", 4, 15)])
def test_images_too_small_to_be_halved_are_refused_with_the_remedy(name: str, scales: int, side: int) -> None:
    need = side + 1
    words = rf"{name} with these settings needs images of {need} x {need} at least, got {side} x {side}. Resize them \(--resize {need}\)"
    with pytest.raises(ImageFormatError, match=words):
        VAE(architecture(name, scales=scales), (1, side, side))


@pytest.mark.parametrize("name", ["resnet", "split", "autoencoder-kl"])
def test_oblong_images_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(
        ImageFormatError, match=rf"{name} serves square images, got 32 x 28. Crop or resize them \(--resize N\)"
    ):
        VAE(architecture(name), (1, 32, 28))


@pytest.mark.parametrize("side", [2, 8, 14])
def test_halving_and_doubling_are_each_others_shape(side: int) -> None:
    features = torch.rand(1, 2, side, side)
    assert halving(2, 3)(features).shape == (1, 3, side // 2, side // 2)
    assert doubling(2, 3)(features).shape == (1, 3, 2 * side, 2 * side)


def test_a_residual_block_is_its_shortcut_once_its_path_is_silent() -> None:
    block = ResidualBlock(3, torch.nn.ReLU)
    with torch.no_grad():
        block.path[-1].weight.zero_()
        block.path[-1].bias.zero_()
    features = torch.rand(2, 3, 5, 5)
    assert block(features).equal(block.shortcut(features))


# Split


def test_split_has_the_channels_of_the_published_code() -> None:
    with torch.device("meta"):
        model = VAE(Split(), (3, 64, 64))
    assert residual_widths(model.encoder) == [64, 128, 256]
    assert residual_widths(model.decoder) == [512, 256, 128, 64]
    assert doublings(model) == [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert model.decoder.head[-1].out_features == 4 * 4 * 1024
    assert model.decoder.last.out_channels == 1 + 3 + 3
    assert model.latent_shape == (150,)


def small_split(image_shape: tuple[int, int, int]) -> VAE:
    torch.manual_seed(0)
    return VAE(Split(scales=2, base_dim=4, fc_dim=8, latent=3), image_shape)


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 30, 30)])
def test_the_image_is_the_blend_of_its_parts(image_shape: tuple[int, int, int]) -> None:
    model = small_split(image_shape)
    assert isinstance(model.decoder, SplitDecoder)
    codes = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    mask, first, second = (part.sigmoid() for part in model.decoder.parts(codes))
    assert mask.shape == (4, 1, *image_shape[1:])
    assert first.shape == second.shape == (4, *image_shape)
    torch.testing.assert_close(model.decode(codes), mask * first + (1 - mask) * second, rtol=1e-6, atol=1e-6)


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3))
def test_the_blend_in_logits_is_the_formula(values: list[float]) -> None:
    """Against the direct formula in extended precision, whose own 1 - x is good to 1e-19 / 1e-13 here."""
    s, a, b = (1 / (1 + np.exp(-np.longdouble(np.float32(value)))) for value in values)
    t, c, d = (1 / (1 + np.exp(np.longdouble(np.float32(value)))) for value in values)  # one minus each
    expected = float(np.log(s * a + t * b) - np.log(s * c + t * d))
    ours = blend_logits(*(torch.tensor([value], dtype=torch.float32) for value in values))
    assert float(ours) == pytest.approx(expected, rel=1e-5, abs=3e-6)


@pytest.mark.parametrize("size", [40.0, 1e4, 1e30])
def test_saturated_pixels_keep_finite_logits_and_gradients(size: float) -> None:
    signs = torch.cartesian_prod(*[torch.tensor([-size, 0.0, size])] * 3).requires_grad_()
    blended = blend_logits(*signs.unbind(1))
    assert bool(blended.isfinite().all())
    blended.sum().backward()
    assert signs.grad is not None
    assert bool(signs.grad.isfinite().all())


def test_a_blend_of_one_image_with_itself_is_that_image() -> None:
    image = torch.linspace(-50, 50, 21)
    torch.testing.assert_close(blend_logits(torch.linspace(-9, 9, 21), image, image), image, rtol=1e-6, atol=1e-6)
