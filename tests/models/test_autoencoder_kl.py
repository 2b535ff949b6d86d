"""The autoencoder of latent diffusion: the same numbers as diffusers' own class, and words where diffusers is absent."""

import sys
from pathlib import Path

import pytest
import torch

from latlas.base.errors import ImageFormatError, MissingExtraError, SettingError
from latlas.models.architectures.autoencoder_kl import AutoencoderKL
from latlas.models.vae import VAE

SMALL = AutoencoderKL(latent=3, channels=(8, 12), layers=1, norm_groups=4)


def test_it_is_diffusers_own_autoencoder_on_images_from_minus_one_to_one() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    ours = VAE(SMALL, (3, 16, 16))
    theirs = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 12),
        latent_channels=3,
        norm_num_groups=4,
    ).eval()
    theirs.encoder.load_state_dict(ours.encoder.network.state_dict())
    theirs.decoder.load_state_dict(ours.decoder.network.state_dict())
    theirs.quant_conv.load_state_dict(ours.encoder.last.state_dict())
    theirs.post_quant_conv.load_state_dict(ours.decoder.first.state_dict())
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = theirs.encode(2 * images - 1).latent_dist
    posterior = ours.encode(images)
    assert posterior.log_variance is not None
    torch.testing.assert_close(posterior.mean, expected.mean)
    torch.testing.assert_close(posterior.log_variance, expected.logvar)
    torch.testing.assert_close(ours.decode_logits(posterior.mean), theirs.decode(expected.mean).sample)


def test_the_published_settings_have_the_published_size() -> None:
    """Stable Diffusion's autoencoder has 83,653,863 parameters."""
    pytest.importorskip("diffusers")
    published = AutoencoderKL(latent=4, channels=(128, 256, 512, 512), layers=2, norm_groups=32)
    with torch.device("meta"):
        model = VAE(published, (3, 512, 512))
    assert sum(parameter.numel() for parameter in model.parameters()) == 83_653_863
    assert model.latent_shape == (4, 64, 64)


@pytest.mark.parametrize(("side", "grid"), [(4, 2), (5, 3), (28, 14), (29, 15)])
def test_any_square_side_is_served(side: int, grid: int) -> None:
    pytest.importorskip("diffusers")
    model = VAE(SMALL, (1, side, side))
    assert model.latent_shape == (3, grid, grid)
    posterior = model.encode(torch.rand(2, 1, side, side))
    assert posterior.mean.shape == (2, 3, grid, grid)
    assert model.decode(posterior.mean).shape == (2, 1, side, side)


def test_images_too_small_are_refused_with_the_remedy() -> None:
    with pytest.raises(ImageFormatError, match=r"autoencoder-kl with these settings needs images of 8 x 8 at least, got 7 x 7"):
        VAE(AutoencoderKL(), (1, 7, 7))


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(SettingError, match=r"norm_groups must divide each of the channels, got 16 for \(32, 40\)"):
        AutoencoderKL(channels=(32, 40))
    with pytest.raises(SettingError, match="channels must name at least one block"):
        AutoencoderKL(channels=())


def test_where_diffusers_is_absent_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also on loading: the folder is sound, and must not be called damaged."""
    pytest.importorskip("diffusers")
    VAE(SMALL, (1, 8, 8)).save_pretrained(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders", None)
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.vae", None)
    words = r"autoencoder-kl architecture needs the package diffusers.*Install it: pip install 'latlas\[hub\]'"
    with pytest.raises(MissingExtraError, match=words):
        VAE(SMALL, (1, 8, 8))
    with pytest.raises(MissingExtraError, match=words):
        VAE.from_pretrained(tmp_path / "model")
