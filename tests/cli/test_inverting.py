"""`latlas invert` and the options of `latlas range` that inversion brings, driven by a runner."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from latlas.base.artifacts import load_tensors
from latlas.base.errors import (
    CapabilityError,
    ImageFormatError,
    LatlasError,
    OutputExistsError,
    SettingError,
    UnknownNameError,
)
from latlas.cli import inverting, measuring
from latlas.data.loading import load_images
from latlas.encodings.aggregate import with_codes_of
from latlas.encodings.encoding import Encoding
from latlas.inversion.descent import named_budget
from latlas.inversion.noise import NoisyGenerator
from latlas.models.adapters.stylegan2 import load_stylegan2
from latlas.models.generator import GeneratorModel, generator_architecture
from latlas.models.loading import load_model
from latlas.models.recoder import Recoder
from latlas.studies.range_test import range_test

app = typer.Typer()
app.command("invert")(inverting.invert)
app.command("range")(measuring.range_)
app.command("encode")(measuring.encode)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained DCGAN of grey images, its recoder, its own images, and others."""
    folder = tmp_path_factory.mktemp("generators")
    torch.manual_seed(0)
    model = GeneratorModel(generator_architecture("dcgan", latent=2, channels=4), (1, 8, 8), name="tiny")
    for parameter in model.parameters():
        parameter.data.mul_(3)
    model.save_pretrained(folder / "tiny")
    Recoder(model).save_pretrained(folder / "recoder")
    Recoder(GeneratorModel(model.architecture, (1, 8, 8))).save_pretrained(folder / "stranger")
    style = GeneratorModel(generator_architecture("stylegan2", latent=2, style=2, layers=1, channel_base=64), (1, 8, 8))
    for name, strength in style.network.named_parameters():
        if "noise_strength" in name:  # training starts from noise without strength
            strength.data.fill_(0.3)
    style.save_pretrained(folder / "style")
    with torch.no_grad():
        own = model.decode(model.sample_codes(4, torch.Generator().manual_seed(1)))
    np.save(folder / "own.npy", (own * 255).round().to(torch.uint8).numpy())
    noise = np.random.default_rng(0)
    np.save(folder / "noise.npy", noise.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8))
    np.save(folder / "large.npy", noise.integers(0, 256, (3, 1, 16, 16), dtype=np.uint8))
    np.save(folder / "colour.npy", noise.integers(0, 256, (3, 3, 8, 8), dtype=np.uint8))
    guessing = Recoder(model)  # an untrained one gives every image the code 0
    *_, weight, _ = guessing.parameters()
    weight.data.normal_(generator=torch.Generator().manual_seed(2))
    guessing.save_pretrained(folder / "guessing")
    return folder


