"""Support Sets as artifacts: what is kept comes back, images and names included."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latlas.base.artifacts import CONFIG
from latlas.base.errors import ArtifactError, MissingPathError, OutputExistsError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.supports.sectors import Sectors
from latlas.supports.support_set import SupportSet


def a_set(*, labels: bool = True, names: bool = True, dtype: torch.dtype = torch.uint8) -> SupportSet:
    """Three members for the four sectors of two variables."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 4, 4, generator=generator)
    storage: Tensor = (255 * pixels).to(torch.uint8) if dtype == torch.uint8 else pixels
    images = ImageSet(
        "Support Set of faces",
        storage,
        labels=torch.tensor([4, 0, 9]) if labels else None,
        names=("é.png", "b/c.png", "d.png") if names else (),
    )
    return SupportSet(
        images=images,
        indices=torch.tensor([17, 3, 250]),
        codes=torch.randn(3, 5, generator=generator),
        sector=torch.tensor([0, 2, 3]),
        sectors=Sectors(variables=(4, 1), threshold=1 / 3, centre=(0.1, -1e-17)),
        occupancy=torch.tensor([5, 0, 1, 8]),
        model="a model",
        chosen_from="faces",
        provenance=Provenance(made_by="build_support_set", seed=3, made_from={"images": "abc"}),
    )


@pytest.mark.parametrize(
    "options", [{}, {"labels": False}, {"names": False}, {"labels": False, "names": False}, {"dtype": torch.float32}], ids=str
)
def test_what_is_saved_comes_back_to_the_last_bit(options: dict[str, object], tmp_path: Path) -> None:
    support = a_set(**options)  # type: ignore[arg-type]
    support.save_pretrained(tmp_path / "support")
    loaded = SupportSet.from_pretrained(tmp_path / "support")
    for name in ("indices", "codes", "sector", "occupancy"):
        assert getattr(loaded, name).equal(getattr(support, name)), name
    for name in ("sectors", "model", "chosen_from", "provenance"):
        assert getattr(loaded, name) == getattr(support, name), name
    assert loaded.images.storage.equal(support.images.storage)
    assert loaded.images.content_hash == support.images.content_hash
    assert (loaded.images.name, loaded.images.names) == (support.images.name, support.images.names)
    if support.images.labels is None:
        assert loaded.images.labels is None
    else:
        assert loaded.images.labels is not None
        assert loaded.images.labels.equal(support.images.labels)
    assert (len(loaded), loaded.inhabited) == (3, 3)


def test_a_folder_that_is_taken_is_refused(tmp_path: Path) -> None:
    a_set().save_pretrained(tmp_path / "support")
    with pytest.raises(OutputExistsError, match="--replace"):
        a_set().save_pretrained(tmp_path / "support")
    a_set(labels=False).save_pretrained(tmp_path / "support", replace=True)
    assert SupportSet.from_pretrained(tmp_path / "support").images.labels is None


def test_damage_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="expected a latlas support-set there"):
        SupportSet.from_pretrained(tmp_path / "nothing")
    a_set().save_pretrained(tmp_path / "support")
    path = tmp_path / "support" / "support.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"support\.safetensors is damaged"):
        SupportSet.from_pretrained(tmp_path / "support")


@pytest.mark.parametrize("name", ["variables", "threshold", "centre", "model", "chosen_from", "names"])
def test_a_config_without_a_setting_says_which(name: str, tmp_path: Path) -> None:
    a_set().save_pretrained(tmp_path / "support")
    path = tmp_path / "support" / CONFIG
    record = json.loads(path.read_text())
    del record["settings"][name]
    path.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=rf"not a readable Support Set \(no '{name}'\)\. Build it again"):
        SupportSet.from_pretrained(tmp_path / "support")
