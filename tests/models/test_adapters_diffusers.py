"""`diffusers:`: its autoencoders give the codes and images that diffusers itself gives, raw or scaled, from a folder or the Hub."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import (
    ArtifactError,
    CapabilityError,
    ImageFormatError,
    MissingExtraError,
    MissingPathError,
    SettingError,
)
from latlas.base.hub import HubError
from latlas.base.seeds import generator
from latlas.data.images import ImageSet
from latlas.encodings.aggregate import with_codes_of
from latlas.encodings.encode import encode
from latlas.inversion.descent import Budget
from latlas.models.adapters import diffusers as adapter
from latlas.models.adapters.diffusers import CLASSES, load_diffusers, read_request, scale_from_config
from latlas.models.loading import load_model
from latlas.models.protocols import CodeScale
from latlas.studies.range_test import range_test

diffusers = pytest.importorskip("diffusers")

TWO = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4}


def _kl(**settings: Any) -> Any:
    return diffusers.AutoencoderKL(**{**TWO, "block_out_channels": (8, 8), "latent_channels": 4, "sample_size": 16, **settings})


def _tiny() -> Any:
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3, num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3
    )  # fmt: skip


def _dc() -> Any:
    blocks = ("ResBlock", "EfficientViTBlock")
    return diffusers.AutoencoderDC(
        latent_channels=4, attention_head_dim=4, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), scaling_factor=0.4,
    )  # fmt: skip


def _asymmetric() -> Any:
    return diffusers.AsymmetricAutoencoderKL(**TWO, down_block_out_channels=(8, 8), up_block_out_channels=(8, 8))


def _vq() -> Any:
    return diffusers.VQModel(**TWO, block_out_channels=(8, 8), num_vq_embeddings=16)


def _flux2() -> Any:
    return diffusers.AutoencoderKLFlux2(**TWO, block_out_channels=(8, 8), latent_channels=4, sample_size=16)


def _hunyuan() -> Any:
    return diffusers.AutoencoderKLHunyuanImage(3, 3, 4, (32, 32), 1, 2, 16)


def _kvae() -> Any:
    return diffusers.AutoencoderKLKVAE(channels=32, ch_mult=(1, 2), num_enc_blocks=1, num_dec_blocks=1, z_channels=4)


MAKERS: dict[str, Callable[[], Any]] = {
    "AutoencoderKL": _kl,
    "AutoencoderTiny": _tiny,
    "AutoencoderDC": _dc,
    "AsymmetricAutoencoderKL": _asymmetric,
    "VQModel": _vq,
    "AutoencoderKLFlux2": _flux2,
    "AutoencoderKLHunyuanImage": _hunyuan,
    "AutoencoderKLKVAE": _kvae,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each class, with small random weights, written by diffusers."""
    root = tmp_path_factory.mktemp("written by diffusers")
    torch.manual_seed(0)
    for name, make in MAKERS.items():
        if hasattr(diffusers, name):
            make().eval().save_pretrained(root / name)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def kl(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a KL autoencoder's folder that a test may break."""
    return Path(shutil.copytree(folders["AutoencoderKL"], tmp_path / "kl"))


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=generator)


