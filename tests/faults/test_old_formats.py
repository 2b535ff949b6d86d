"""What older versions wrote still loads and answers the same; what a newer one wrote is refused with what to do.

Samples and answers lie under `samples`, with the command that keeps them.
"""

import importlib
import json
import logging
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from latlas.app.calibrations import read_calibration
from latlas.base.artifacts import CONFIG, FORMAT, config_text, read_json
from latlas.base.errors import ArtifactError
from latlas.base.provenance import tensor_hash
from latlas.data.avatar_styles import AvatarSettings
from latlas.data.avatars import load_avatars
from latlas.encodings.encoding import Encoding
from latlas.models.loading import load_model

SAMPLES = Path(__file__).parent / "samples"
SOURCE = Path(__file__).parents[2] / "src" / "latlas"
RECORDED: dict[str, dict[str, list[float]]] = json.loads((SAMPLES / "answers.json").read_text(encoding="utf-8"))
GENERATIONS = {"carried": False, "format-1": False, "format-1-checksum": True}  # whether their configs have a checksum
NEWEST = "format-1-checksum"


@pytest.fixture(scope="module")
def samples() -> ModuleType:
    place = importlib.util.spec_from_file_location("make_samples", SAMPLES / "make_samples.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def newer(folder: Path, *, by: str = "9.8") -> None:
    """Make the config of an artifact say that a later format was written, by a later version."""
    record = read_json(folder / CONFIG)
    provenance = {**record["provenance"], "versions": {**record["provenance"]["versions"], "latlas": by}}
    (folder / CONFIG).write_text(config_text({**record, "format": FORMAT + 1, "provenance": provenance}))


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_what_an_older_version_wrote_answers_as_it_did(name: str, samples: ModuleType) -> None:
    folder = samples.samples()[name]
    assert ("checksum" in read_json(folder / CONFIG)) is GENERATIONS[name.partition("/")[0]]
    found = samples.answers(folder)
    assert found.keys() == RECORDED[name].keys()
    for key, values in found.items():
        # Another processor adds in another order; a weight that went astray shows in the first digits.
        assert values == pytest.approx(RECORDED[name][key], rel=2e-5, abs=5e-6), key


def test_every_kept_sample_has_its_answers_and_no_sample_is_gone(samples: ModuleType) -> None:
    assert set(samples.samples()) == set(RECORDED)
    assert len(RECORDED) > 40


def test_every_kind_that_is_written_has_a_sample_in_both_generations(samples: ModuleType) -> None:
    stated = {
        line.split('"')[1]
        for path in SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith('KIND = "')
    }
    kept: dict[bool, set[str]] = {False: set(), True: set()}
    for folder in samples.samples().values():
        record = read_json(folder / CONFIG)
        kept["checksum" in record].add(record["kind"])
    assert stated == kept[True] | {"classifier"}  # which the package carries, in the first generation
    # The others were not written to any place but a cache, or not at all, before configs had a checksum.
    assert stated - kept[False] == {"avatars", "range calibration", "relocated-model"}


def test_every_architecture_has_a_sample() -> None:
    from latlas.models import generator
    from latlas.models.architectures import registry

    kept = [read_json(config)["settings"] for config in (SAMPLES / NEWEST).rglob(CONFIG)]
    named = {settings["architecture"]["name"] for settings in kept if isinstance(settings.get("architecture"), dict)}
    assert named == {*registry.ARCHITECTURES, *generator.ARCHITECTURES}


@pytest.mark.parametrize("name", ["vae", "generator", "recoder"])
def test_an_old_model_saved_again_has_a_checksum_and_the_same_weights(name: str, tmp_path: Path) -> None:
    old: Any = load_model(SAMPLES / "format-1" / name)
    old.save_pretrained(tmp_path / "new")
    assert "checksum" in read_json(tmp_path / "new" / CONFIG)
    again: Any = load_model(tmp_path / "new")
    assert tensor_hash(*again.state_dict().values()) == tensor_hash(*old.state_dict().values())


def test_an_old_encoding_saved_again_has_a_checksum_and_the_same_codes(tmp_path: Path) -> None:
    old = Encoding.from_pretrained(SAMPLES / "format-1" / "encoding")
    old.save_pretrained(tmp_path / "new")
    assert "checksum" in read_json(tmp_path / "new" / CONFIG)
    assert torch.equal(Encoding.from_pretrained(tmp_path / "new").mean, old.mean)


def test_a_newer_encoding_is_refused_where_its_files_are_not_read_either(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / NEWEST / "encoding-stored", tmp_path / "codes")
    newer(tmp_path / "codes")
    with pytest.raises(ArtifactError, match="update latlas"):
        Encoding.from_pretrained(tmp_path / "codes", verify=False)


def test_an_old_config_with_a_word_that_no_version_wrote_is_damaged(samples: ModuleType, tmp_path: Path) -> None:
    """So that a changed byte in the word `checksum` itself does not turn a new artifact into an old one."""
    folder = tmp_path / "map"
    shutil.copytree(SAMPLES / "format-1" / "map", folder)
    record = read_json(folder / CONFIG)
    (folder / CONFIG).write_text(json.dumps({**record, "chedksum": "0" * 64}))
    with pytest.raises(ArtifactError, match="not what its checksum says"):
        samples.answers(folder)


@pytest.mark.parametrize("name", sorted(name for name in RECORDED if name.startswith((f"{NEWEST}/", "carried/"))))
def test_a_newer_format_is_refused_with_the_version_that_reads_it(name: str, samples: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / Path(name).name
    shutil.copytree(samples.samples()[name], folder)
    if folder.name == "range-calibration":  # which is read for its generator
        shutil.copytree(SAMPLES / NEWEST / "generator", tmp_path / "generator")
    newer(folder)
    with pytest.raises(
        ArtifactError, match=f"written in format {FORMAT + 1}, this latlas reads up to {FORMAT}: update latlas to 9.8 or newer"
    ):
        samples.answers(folder)


def test_avatars_of_an_older_version_come_from_the_cache_and_those_of_a_newer_are_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("arro3.io")
    pytest.importorskip("dicebear")
    from latlas.data import avatars

    sample = SAMPLES / NEWEST / "avatars"
    packages = {name: read_json(sample / CONFIG)["provenance"]["versions"][name] for name in avatars._PACKAGES}
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path))
    monkeypatch.setattr(avatars, "_versions", lambda: packages)
    settings = AvatarSettings(size=8, count=3)
    place = avatars._folder(settings, range(3), packages)
    shutil.copytree(sample, place)
    marked = place.stat().st_ino
    old = load_avatars(settings, workers=1)
    assert place.stat().st_ino == marked
    assert RECORDED[f"{NEWEST}/avatars"]["pixels"] == pytest.approx(
        old.storage.double().mean(dim=(2, 3)).flatten().tolist(), abs=1e-5
    )
    newer(place)
    with caplog.at_level(logging.WARNING):
        again = load_avatars(settings, workers=1)
    assert "update latlas" in caplog.text
    assert place.stat().st_ino != marked
    assert again.storage.shape == old.storage.shape


def test_a_calibration_of_an_older_version_is_of_its_generator_and_of_no_other() -> None:
    folder = SAMPLES / NEWEST
    gan, style = (load_model(folder / name) for name in ("generator", "stylegan2"))
    found = read_calibration(folder / "range-calibration", gan)  # type: ignore[arg-type]
    assert torch.equal(found.errors, read_calibration(folder / "range-calibration", gan).errors)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="of another generator"):
        read_calibration(folder / "range-calibration", style)  # type: ignore[arg-type]
