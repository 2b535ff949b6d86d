"""What latlas carries: small, whole, described, and good for what it is said to be good for."""

import importlib
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from typer.main import get_command

from latlas.base import artifacts
from latlas.base.artifacts import read_json
from latlas.base.errors import (
    ArtifactError,
    CapabilityError,
    CodeShapeError,
    MissingPathError,
    SettingError,
    UnknownNameError,
)
from latlas.base.seeds import generator as seeded
from latlas.cli.main import app
from latlas.data.loading import load_images
from latlas.maps.linear import LinearMap
from latlas.maps.loading import load_map
from latlas.models import carried_folders
from latlas.models.carried_folders import CARRIED, carried_card, carried_entry, carried_names, zoo_entries
from latlas.models.loading import load_model
from latlas.models.protocols import require_autoencoder, require_encoder, require_generator
from latlas.models.zoo import ZOO
from latlas.samplers.fit import load_sampler

ROOT = Path(__file__).parents[2]
PAIRS = {"zoo:avatars-dcgan": "zoo:avatars-dcgan-recoder", "zoo:avatars-stylegan2#w": "zoo:avatars-stylegan2-recoder"}
MODELS = carried_names(("vae", "generator", "recoder"))
VAES, MAPS, SAMPLERS = (carried_names((kind,)) for kind in ("vae", "linear-map", "sampler"))
ALL = carried_names()


def digits(count: int) -> Tensor:
    return load_images(f"mnist:test[0:{count}]").tensor()


def test_each_sort_of_thing_is_carried_and_nothing_else() -> None:
    assert {"digits-dense", "digits-conv", "avatars-vae", "avatars-vae-32", "avatars-split"} <= set(VAES)
    assert MAPS
    assert SAMPLERS
    assert sorted(ALL) == sorted((*MODELS, *MAPS, *SAMPLERS))
    assert {path.name for path in CARRIED.iterdir()} == set(ALL)
    assert set(MODELS) <= set(ZOO)
    assert {entry.name for entry in zoo_entries()} == {*ZOO, *ALL}


def test_the_page_of_the_zoo_shows_what_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("make_zoo")
    assert set(tool.RECIPES) == set(ALL)
    assert f"{tool.BEGIN}\n{tool.table()}\n{tool.END}" in (ROOT / "docs" / "concepts" / "zoo.md").read_text(encoding="utf-8")
    for name in ALL:
        assert carried_entry(name).made_by == tool.command_of(name)


def test_all_of_it_together_is_small() -> None:
    assert sum(path.stat().st_size for path in CARRIED.rglob("*") if path.is_file()) <= 40_000_000


@pytest.mark.parametrize("name", ALL)
def test_a_carried_artifact_is_small_and_its_card_has_the_command(name: str) -> None:
    entry = carried_entry(name)
    assert entry.size is not None
    assert 1_000 < entry.size <= 5_000_000
    card = (CARRIED / name / "README.md").read_text(encoding="utf-8")
    assert entry.made_by in card.splitlines()
    assert f"zoo:{name}" in card
    assert "path/to/this/folder" not in card
    for spec in entry.of:
        load_model(spec)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_said_of_a_model_without_loading_it_is_so(name: str) -> None:
    entry, model = carried_entry(name), load_model(f"zoo:{name}")
    assert (entry.images, entry.codes) == (tuple(model.image_shape), tuple(model.latent_shape))
    assert model.name in (f"zoo:{name}", f"zoo:{name}#z", name)


@pytest.mark.parametrize("name", MODELS)
def test_the_command_of_a_training_asks_for_what_its_provenance_says(name: str) -> None:
    program, verb, *words = shlex.split(carried_entry(name).made_by)
    assert (program, verb) == ("latlas", "train")
    train: Any = get_command(app).commands["train"]  # type: ignore[attr-defined]
    asked = train.make_context("train", words).params
    provenance: Any = read_json(CARRIED / name / "config.json")["provenance"]
    settings = provenance["settings"]
    assert asked["seed"] == provenance["seed"]
    compared = {"epochs", "steps", "batch_size", "learning_rate", "loss"} & set(settings) & set(asked)
    assert len(compared) >= 3
    for key in compared:
        assert asked[key] == settings[key], key
    if "objective" in settings:
        for key in ("balance", "likelihood", "kl_weight"):
            assert asked[key] == settings["objective"][key], key
        assert asked["latent"] in (None, settings["architecture"]["latent"])
        assert asked["arch"] == settings["architecture"]["name"]
    if "data" in asked and asked["data"].startswith("mnist"):
        assert load_images(asked["data"]).content_hash == provenance["made_from"]["images"]


