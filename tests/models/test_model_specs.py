"""MODEL specs: a folder, or a scheme that somebody installed; and what is said of everything else."""

import json
import sys
import types
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch

from latlas.base.artifacts import CONFIG, write_config, writing
from latlas.base.errors import ArtifactError, MissingPathError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.models import loading
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.registry import architecture
from latlas.models.loading import load_model
from latlas.models.vae import VAE


@pytest.fixture
def model() -> VAE:
    torch.manual_seed(0)
    return VAE(architecture("dense", widths=(8,), latent=2), (1, 4, 4))


@pytest.fixture
def menagerie(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install a package that registers the scheme `menagerie`; return what its function is called with."""
    asked: list[str] = []

    def load(rest: str) -> CallableModel:
        asked.append(rest)
        return CallableModel(name=f"menagerie {rest}", image_shape=(1, 4, 4), latent_shape=(2,))

    module = types.ModuleType("some_menagerie")
    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_menagerie", module)
    install(monkeypatch, EntryPoint("menagerie", "some_menagerie:load", "latlas.models"))
    return asked


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    installed = EntryPoints([*points, EntryPoint("other", "nowhere:load", "somebody.else")])
    monkeypatch.setattr(loading, "entry_points", lambda **wanted: installed.select(**wanted))


def test_a_folder_names_the_model_in_it(model: VAE, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    for spec in (tmp_path / "model", str(tmp_path / "model"), f"{tmp_path}/model/"):
        assert load_model(spec).fingerprint == model.fingerprint


def test_a_missing_folder_comes_with_the_command_that_would_make_it(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"No model folder .*nowhere. Train one with `latlas train dense mnist --out "):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("digits-dense", "zoo:digits-dense?"),
        ("digit-dense", "zoo:digits-dense?"),
        ("Digits-Conv", "zoo:digits-conv?"),
        ("avatars-stylegan2#w", "zoo:avatars-stylegan2#w?"),
        ("avatars-stylegan2#w+", "zoo:avatars-stylegan2#w+?"),
        ("mobile-stylegan?size=64", "zoo:mobile-stylegan?size=64?"),
        ("avatars-dcgan+avatars-dcgan-recoder", "zoo:avatars-dcgan+zoo:avatars-dcgan-recoder?"),
    ],
)
def test_a_name_of_the_zoo_without_its_scheme_is_guessed(
    text: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPathError) as mistake:
        load_model(text)
    assert f"No model folder {text}. Did you mean {meant} " in str(mistake.value)


@pytest.mark.parametrize(
    "text", ["digits", "vae", "avatars", "runs/x/digits-dense", "./digits-dense", "nothing", "a+digits-dense"]
)
def test_nothing_is_guessed_where_no_name_is_near_or_a_folder_was_meant(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPathError, match="Train one with"):
        load_model(text)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"\x80")
    with pytest.raises(ArtifactError, match="is a file, and a model is a folder"):
        load_model(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("weights.pt", r"build the network in Python, load them into it, and wrap it with latlas\.from_module\.$"),
        ("last.ckpt", r"Weights alone are no model"),
        ("faces.pkl", r"Of a StyleGAN2 it is stylegan2:.*faces\.pkl\.$"),
        ("notes.txt", r"Give the folder, or scheme:.*notes\.txt for a file of another program\.$"),
    ],
)
def test_a_file_is_told_what_it_may_be(name: str, way: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80")
    with pytest.raises(ArtifactError, match=way):
        load_model(tmp_path / name)


def test_a_folder_of_something_else_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a latlas model: it has no config.json"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"model_type": "bert"}', "written by another program"),
        ('{"kind": ["vae"]}', "written by another program"),
        ("[]", "written by another program"),
        ("null", "written by another program"),
        ('{"kind": "vae"}', "written by another program"),
        ("{", "not readable JSON"),
    ],
)
def test_a_config_of_another_program_is_told_apart(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ArtifactError, match=found):
        load_model(tmp_path)


def test_an_artifact_of_another_kind_is_named(tmp_path: Path) -> None:
    with writing(tmp_path / "map") as beside:
        write_config(beside, kind="linear-map", settings={}, provenance=Provenance(made_by="fit_map"))
    with pytest.raises(ArtifactError, match=r"is not a model: it is a latlas linear-map. Models are of kind .*vae"):
        load_model(tmp_path / "map")


def test_a_damaged_model_is_refused_through_its_spec_too(model: VAE, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    record = json.loads((tmp_path / "model" / CONFIG).read_text())
    record["files"] = {"model.safetensors": "0" * 64}
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "model" / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="is damaged"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("rest", ["lenet", "", "folder/with:colon#w", "https://example.org/x"])
def test_an_installed_scheme_gets_what_follows_the_first_colon(menagerie: list[str], rest: str) -> None:
    assert load_model(f"menagerie:{rest}").name == f"menagerie {rest}"
    assert menagerie == [rest]


def test_an_unknown_scheme_is_answered_with_the_nearest(menagerie: list[str]) -> None:
    with pytest.raises(
        UnknownNameError, match=r"Unknown model scheme 'menageriee'. Did you mean 'menagerie'.*Or give a folder"
    ):
        load_model("menageriee:lenet")
    with pytest.raises(UnknownNameError, match=r"Known: .*diffusers, .*menagerie, .*pythae"):
        load_model("other:lenet")
    assert menagerie == []


def test_where_no_scheme_is_installed_those_of_latlas_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(UnknownNameError, match=r"Unknown model scheme 'lenet'. Known: .*diffusers.*pythae.*Or give a folder"):
        load_model("lenet:5")


@pytest.mark.parametrize("scheme", loading.SCHEMES)
def test_every_scheme_of_latlas_can_be_imported(scheme: str) -> None:
    assert callable(loading.SCHEMES[scheme].load())


def test_no_installed_package_takes_over_a_scheme_of_latlas(menagerie: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, EntryPoint("pythae", "some_menagerie:load", "latlas.models"))
    with pytest.raises(MissingPathError, match="expected one that pythae wrote"):
        load_model("pythae:nowhere")
    assert menagerie == []


def test_a_folder_that_is_there_goes_before_a_scheme(
    model: VAE, menagerie: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("menagerie:mine")
    assert load_model("menagerie:mine").fingerprint == model.fingerprint
    assert menagerie == []
