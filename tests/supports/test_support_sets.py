"""Support Sets as artifacts: what is kept comes back, images and names included."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latlas.base.artifacts import CONFIG
from latlas.base.errors import ArtifactError, CapabilityError, ImageFormatError, MissingPathError, OutputExistsError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
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
    record.pop("checksum", None)  # as a stranger would
    path.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=rf"not a readable Support Set \(no '{name}'\)\. Build it again"):
        SupportSet.from_pretrained(tmp_path / "support")


# What the members are


def test_the_hash_of_a_member_is_that_of_its_pixels_and_shape() -> None:
    support = a_set()
    expected = []
    for image in support.images.storage:
        digest = hashlib.sha256(b"torch.uint8(3, 4, 4)")
        digest.update(image.numpy().tobytes())
        expected.append(digest.hexdigest())
    assert list(support.hashes) == expected


@pytest.mark.parametrize("names", [True, False])
def test_images_that_changed_or_went_are_named(names: bool) -> None:
    support = a_set(names=names)
    pixels = torch.zeros(251, 3, 4, 4, dtype=torch.uint8)
    pixels[support.indices] = support.images.storage
    files = [f"{i}.png" for i in range(251)]
    for index, name in zip(support.indices.tolist(), support.images.names, strict=False):
        files[index] = name
    as_they_were = ImageSet("faces", pixels, names=tuple(files) if names else ())
    assert support.verify(as_they_were).holds
    assert support.verify(as_they_were).unchanged == support.member_names
    support.require_unchanged(as_they_were)

    one_pixel = pixels.clone()
    one_pixel[3, 1, 2, 2] ^= 1
    changed = ImageSet("faces", one_pixel, names=tuple(files) if names else ())
    assert support.verify(changed).changed == support.member_names[1:2]
    with pytest.raises(
        ArtifactError, match=rf"1 are no longer what their hashes say in faces: {support.member_names[1]}\. Give"
    ):
        support.require_unchanged(changed)
    shorter = as_they_were.slice(0, 100)
    assert support.verify(shorter).missing == support.member_names[2:]
    with pytest.raises(ArtifactError, match=r"1 are not there in faces\[0:100\]"):
        support.require_unchanged(shorter)


def test_a_member_keeps_its_name_in_another_order() -> None:
    support = a_set()
    order = torch.tensor([2, 0, 1])
    assert support.verify(support.images.take(order)).holds


def test_factors_scale_and_numbers_come_back(tmp_path: Path) -> None:
    first = a_set()
    support = SupportSet(
        **{
            **vars(first),
            "images": ImageSet(first.images.name, first.images.storage, factors={"hat": ("none", "tall", "none")}),
            "sectors": Sectors(variables=(4, 1), threshold=0.5, scale=(0.1, 1 / 3)),
        }
    )
    support.save_pretrained(tmp_path / "s")
    loaded = SupportSet.from_pretrained(tmp_path / "s")
    assert loaded.images.factors == {"hat": ("none", "tall", "none")}
    assert loaded.sectors == support.sectors
    assert loaded.to_json() == support.to_json()
    assert loaded.to_json()["names"] == ["#17", "#3", "#250"]
    json.dumps(loaded.to_json(), allow_nan=False)


def rewrite(folder: Path, **settings: object) -> None:
    path = folder / CONFIG
    record = json.loads(path.read_text())
    for name, value in settings.items():
        if value is None:
            del record["settings"][name]
        else:
            record["settings"][name] = value
    record.pop("checksum", None)  # as a stranger would
    path.write_text(json.dumps(record))


def test_a_set_of_an_earlier_version_still_loads(tmp_path: Path) -> None:
    """Its config had neither hashes nor factors nor a scale."""
    support = a_set()
    support.save_pretrained(tmp_path / "s")
    rewrite(tmp_path / "s", hashes=None, factors=None, scale=None)
    loaded = SupportSet.from_pretrained(tmp_path / "s")
    assert loaded.sectors == support.sectors
    assert loaded.hashes == support.hashes


def test_images_that_are_not_what_the_config_says_are_noticed(tmp_path: Path) -> None:
    support = a_set()
    support.save_pretrained(tmp_path / "s")
    rewrite(tmp_path / "s", hashes=[*support.hashes[:2], "0" * 64])
    with pytest.raises(ArtifactError, match=r"no longer what their hashes say \(d\.png\)"):
        SupportSet.from_pretrained(tmp_path / "s")
    rewrite(tmp_path / "s", hashes=list(support.hashes[:2]))
    with pytest.raises(ArtifactError, match="another number of them"):
        SupportSet.from_pretrained(tmp_path / "s")


@pytest.mark.parametrize(
    "settings", [{"threshold": "high"}, {"variables": [4]}, {"variables": 4}, {"factors": [1]}, {"names": ["a.png"]}], ids=str
)
def test_a_config_that_makes_no_sense_is_no_support_set(settings: dict[str, object], tmp_path: Path) -> None:
    a_set().save_pretrained(tmp_path / "s")
    rewrite(tmp_path / "s", **settings)
    with pytest.raises(ArtifactError, match="not a readable Support Set"):
        SupportSet.from_pretrained(tmp_path / "s")


def test_another_model_sees_the_members_in_their_order() -> None:
    support = a_set()
    other = CallableModel(
        name="other",
        image_shape=(3, 4, 4),
        latent_shape=(1,),
        encode_with=lambda images: images.flatten(1).mean(1, keepdim=True),
    )
    encoding = support.apply(other)
    expected = support.images.storage.double().flatten(1).mean(dim=1, keepdim=True) / 255
    torch.testing.assert_close(encoding.mean.double(), expected, rtol=1e-5, atol=1e-6)
    assert (encoding.model, encoding.images_hash) == ("other", support.images.content_hash)
    with pytest.raises(CapabilityError, match="encoder"):
        support.apply(CallableModel(name="half", image_shape=(3, 4, 4), latent_shape=(1,), decode_with=lambda z: z))
    with pytest.raises(ImageFormatError):
        support.apply(CallableModel(name="b", image_shape=(3, 8, 8), latent_shape=(1,), encode_with=lambda x: x.flatten(1)))