@pytest.mark.parametrize("name", [name for name in VAES if name.startswith("digits")])
def test_the_diagnosis_on_the_card_is_that_of_the_weights(name: str) -> None:
    """Taken again from posterior means and reconstructions, by NumPy."""
    measured = carried_entry(name).measured
    images = digits(measured["count"])
    model = require_autoencoder(load_model(f"zoo:{name}"), "This test")
    with torch.inference_mode():
        means = model.encode(images).mean
        error = np.square(model.decode(means).numpy() - images.numpy(), dtype=np.float64).mean()
    assert (np.var(means.numpy(), axis=0, ddof=1) > 0.01).sum() == measured["active"]
    assert means.shape[1] == measured["variables"]
    assert error == pytest.approx(measured["mse"], rel=1e-4)


@pytest.mark.parametrize("name", [name for name in VAES if name.startswith("avatars")])
def test_an_avatars_model_reconstructs_avatars_that_it_has_not_seen(name: str) -> None:
    model = require_autoencoder(load_model(f"zoo:{name}"), "This test")
    images = load_images(f"avatars:test?size={model.image_shape[1]}[0:100]").tensor()
    with torch.inference_mode():
        again = model.decode(model.encode(images).mean)
    # A third of what the mean image leaves, which knows nothing of the image.
    assert float((again - images).square().mean()) < float(images.var(dim=0).mean()) / 3


@pytest.mark.parametrize("name", ["digits-dense", "digits-dense-1"])
def test_the_dense_digits_have_collapsed_variables_that_no_image_needs(name: str) -> None:
    model = require_autoencoder(load_model(f"zoo:{name}"), "This test")
    with torch.inference_mode():
        codes = model.encode(digits(500)).mean
        collapsed = codes.var(dim=0) < 0.01
        without = torch.where(collapsed, 0.0, codes)
        assert 3 <= int(collapsed.sum()) <= 13
        assert float((model.decode(codes) - model.decode(without)).abs().max()) < 0.01
        shuffled = torch.where(collapsed, codes, codes.roll(1, dims=0))
        assert float((model.decode(codes) - model.decode(shuffled)).abs().max()) > 0.5


def test_two_seeds_give_two_models() -> None:
    for first, second in (("digits-dense", "digits-dense-1"), ("digits-conv", "digits-conv-1")):
        assert load_model(f"zoo:{first}").fingerprint != load_model(f"zoo:{second}").fingerprint


def test_weights_kept_in_half_precision_are_loaded_in_single() -> None:
    with safe_open(str(CARRIED / "avatars-vae" / "model.safetensors"), framework="pt") as kept:
        assert {kept.get_tensor(key).dtype for key in kept.keys()} == {torch.float16}  # noqa: SIM118  # it is no mapping
    model: Any = load_model("zoo:avatars-vae")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("spec", PAIRS)