def rewrite(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


# Codes and images


def test_every_class_that_is_served_is_tested() -> None:
    assert set(MAKERS) == set(CLASSES)


@pytest.mark.parametrize("name", MAKERS)
def test_codes_and_images_are_those_of_diffusers(name: str, folders: dict[str, Path], images: Tensor) -> None:
    if name not in folders:
        pytest.skip(f"the diffusers installed here has no {name}")
    theirs = getattr(diffusers, name).from_pretrained(folders[name]).eval()
    ours = load_model(f"diffusers:{folders[name]}?size=16")
    with torch.no_grad():
        answer = theirs.encode(2 * images - 1, return_dict=False)[0]
        posterior = ours.encode(images)  # type: ignore[attr-defined]
        mean = answer if isinstance(answer, Tensor) else answer.mean
        torch.testing.assert_close(posterior.mean, mean)
        if isinstance(answer, Tensor):
            assert posterior.log_variance is None
        else:
            torch.testing.assert_close(posterior.log_variance, answer.logvar)
        decoded = theirs.decode(mean, return_dict=False)[0]
        torch.testing.assert_close(ours.decode(mean), ((decoded + 1) / 2).clamp(0, 1))  # type: ignore[attr-defined]
    assert ours.image_shape == (3, 16, 16)
    assert ours.latent_shape == tuple(mean.shape[1:])
    assert ours.name == f"{name} ({name}, raw latents)"


def test_the_tiny_autoencoder_sees_its_pixels_from_0_to_1(folders: dict[str, Path]) -> None:
    """TAESD was made for [0, 1], and diffusers converts inside: what reaches its first layer must be our pixels again."""
    model = load_diffusers(f"{folders['AutoencoderTiny']}?size=16")
    seen: list[Tensor] = []
    model.module.encoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore
    images = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    model.encode(images)
    torch.testing.assert_close(seen[0], images, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "factor", "shift"),
    [
        ({"scaling_factor": 0.18215}, [0.18215], [0.0]),
        ({"scaling_factor": 1.5305, "shift_factor": 0.0609}, [1.5305], [0.0609]),
        ({"scaling_factor": 0.5, "latents_mean": [1, 2, 3, 4], "latents_std": [1, 2, 4, 8]},
         [0.5, 0.25, 0.125, 0.0625], [1, 2, 3, 4]),
    ],
    ids=["factor", "factor and shift", "by channel"],
)  # fmt: skip
def test_scaled_latents_follow_the_config_and_decode_to_the_same_images(
    settings: dict[str, Any], factor: list[float], shift: list[float], kl: Path, images: Tensor
) -> None:
    rewrite(kl, **settings)
    raw, scaled = load_diffusers(str(kl)), load_diffusers(f"{kl}?scaled")
    assert (raw.scaling, scaled.scaling) == ("raw", "scaled")
    assert "raw latents" in raw.name
    assert "scaled latents" in scaled.name
    with torch.no_grad():
        codes = raw.encode(images).mean
        by_channel = (codes - torch.tensor(shift)[:, None, None]) * torch.tensor(factor)[:, None, None]
        torch.testing.assert_close(scaled.encode(images).mean, by_channel)
        torch.testing.assert_close(scaled.decode(by_channel), raw.decode(codes), atol=1e-5, rtol=1e-5)


def test_raw_and_scaled_encodings_are_told_apart_by_their_provenance(folders: dict[str, Path], images: Tensor) -> None:
    some = ImageSet("some", images)
    folder = folders["AutoencoderTiny"]  # whose factor is 1: the codes are equal, and the question is not
    raw, scaled = (encode(load_model(f"diffusers:{folder}?{option}size=16"), some) for option in ("", "scaled&"))
    assert raw.mean.equal(scaled.mean)
    assert raw.provenance.settings["scaling"] == "raw"
    assert scaled.provenance.settings["scaling"] == "scaled"
    assert raw.provenance.made_from["model"] != scaled.provenance.made_from["model"]
    assert raw.model != scaled.model


def test_a_config_without_a_scale_has_no_scaled_latents(folders: dict[str, Path]) -> None:
    if "AutoencoderKLFlux2" not in folders:
        pytest.skip("the diffusers installed here has no AutoencoderKLFlux2")
    assert load_diffusers(str(folders["AutoencoderKLFlux2"])).scale is None
    with pytest.raises(SettingError, match=r"states no scaling_factor.*Leave \?scaled out; latlas diagnose measures"):
        load_diffusers(f"{folders['AutoencoderKLFlux2']}?scaled")


@pytest.mark.parametrize(
    "config",
    [{"scaling_factor": "big"}, {"scaling_factor": 0}, {"latents_std": [1, 0]}, {"latents_mean": 3}, {"shift_factor": [1]}],
)
def test_a_scale_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"states a scale that cannot be used .*Correct its config.json"):
        scale_from_config(config)
    assert scale_from_config({"latents_mean": [1, 2]}) == CodeScale(shift=(1.0, 2.0))


# Sizes


