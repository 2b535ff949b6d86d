"""DCGAN: every square side is served, and the network is the one that PyTorch's tutorial writes out layer by layer."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from latlas.base.errors import ImageFormatError, SettingError
from latlas.models.architectures.dcgan import DCGAN, stages, weights_from_tutorial


def tutorial(latent: int, channels: int, colours: int) -> nn.Sequential:
    """The generator of the tutorial for 64 x 64 images, by its own text: no bias, tanh at the end."""
    widths = [8 * channels, 4 * channels, 2 * channels, channels]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, 1, 0, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, colours, 4, 2, 1, bias=False), nn.Tanh())


def named_as_there(network: nn.Sequential) -> dict[str, Tensor]:
    return {f"main.{name}": tensor for name, tensor in network.state_dict().items()}


def test_the_tutorials_weights_draw_the_tutorials_images(generator: torch.Generator) -> None:
    torch.manual_seed(1)
    theirs = tutorial(10, 3, 3)
    for _ in range(5):  # batch norm that has seen something
        theirs(torch.randn(8, 10, 1, 1, generator=generator))
    theirs.eval()
    ours = DCGAN(channels=3, latent=10).generator((3, 64, 64)).eval()
    ours.load_state_dict(weights_from_tutorial(named_as_there(theirs)))
    codes = torch.randn(4, 10, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours(codes), (theirs(codes[..., None, None]) + 1) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("state", [{}, {"main.0.weight": torch.zeros(2, 2, 4, 4)}, {"net.0.weight": torch.zeros(2, 2, 4, 4)}])
def test_other_weights_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(SettingError, match="not the weights of the generator of PyTorch's DCGAN tutorial"):
        weights_from_tutorial(state)


@pytest.mark.parametrize("side", [8, 9, 12, 15, 28, 31, 32, 33, 48, 64, 100])
@pytest.mark.parametrize("colours", [1, 3])
def test_every_square_side_is_served(side: int, colours: int, generator: torch.Generator) -> None:
    built = DCGAN(channels=2, latent=3)
    shape = (colours, side, side)
    with torch.no_grad():
        images = built.generator(shape)(torch.randn(2, 3, generator=generator))
    assert tuple(images.shape) == (2, *shape)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert tuple(built.discriminator(shape)(images).shape) == (2,)


@pytest.mark.parametrize("side", range(8, 130))
def test_the_frame_is_hardly_larger_than_the_image(side: int) -> None:
    grid, widths = stages((1, side, side), 1)
    frame = grid * 2 ** len(widths)
    assert 4 <= grid <= 8
    assert side <= frame <= 1.25 * side + 1


def test_channels_double_up_to_eight_times() -> None:
    assert stages((3, 256, 256), 10) == (4, [10, 20, 40, 80, 80, 80])


@pytest.mark.parametrize(("shape", "words"), [((3, 32, 16), "square"), ((1, 7, 7), "8 x 8 at least")])
def test_other_images_are_refused(shape: tuple[int, int, int], words: str) -> None:
    for build in (DCGAN().generator, DCGAN().discriminator):
        with pytest.raises(ImageFormatError, match=words):
            build(shape)


@pytest.mark.parametrize("settings", [{"latent": 0}, {"channels": -1}])
def test_sizes_are_whole_numbers_from_one_on(settings: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="must be at least 1"):
        DCGAN(**settings)


def test_the_discriminator_sees_whether_a_batch_is_all_alike(generator: torch.Generator) -> None:
    """The verdict on an image depends on its company through one number, which is 0 for a batch of equals."""
    torch.manual_seed(0)
    judge = DCGAN(channels=4).discriminator((1, 16, 16))
    images = torch.rand(6, 1, 16, 16, generator=generator)
    alike = images[:1].expand(6, -1, -1, -1)
    assert not torch.allclose(judge(images)[0], judge(alike)[0], atol=1e-4)
    torch.testing.assert_close(judge(alike), judge(images[:1]).expand(6), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(judge(images.flip(0)), judge(images).flip(0))


def test_the_gradient_is_finite_for_a_batch_of_equals() -> None:
    judge = DCGAN(channels=2).discriminator((1, 8, 8))
    images = torch.full((3, 1, 8, 8), 0.5, requires_grad=True)
    judge(images).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.isfinite().all())