def test_a_recoder_brings_back_what_its_generator_draws(spec: str) -> None:
    drawing = require_generator(load_model(spec), "This test")
    recoder = require_encoder(load_model(PAIRS[spec]), "This test")
    with torch.inference_mode():
        images = drawing.decode(drawing.sample_codes(200, seeded(7)))
        again = drawing.decode(recoder.encode(images).mean)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    # A tenth of what the mean image leaves, which knows nothing of the image.
    assert float((again - images).square().mean()) < 0.1 * float(images.var(dim=0).mean())
    shuffled = images[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert float((again - shuffled).square().mean()) > float(images.var(dim=0).mean())


@pytest.mark.parametrize("spec", PAIRS)
def test_a_recoder_of_the_zoo_stands_beside_its_generator(spec: str) -> None:
    both = require_autoencoder(load_model(f"{spec}+{PAIRS[spec]}"), "This test")
    alone = require_encoder(load_model(PAIRS[spec]), "This test")
    images = torch.rand(2, 3, 32, 32, generator=seeded(3))
    with torch.inference_mode():
        torch.testing.assert_close(both.encode(images).mean, alone.encode(images).mean)


def test_a_recoder_of_another_generator_is_refused() -> None:
    with pytest.raises(CapabilityError):
        load_model("zoo:avatars-dcgan+zoo:avatars-stylegan2-recoder")
    with pytest.raises(UnknownNameError, match="zoo:digits-conv is a vae"):
        load_model("zoo:avatars-dcgan+zoo:digits-conv")


def test_the_stylegan_has_its_three_spaces() -> None:
    shapes = {space: tuple(load_model(f"zoo:avatars-stylegan2#{space}").latent_shape) for space in ("z", "w", "w+")}
    assert shapes == {"z": (64,), "w": (64,), "w+": (8 * 64,)}
    codes = require_generator(load_model("zoo:avatars-stylegan2#w"), "This test").sample_codes(3, seeded(0))
    drawn = [
        require_generator(load_model(f"zoo:avatars-stylegan2#{space}"), "This test").decode(each)
        for space, each in (("w", codes), ("w+", codes.repeat(1, 8)))
    ]
    torch.testing.assert_close(drawn[0], drawn[1])


@pytest.mark.parametrize("name", MAPS)
def test_a_map_joins_the_models_that_it_names(name: str) -> None:
    fitted = LinearMap.from_pretrained(f"zoo:{name}")
    source, target = (load_model(spec) for spec in carried_entry(name).of)
    assert (fitted.source_fingerprint, fitted.target_fingerprint) == (source.fingerprint, target.fingerprint)
    assert (fitted.source, fitted.target) == (source.name, target.name)
    assert carried_entry(name).codes == (fitted.source_size,) == tuple(source.latent_shape)
    measured = carried_entry(name).measured
    assert measured["target_R"] <= measured["M"] < 0.6 * measured["mean_code"]


@pytest.mark.parametrize("name", [name for name in MAPS if name.startswith("digits")])
def test_relocated_digits_are_as_near_as_the_card_says(name: str) -> None:
    fitted = load_map(f"zoo:{name}")
    source, target = (require_autoencoder(load_model(spec), "This test") for spec in carried_entry(name).of)
    images = digits(2000)
    with torch.inference_mode():
        moved = fitted.apply(source.encode(images).mean).float()
        error = float((target.decode(moved).double() - images.double()).square().mean())
    assert error == pytest.approx(carried_entry(name).measured["M"], rel=1e-3)


@pytest.mark.parametrize("name", [name for name in MAPS if name.startswith("avatars") and "gan" in name])
def test_what_a_gan_draws_is_found_again_in_another_space(name: str) -> None:
    source, target = carried_entry(name).of
    drawing, decoder = (require_generator(load_model(spec), "This test") for spec in (source, target))
    with torch.inference_mode():
        codes = drawing.sample_codes(200, seeded(11))
        images, again = drawing.decode(codes), decoder.decode(load_map(f"zoo:{name}").apply(codes).float())
    assert float((again - images).square().mean()) < 0.6 * float(images.var(dim=0).mean())
    assert float((again - images.roll(1, dims=0)).square().mean()) > float(images.var(dim=0).mean())


@pytest.mark.parametrize("name", SAMPLERS)
def test_digits_of_a_second_stage_lie_nearer_to_real_ones_than_the_priors_do(name: str) -> None:
    (spec,) = carried_entry(name).of
    model = require_generator(load_model(spec), "This test")
    sampler = load_sampler(f"zoo:{name}")
    sampler.check_fits(model)
    real = digits(4000).flatten(1)
    with torch.inference_mode():
        drawn = [model.decode(codes) for codes in (sampler.sample(300, seeded(5)), model.sample_codes(300, seeded(5)))]
    near, far = (float(torch.cdist(images.flatten(1), real).min(dim=1).values.mean()) for images in drawn)
    assert near < 0.95 * far
    spread = float(drawn[0].var(dim=0).mean())  # one good digit over and over would be near, too
    assert spread > 0.8 * float(real.var(dim=0).mean())
    with pytest.raises(CodeShapeError):
        sampler.check_fits(load_model("zoo:digits-conv-1"))


@pytest.mark.parametrize(
    ("load", "spec", "words"),
    [
        (load_map, "zoo:digits-dense", "Unknown map of the zoo 'digits-dense'.*zoo:digits-dense is a vae"),
        (load_map, "zoo:../zoo", r"Unknown map of the zoo '\.\./zoo'"),
        (load_map, "zoo:", "Unknown map of the zoo ''"),
        (load_map, "zoo:" + 5000 * "x", "Unknown map of the zoo 'xxx"),
        (LinearMap.from_pretrained, "zoo:digits-conv", "Unknown linear map of the zoo"),
        (load_sampler, "zoo:digits-conv-second-stages", "Did you mean 'digits-conv-second-stage'"),
        (load_sampler, Path("zoo:digits-dense-to-digits-conv"), "is a linear-map"),
        (load_model, "zoo:digits-dense-to-digits-conv", "is a linear-map of zoo:digits-dense and zoo:digits-conv"),
        (load_model, "zoo:digits-conv-second-stage", "is a sampler of zoo:digits-conv"),
    ],
)
def test_a_name_of_another_sort_of_thing_is_told(load: Any, spec: str | Path, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        load(spec)


def test_an_option_that_a_carried_model_has_not_is_refused() -> None:
    with pytest.raises(SettingError, match="zoo:digits-conv has one latent space"):
        load_model("zoo:digits-conv#w")


def test_a_folder_that_exists_is_no_name_of_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo:digits-dense-to-digits-conv").mkdir()
    with pytest.raises(ArtifactError, match=r"has no config\.json"):
        load_map("zoo:digits-dense-to-digits-conv")


def test_a_map_or_sampler_without_its_scheme_is_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MissingPathError, match=r"No map folder digits-dense-to-digits-cnv\. Did you mean zoo:digits-dense-to-digits-conv\?"
    ):
        load_map("digits-dense-to-digits-cnv")
    with pytest.raises(MissingPathError, match=r"Did you mean zoo:digits-conv-second-stage\?"):
        load_sampler("digits-conv-second-stage")
    with pytest.raises(MissingPathError, match="No folder nowhere"):
        load_map("nowhere")


def test_the_names_of_files_are_those_of_every_artifact() -> None:
    assert (carried_folders.CONFIG, carried_folders.CARD) == (artifacts.CONFIG, artifacts.CARD)


def test_a_card_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_folders, "CARRIED", tmp_path)
    shutil.copytree(CARRIED / "digits-dense-to-digits-conv", tmp_path / "whole")
    assert carried_card("whole") == (CARRIED / "digits-dense-to-digits-conv" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "whole" / "README.md").unlink()
    with pytest.raises(ArtifactError, match=r"is incomplete.*Install latlas again"):
        carried_card("whole")
    with pytest.raises(UnknownNameError):
        carried_card("nothing")


def test_a_damaged_installation_is_told_and_what_is_being_written_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried_folders, "CARRIED", tmp_path)
    for name in ("whole", ".whole.abc.partial", "bare", "odd"):
        shutil.copytree(CARRIED / "digits-dense-to-digits-conv", tmp_path / name)
    (tmp_path / "bare" / "zoo.json").unlink()
    (tmp_path / "odd" / "zoo.json").write_text('{"images": [1, 28], "codes": 16}', encoding="utf-8")
    (tmp_path / "foreign").mkdir()
    assert carried_names() == ("bare", "odd", "whole")
    assert carried_names(("vae",)) == ()
    assert carried_entry("whole").kind == "linear-map"
    for name in ("bare", "odd"):
        with pytest.raises(ArtifactError, match=r"is incomplete.*Install latlas again"):
            carried_entry(name)
    with pytest.raises(UnknownNameError, match="Known: bare, odd, whole"):
        carried_entry("foreign")