def test_the_size_comes_from_the_spec_then_from_the_config_then_is_64(kl: Path, folders: dict[str, Path]) -> None:
    assert load_diffusers(str(kl)).image_shape == (3, 16, 16)
    assert load_diffusers(f"{kl}?size=24").latent_shape == (4, 12, 12)
    assert load_diffusers(str(folders["AutoencoderTiny"])).image_shape == (3, 64, 64)
    rewrite(kl, sample_size=[32, 32])
    assert load_diffusers(str(kl)).image_shape == (3, 32, 32)


def test_grey_models_serve_grey_images(tmp_path: Path, mnist_test: ImageSet) -> None:
    torch.manual_seed(0)
    _kl(in_channels=1, out_channels=1, sample_size=28).save_pretrained(tmp_path / "grey")
    encoding = encode(load_model(f"diffusers:{tmp_path}/grey"), mnist_test.slice(0, 3))
    assert encoding.mean.shape == (3, 4, 14, 14)


def test_a_size_that_the_model_cannot_serve_comes_with_one_that_it_can(kl: Path) -> None:
    with pytest.raises(SettingError, match=r"makes 3x14x14 of images of 3x15x15.*multiple of its stride, as in \?size=14"):
        load_diffusers(f"{kl}?size=15")
    with pytest.raises(SettingError, match=r"cannot serve images of 3x1x1"):
        load_diffusers(f"{kl}?size=1")


def test_images_of_another_size_are_answered_with_the_spec_for_them(kl: Path) -> None:
    with pytest.raises(ImageFormatError, match=r"takes images of 3x16x16.*ask for it with \?size=24"):
        encode(load_diffusers(str(kl)), ImageSet("some", torch.zeros(1, 3, 24, 24)))


# Specs


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("owner/name", ("owner/name", False, None, None)),
        ("a/b?scaled", ("a/b", True, None, None)),
        ("a/b?size=64&scaled#vae", ("a/b", True, 64, "vae")),
        ("a/b#vae?scaled", ("a/b", True, None, "vae")),
        ("a/b#deep/vae", ("a/b", False, None, "deep/vae")),
    ],
)
def test_specs_are_read_in_any_order(rest: str, expected: tuple[Any, ...]) -> None:
    request = read_request(rest)
    assert (request.place, request.scaled, request.size, request.subfolder) == expected


@pytest.mark.parametrize(
    "rest", ["", "?scaled", "a/b#", "a/b?", "a/b?scale", "a/b?size=0", "a/b?size=-8", "a/b?size=8.5", "a/b?size=8&size=8",
             "a/b?scaled=no", "a/b#x#y"],
)  # fmt: skip
def test_specs_that_cannot_be_read_come_with_the_form(rest: str) -> None:
    with pytest.raises(SettingError, match=r"Write diffusers:FOLDER-or-Hub-id, then \?scaled"):
        read_request(rest)


def test_a_folder_whose_name_looks_like_options_is_a_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    odd = shutil.copytree(folders["AutoencoderKL"], tmp_path / "vae?scaled#2")
    assert load_diffusers(str(odd)).scaling == "raw"


def test_a_subfolder_of_a_pipeline_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["AutoencoderKL"], tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    model = load_diffusers(f"{tmp_path}/pipeline?scaled#vae")
    assert model.name == "pipeline#vae (AutoencoderKL, scaled latents)"
    with pytest.raises(ArtifactError, match=r"is a whole pipeline. Name the subfolder of its autoencoder, as in #vae"):
        load_diffusers(f"{tmp_path}/pipeline")
    with pytest.raises(MissingPathError, match="has no subfolder unet"):
        load_diffusers(f"{tmp_path}/pipeline#unet")


# Folders that are not what they should be


def test_pickled_weights_are_never_read(kl: Path) -> None:
    theirs = diffusers.AutoencoderKL.from_pretrained(kl)
    (kl / "diffusion_pytorch_model.safetensors").unlink()
    theirs.save_pretrained(kl, safe_serialization=False)
    with pytest.raises(
        ArtifactError, match=r"diffusion_pytorch_model.bin is pickled, which latlas never reads: load it with diffus"
    ):
        load_diffusers(str(kl))


