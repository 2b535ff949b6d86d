"""Preview matrices: a planted one is found, a noisy one is scikit-learn's, and the numbers are in the viewers' form."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor
from torch.nn import functional as F

from latlas.base.artifacts import CARD, CONFIG
from latlas.base.cards import FOLDER
from latlas.base.errors import (
    ArtifactError,
    CodeShapeError,
    IllPosedError,
    ImageFormatError,
    NonFiniteError,
    OutputExistsError,
    SettingError,
)
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.encodings.encoding import Encoding
from latlas.maps import preview
from latlas.maps.preview import PreviewMatrix, fit_preview


def planted(*, block: int = 4, noise: float = 0.0, n: int = 70) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes of 5 channels, the images that they colour (in [0, 1], each position a textured block), factors and bias."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randn(n, 5, 3, 4, generator=generator, dtype=torch.float64)
    factors = 0.04 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    bias = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    colours = torch.einsum("nchw,ck->nkhw", codes, factors) + bias[:, None, None]
    colours = colours + noise * torch.randn(colours.shape, generator=generator, dtype=torch.float64)
    texture = 0.1 * torch.randn(n, 3, 3, block, 4, block, generator=generator, dtype=torch.float64)
    texture = texture - texture.mean(dim=(3, 5), keepdim=True)  # what averaging over a block takes out
    fine = colours[:, :, :, None, :, None] + texture
    images = (fine.reshape(n, 3, 3 * block, 4 * block) + 1) / 2
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    return codes, images, factors, bias


def encoded(codes: Tensor, images: ImageSet, *, settings: dict[str, str] | None = None) -> Encoding:
    return Encoding(
        mean=codes,
        log_variance=None,
        model="A",
        images=images.name,
        images_hash=images.content_hash,
        provenance=Provenance(made_by="test", settings=settings or {}),
    )


@pytest.mark.parametrize("block", [1, 2, 8])
def test_planted_factors_and_bias_are_found(block: int) -> None:
    codes, images, factors, bias = planted(block=block)
    found = fit_preview(codes, images)
    torch.testing.assert_close(found.factors, factors, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.bias, bias, rtol=0, atol=1e-12)
    assert found.evidence["r2"] == pytest.approx([1.0] * 3, abs=1e-10)
    assert found.evidence["squared_error"] == pytest.approx(0.0, abs=1e-12)
    assert (found.evidence["pairs"], found.evidence["positions"]) == (70, 70 * 12)


def test_a_noisy_fit_is_scikit_learns_regression_on_area_averages() -> None:
    codes, images, _, _ = planted(noise=0.05)
    found = fit_preview(codes, images)
    averaged = 2 * F.interpolate(images, size=(3, 4), mode="area") - 1
    rows, colours = (grid.permute(0, 2, 3, 1).flatten(0, 2).numpy() for grid in (codes, averaged))
    reference = LinearRegression().fit(rows, colours)
    np.testing.assert_allclose(found.factors.numpy(), reference.coef_.T, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.bias.numpy(), reference.intercept_, rtol=1e-9, atol=1e-11)
    errors = np.square(reference.predict(rows) - colours).mean(axis=0)
    np.testing.assert_allclose(found.evidence["r2"], 1 - errors / colours.var(axis=0), rtol=1e-9)
    assert found.evidence["r2_overall"] == pytest.approx(1 - errors.sum() / colours.var(axis=0).sum(), rel=1e-9)
    in_unit = (found.apply(codes) - F.interpolate(images, size=(3, 4), mode="area")).square().mean()
    assert found.evidence["squared_error"] == pytest.approx(float(in_unit), rel=1e-9)


def test_applying_is_what_viewers_compute() -> None:
    """Linear layer on channels last, then from [-1, 1] to [0, 1] and clamped: as ComfyUI's previewer does it."""
    generator = torch.Generator().manual_seed(5)
    matrix = PreviewMatrix(
        factors=torch.randn(4, 3, generator=generator, dtype=torch.float64), bias=torch.tensor([0.3, 0.0, -0.3]).double()
    )
    codes = torch.randn(2, 4, 5, 6, generator=generator)
    record = matrix.to_json()
    factors = torch.tensor(record["latent_rgb_factors"]).T
    shown = F.linear(codes.movedim(1, -1), factors, bias=torch.tensor(record["latent_rgb_factors_bias"]))
    expected = ((shown + 1) / 2).clamp(0, 1).movedim(-1, 1)
    assert bool((expected == 0).any() and (expected == 1).any())  # the clamp took part
    torch.testing.assert_close(matrix.apply(codes), expected, rtol=0, atol=1e-6)
    unit = record["unit"]
    other = codes.movedim(1, -1) @ torch.tensor(unit["factors"]) + torch.tensor(unit["bias"])
    torch.testing.assert_close(other.clamp(0, 1).movedim(-1, 1), expected, rtol=0, atol=1e-6)
    assert (record["range"], unit["range"]) == ([-1, 1], [0, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_previews_keep_the_type_of_the_codes(dtype: torch.dtype) -> None:
    codes, images, _, _ = planted()
    assert fit_preview(codes.to(dtype), images).apply(codes.to(dtype)).dtype == dtype


def test_grey_images_have_three_equal_colours() -> None:
    codes, images, _, _ = planted()
    grey = images.mean(dim=1, keepdim=True)
    found = fit_preview(codes, grey)
    torch.testing.assert_close(found.factors, fit_preview(codes, grey.expand(-1, 3, -1, -1)).factors)
    assert found.factors[:, 0].equal(found.factors[:, 1])


def test_image_sets_and_encodings_are_taken_and_told() -> None:
    codes, images, _, _ = planted()
    pictures = ImageSet(name="some", storage=(images * 255).round().to(torch.uint8))
    found = fit_preview(encoded(codes, pictures, settings={"scaling": "scaled"}), pictures)
    assert (found.model, found.scaling) == ("A", "scaled")
    torch.testing.assert_close(found.factors, fit_preview(codes, pictures.tensor()).factors, rtol=0, atol=1e-12)
    with pytest.raises(IllPosedError, match="The encoding is of other images"):
        fit_preview(encoded(codes, pictures), pictures.take(torch.arange(70).flip(0)))
    with pytest.raises(SettingError, match="says that its latents are scaled, and raw was given"):
        fit_preview(encoded(codes, pictures, settings={"scaling": "scaled"}), pictures, scaling="raw")


def test_what_is_saved_comes_back_and_can_be_copied_from(tmp_path: Path) -> None:
    codes, images, _, _ = planted(noise=0.02)
    found = fit_preview(codes, images, scaling="raw")
    found.save_pretrained(tmp_path / "preview")
    loaded = PreviewMatrix.from_pretrained(tmp_path / "preview")
    assert loaded.factors.equal(found.factors)
    assert loaded.bias.equal(found.bias)
    for name in ("model", "scaling", "evidence", "provenance"):
        assert getattr(loaded, name) == getattr(found, name)
    assert json.loads((tmp_path / "preview" / "preview.json").read_text()) == found.to_json()
    with pytest.raises(OutputExistsError):
        found.save_pretrained(tmp_path / "preview")
    found.save_pretrained(tmp_path / "preview", replace=True)
    record = json.loads((tmp_path / "preview" / CONFIG).read_text())
    del record["settings"]["model"]
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "preview" / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=r"not a readable preview matrix \('model'\)\. Fit it again"):
        PreviewMatrix.from_pretrained(tmp_path / "preview")


def test_its_card_shows_how_to_use_it_and_a_hub_id_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes, images, _, _ = planted(noise=0.02)
    found = fit_preview(codes, images, scaling="scaled")
    found.save_pretrained(tmp_path / "preview")
    text = (tmp_path / "preview" / CARD).read_text(encoding="utf-8")
    names = {"codes": codes}
    match = re.search("```python\n(.*?)```", text, flags=re.DOTALL)
    assert match is not None
    exec(match[1].replace(FOLDER, str(tmp_path / "preview")), names)
    assert names["pictures"].equal(found.apply(codes))
    assert "| scaling | scaled |" in text
    assert "| channels | 5 |" in text
    monkeypatch.setattr(preview, "resolve", lambda spec: tmp_path / "preview" if spec == "ada/preview" else Path(spec))
    assert PreviewMatrix.from_pretrained("ada/preview").factors.equal(found.factors)
    assert callable(found.push_to_hub)


def test_a_channel_that_never_varies_gets_no_colour() -> None:
    codes, images, _, _ = planted(noise=0.02)
    codes[:, 2] = 0.7
    found = fit_preview(codes, images)
    assert (found.evidence["rank"], found.evidence["ill_posed"]) == (4, True)
    assert not bool(found.factors[2].any())
    json.dumps(found.to_json(), allow_nan=False)


CODES = torch.rand(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
IMAGES = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("codes", "images", "error", "words"),
    [
        (CODES.flatten(1), IMAGES, CodeShapeError, "vectors have no positions"),
        (CODES, IMAGES[0], ImageFormatError, "n x c x h x w of 1 or 3 channels"),
        (CODES, IMAGES[:, :2], ImageFormatError, "n x c x h x w of 1 or 3 channels"),
        (CODES, IMAGES[:5], CodeShapeError, "6 codes and 5 images"),
        (CODES[:0], IMAGES[:0], IllPosedError, "No codes were given"),
        (CODES, IMAGES[:, :, :5], ImageFormatError, "5 x 6 pixels do not divide into the 3 x 3 positions"),
        (CODES, IMAGES[:, :, :2, :2], ImageFormatError, "do not divide"),
        (CODES, 2 * IMAGES - 1, ImageFormatError, r"must lie in \[0, 1\].*Rescale them first"),
        (CODES, torch.where(IMAGES > 0.9, torch.nan, IMAGES), NonFiniteError, "The images hold NaN"),
        (torch.where(CODES > 0.9, torch.nan, CODES), IMAGES, NonFiniteError, "The code #0 holds NaN"),
        (torch.full_like(CODES, 0.3), IMAGES, IllPosedError, "The codes are the same at every position"),
        (CODES, torch.full_like(IMAGES, 0.3), IllPosedError, "The images are the same at every position"),
        (CODES[:1, :, :1, :1], IMAGES[:1], IllPosedError, "at least 5 positions, got 1"),
    ],
)
def test_what_makes_no_preview_is_refused(codes: Tensor, images: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_preview(codes, images)


def test_codes_of_another_width_are_refused() -> None:
    for codes in (torch.zeros(1, 5, 3, 3), torch.zeros(1, 4)):
        words = re.escape(f"takes spatial codes of 4 channels (model), got shape {tuple(codes.shape)}")
        with pytest.raises(CodeShapeError, match=words):
            fit_preview(CODES, IMAGES).apply(codes)
    with pytest.raises(CodeShapeError, match="factors c x 3 and a bias of 3"):
        PreviewMatrix(factors=torch.zeros(4, 4), bias=torch.zeros(4))
