"""An encoding in another space: its codes, what it is paired with, and what it may be followed by."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latlas.base.errors import CodeShapeError
from latlas.base.provenance import Provenance
from latlas.data.images import SkippedImage
from latlas.encodings.encoding import Encoding, require_paired
from latlas.maps.fit import fit_map
from latlas.maps.relocation import relocate_encoding


def encoding(codes: torch.Tensor, model: str) -> Encoding:
    return Encoding(
        mean=codes,
        log_variance=torch.zeros_like(codes),
        model=model,
        images="noise",
        images_hash="hash of noise",
        provenance=Provenance(made_by="test", made_from={"model": f"weights of {model}", "images": "hash of noise"}),
    )


@pytest.fixture
def chain(generator: torch.Generator) -> list[Encoding]:
    codes = torch.randn(60, 4, generator=generator)
    second = codes @ torch.randn(4, 5, generator=generator) + 1.0
    return [encoding(codes, "a"), encoding(second, "b"), encoding(second @ torch.randn(5, 3, generator=generator), "c")]


def test_a_relocated_encoding_is_that_of_the_target_and_starts_the_next_map(chain: list[Encoding], tmp_path: Path) -> None:
    a, b, c = chain
    there = relocate_encoding(fit_map(a, b), a)
    torch.testing.assert_close(there.mean, b.mean, rtol=1e-5, atol=1e-5)
    assert there.log_variance is None
    require_paired(there, c)
    there.save_pretrained(tmp_path / "there")
    further = relocate_encoding(fit_map(b, c), Encoding.from_pretrained(tmp_path / "there"))
    torch.testing.assert_close(further.mean, c.mean, rtol=1e-4, atol=1e-4)
    assert further.model == "c"


def test_what_is_known_of_the_images_goes_with_the_codes(chain: list[Encoding]) -> None:
    a, b, _ = chain
    skipped = (SkippedImage(index=3, name="torn.png", reason="cut short"),)
    known = {"indices": torch.arange(60) * 2, "names": [f"{i}.png" for i in range(60)], "labels": torch.arange(60) % 3}
    there = relocate_encoding(fit_map(a, b), replace(a, mean=a.mean.half(), images_tree="tree", skipped=skipped, **known))
    assert there.mean.dtype == torch.float32
    assert (there.images_tree, there.skipped, list(there.names)) == ("tree", skipped, known["names"])
    assert there.indices is not None
    assert there.labels is not None
    assert there.indices.equal(known["indices"])
    assert there.labels.equal(known["labels"])


def test_an_encoding_of_another_model_is_refused(chain: list[Encoding]) -> None:
    a, b, c = chain
    onward = fit_map(b, c)
    with pytest.raises(CodeShapeError, match="takes codes of b"):
        relocate_encoding(onward, encoding(b.mean, "stranger"))
    with pytest.raises(CodeShapeError):
        relocate_encoding(onward, a)