def test_weights_that_are_missing_are_not_left_at_random(kl: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(kl / "diffusion_pytorch_model.safetensors")
    del weights["encoder.conv_in.weight"]
    save_file(weights, kl / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"weights in kl .*encoder\.conv_in\.weight"):
        load_diffusers(str(kl))


def test_weights_of_another_shape_and_torn_files_are_refused(kl: Path) -> None:
    rewrite(kl, latent_channels=6)
    with pytest.raises(ArtifactError, match="The weights in kl "):
        load_diffusers(str(kl))
    rewrite(kl, latent_channels=4)
    (kl / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="The weights in kl cannot be read"):
        load_diffusers(str(kl))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not readable JSON"),
        ("[]", "has no _class_name"),
        ('{"_class_name": 3}', "has no _class_name"),
        ('{"_class_name": "UNet2DModel"}', r"holds a UNet2DModel, which does not encode .*Served are .*AutoencoderTiny"),
        ('{"_class_name": "AutoencoderKL", "block_out_channels": 7}', "cannot serve images of 3x64x64"),
    ],
)
def test_configs_of_something_else_are_refused(kl: Path, text: str, words: str) -> None:
    (kl / "config.json").write_text(text)
    with pytest.raises((ArtifactError, SettingError), match=words):
        load_diffusers(str(kl))


def test_a_folder_without_config_or_weights_is_refused(kl: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no autoencoder of diffusers: it has no config\.json"):
        load_diffusers(str(tmp_path))
    (kl / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="Save the model again with save_pretrained"):
        load_diffusers(str(kl))


def test_a_folder_of_diffusers_without_its_scheme_is_told_the_scheme(kl: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"diffusers wrote it. Ask for diffusers:{kl}"):
        load_model(kl)


def test_without_diffusers_the_extra_is_named(kl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'latlas\[hub\]'"):
        load_diffusers(str(kl))


# The Hub


def test_a_hub_id_is_fetched_without_anything_that_is_pickled(
    kl: Path, monkeypatch: pytest.MonkeyPatch, images: Tensor
) -> None:
    asked: list[Any] = []

    def fetch(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((f"{repo}@{revision}", allow_patterns))
        return str(kl.parent)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    model = load_diffusers("owner/name@v1?scaled#kl")
    assert model.name == "name@v1#kl (AutoencoderKL, scaled latents)"
    ((repo, patterns),) = asked
    assert repo == "owner/name@v1"
    assert all(pattern.startswith("kl/") and pattern.endswith((".safetensors", ".json")) for pattern in patterns)
    with torch.no_grad():
        assert model.encode(images).mean.equal(load_diffusers(f"{kl}?scaled").encode(images).mean)


def test_what_the_hub_cannot_deliver_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(HubError, match=r"no folder owner/name, and the Hub did not deliver it \(Name or service not known\)\."):
        load_diffusers("owner/name")


def test_offline_only_the_cache_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked for an address"))
    with pytest.raises(HubError, match="the Hub did not deliver it"):
        load_diffusers("owner/latlas-has-no-such-model")


def test_what_is_neither_folder_nor_hub_id_is_not_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the Hub"))
    for place in ("name", f"{tmp_path}/nowhere", "a/b/c", "../up"):
        with pytest.raises(MissingPathError, match="it is no Hub id"):
            adapter.load_diffusers(place)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(MissingPathError, match="No folder runs/kll"):  # a slip in a name, not a model of one called runs
        adapter.load_diffusers("runs/kll")


def test_an_autoencoder_without_a_prior_gets_a_range_test_on_codes_of_images(folders: dict[str, Path]) -> None:
    model = load_model(f"diffusers:{folders['AutoencoderKL']}")
    known, judged = (ImageSet("images", torch.rand(count, 3, 16, 16, generator=generator(count))) for count in (24, 4))
    with pytest.raises(CapabilityError, match="--codes-of"):
        range_test(model, judged)
    budget = Budget(steps=60, learning_rate=0.1)
    found = range_test(with_codes_of(model, known), judged, samples=24, budget=budget)
    # Noise is far from all that a random decoder draws: even the worst of its own samples comes back better.
    assert float(found.errors.min()) > float(found.calibration.errors.max())
    assert bool(found.rejected.all())