def called(place: Path, *arguments: str) -> str:
    """Names of files stand for those in the folder."""
    there = [str(place / each) if (place / each).exists() else each for each in arguments]
    done = CliRunner().invoke(app, there, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_invert_writes_codes_and_a_page(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes"
    record = json.loads(called(place, "invert", "tiny", "own.npy", "--steps", "30", "--out", str(out), "--json"))
    encoding = Encoding.from_pretrained(out / "codes")
    assert encoding.mean.shape == (4, 2)
    drawn = GeneratorModel.from_pretrained(place / "tiny").decode(encoding.mean.clone()).detach()
    images = torch.from_numpy(np.load(place / "own.npy")).float() / 255
    errors = (drawn - images).square().flatten(1).mean(dim=1)
    assert [row["error"] for row in record["per_image"]] == pytest.approx(errors.tolist(), rel=1e-3, abs=1e-9)
    assert record["starts"] == ["mean", "noise 1", "noise 2"]
    assert record["provenance"]["settings"]["budget"]["steps"] == 30
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "images with the largest errors" in page.lower()
    with pytest.raises(OutputExistsError):
        called(place, "invert", "tiny", "own.npy", "--out", str(out))


def test_invert_starts_where_it_is_told(place: Path) -> None:
    for options, starts in (
        (("--recoder", "recoder"), ["recoder"]),
        (("--start", "noise", "--starts", "3"), ["noise 1", "noise 2", "noise 3"]),
        (("--start", "mean", "--prior", "0.1"), ["mean"]),
    ):
        output = called(place, "invert", "tiny", "own.npy", "--steps", "2", "--json", *options)
        assert json.loads(output)["starts"] == starts
    assert "4 images inverted" in called(place, "invert", "tiny", "own.npy", "--steps", "1")


def test_noise_that_was_descended_is_kept_and_drawn(place: Path, tmp_path: Path) -> None:
    """The images of codes with their noise, each fed in by hand, have the errors that are told; those of the codes alone do not."""
    spec = f"stylegan2:{place / 'style'}#w"
    budget = ("--steps", "15", "--start", "mean", "--json")
    out = tmp_path / "codes"
    record = json.loads(called(place, "invert", spec, "noise.npy", *budget, "--noise-weight", "1e-3", "--out", str(out)))
    assert record["provenance"]["settings"]["noise_weight"] == 1e-3
    told = torch.tensor([row["error"] for row in record["per_image"]])
    plain = json.loads(called(place, "invert", spec, "noise.npy", *budget))
    assert plain["provenance"]["settings"]["noise_weight"] is None
    assert all(float(error) < row["error"] for error, row in zip(told, plain["per_image"], strict=True))

    model = load_stylegan2(f"{place / 'style'}#w")
    codes, layers = Encoding.from_pretrained(out / "codes").mean.clone(), load_tensors(out / "noise.safetensors")
    images = torch.from_numpy(np.load(place / "noise.npy")).float() / 255

    def errors(drawn: torch.Tensor) -> torch.Tensor:
        return (drawn.detach() - images).square().flatten(1).mean(dim=1)

    noises = [layers[f"layer {i}"] for i in range(len(layers))]
    torch.testing.assert_close(errors(model.network.draw(model.layers(codes), noises).clamp(0, 1)), told)
    both = NoisyGenerator(model)
    torch.testing.assert_close(errors(both.decode(both.joined(codes, noises))), told)
    assert bool((errors(model.decode(codes)) > told).all())


def test_a_generator_named_with_its_recoder_encodes_for_every_verb(place: Path, tmp_path: Path) -> None:
    pair = f"{place / 'tiny'}+{place / 'recoder'}"
    assert json.loads(called(place, "invert", pair, "own.npy", "--steps", "2", "--json"))["starts"] == ["recoder"]
    called(place, "encode", pair, "own.npy", "--out", str(tmp_path / "codes"))
    images = torch.from_numpy(np.load(place / "own.npy")).float() / 255
    with torch.no_grad():
        expected = Recoder.from_pretrained(place / "recoder").encode(images).mean
    torch.testing.assert_close(Encoding.from_pretrained(tmp_path / "codes").mean, expected)
    with pytest.raises(CapabilityError, match="with other weights than tiny has"):
        called(place, "encode", f"{place / 'tiny'}+{place / 'stranger'}", "own.npy")


def test_range_ranks_against_references_and_in_features(place: Path, tmp_path: Path) -> None:
    record = json.loads(
        called(
            place, "range", "tiny", "noise.npy", "--reference", "own.npy", "--recoder", "recoder", "--features", "pixels",
            "--budget", "quick", "--samples", "25", "--out", str(tmp_path / "verdict"), "--json",
        )
    )  # fmt: skip
    assert record["starts"] == ["recoder", "nearest"]
    assert record["reference"]["count"] == 4
    assert record["features"] == "raw pixels"
    assert record["provenance"]["settings"]["budget"]["steps"] == 60
    for row in record["per_image"]:
        assert row["reference_p_value"] == pytest.approx(1 / 5)
        assert row["feature_error"] == pytest.approx(row["error"], rel=1e-4)
    page = (tmp_path / "verdict" / "report.html").read_text(encoding="utf-8").lower()
    assert "own samples of the decoder" in page
    assert ("images out of range" in page) or ("without a verdict" in page)


def test_range_draws_own_samples_from_the_codes_of_images_that_are_not_judged(place: Path) -> None:
    pair = f"{place / 'tiny'}+{place / 'guessing'}"
    budget = ("--steps", "5", "--samples", "25", "--json")
    record = json.loads(called(place, "range", pair, "noise.npy", "--codes-of", "own.npy", *budget))
    known, judged = (load_images(str(place / name)) for name in ("own.npy", "noise.npy"))
    made_from = record["provenance"]["made_from"]
    assert (made_from["codes_of"], made_from["images"]) == (known.content_hash, judged.content_hash)

    drawing = with_codes_of(load_model(pair), known)
    found = range_test(drawing, judged, samples=25, budget=named_budget("default", steps=5))
    assert made_from["generator"] == drawing.fingerprint
    direct = found.to_json()
    assert [row["error"] for row in record["per_image"]] == pytest.approx(
        [row["error"] for row in direct["per_image"]], rel=1e-5
    )
    own = ("calibration_error_median", "unrelated_error")
    assert [record[key] for key in own] == pytest.approx([direct[key] for key in own], rel=1e-5)

    of_prior = json.loads(called(place, "range", pair, "noise.npy", *budget))
    assert "codes_of" not in of_prior["provenance"]["made_from"]
    assert all(of_prior[key] != pytest.approx(record[key], rel=1e-2) for key in own)


def test_an_image_that_own_samples_are_drawn_from_cannot_be_judged(place: Path, tmp_path: Path) -> None:
    """Neither all of them, nor one among others."""
    mixed = tmp_path / "mixed.npy"
    np.save(mixed, np.concatenate([np.load(place / "noise.npy"), np.load(place / "own.npy")[3:]]))
    pair = f"{place / 'tiny'}+{place / 'guessing'}"
    for judged, name in (("own.npy", "#0 of .*own.npy"), (str(mixed), "#3 of .*mixed.npy")):
        with pytest.raises(
            SettingError, match=rf"^{name} is to be judged and is in .*own.npy too. Give others \(--codes-of\).$"
        ):
            called(place, "range", pair, judged, "--codes-of", "own.npy")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("invert", "tiny", "large.npy"), ImageFormatError, r"takes images of 1x8x8 .* --resize 8"),
        (("invert", "tiny", "colour.npy"), ImageFormatError, "takes grey images and these are colour"),
        (("range", "tiny", "large.npy"), ImageFormatError, r"takes images of 1x8x8 .* --resize 8"),
        (("range", "tiny", "noise.npy", "--reference", "large.npy"), ImageFormatError, "large"),
        (("invert", "tiny", "own.npy", "--budget", "endless"), UnknownNameError, r"endless.*thorough"),
        (("invert", "tiny", "own.npy", "--start", "nowhere"), UnknownNameError, r"nowhere.*hybrid"),
        (("invert", "tiny", "own.npy", "--recoder", "stranger"), CapabilityError, "with other weights than tiny has"),
        (("invert", "tiny", "own.npy", "--noise-weight", "1e-3"), CapabilityError, "tiny has no noise inputs"),
        (("invert", "tiny", "own.npy", "--noise-weight", "-1"), SettingError, "weight of the noise must be 0 or more, got -1"),
        (("invert", "recoder", "own.npy"), CapabilityError, "Inversion needs a decoder that can draw its own codes"),
    ],
)
def test_mistakes_are_told_in_one_line(place: Path, arguments: tuple[str, ...], error: type[LatlasError], words: str) -> None:
    with pytest.raises(error, match=words) as told:
        called(place, *arguments)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("verb", ["invert", "range"])
def test_help_has_an_example(verb: str) -> None:
    done = CliRunner().invoke(app, [verb, "--help"])
    assert f"Example: latlas {verb}" in " ".join(done.output.split())
