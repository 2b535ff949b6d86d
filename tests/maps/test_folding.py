"""A folded map is the map and then the decoder: the same images, one network, one artifact."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latlas.base.artifacts import CARD, CONFIG, read_config
from latlas.base.errors import ArtifactError, CapabilityError, CodeShapeError, MissingPathError
from latlas.maps.folding import fold
from latlas.maps.linear import LinearMap
from latlas.maps.spatial_map import SpatialMap
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.registry import architecture
from latlas.models.protocols import LatentModel
from latlas.models.relocated import KIND, AffineRelocation, RelocatedModel, SpatialRelocation, read_relocated
from latlas.models.vae import VAE
from latlas.numerics.patches import PatchGeometry

SMALL = {
    "dense": {"widths": (8,), "latent": 5},
    "conv": {"channels": (4, 8), "latent": 5},
    "resnet": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 5},
    "split": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 5},
    "draw": {"steps": 2, "latent": 3, "hidden": 8, "read": 3, "write": 3},
    "autoencoder-kl": {"latent": 2, "channels": (4, 8), "norm_groups": 2},
}
GEOMETRIES = [
    PatchGeometry(1),
    PatchGeometry(3),
    PatchGeometry(5),
    PatchGeometry(3, down=2),
    PatchGeometry(1, up=2),
    PatchGeometry(3, up=3),
]


def target(name: str = "dense", *, seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(architecture(name, **SMALL[name]), (1, 12, 12), name="B")


def linear(source: int, into: int, *, seed: int = 0, fingerprint: str | None = None) -> LinearMap:
    stream = torch.Generator().manual_seed(seed)
    return LinearMap(
        weight=torch.randn(source, into, generator=stream, dtype=torch.float64),
        bias=3 * torch.randn(into, generator=stream, dtype=torch.float64),
        kind="affine",
        source="A",
        target="B",
        target_fingerprint=fingerprint,
        evidence={"pairs": 100, "r2": [0.5, None]},
    )


def spatial(geometry: PatchGeometry, source: int, into: int, *, scaling: str | None = None) -> SpatialMap:
    stream = torch.Generator().manual_seed(1)
    window, outputs = geometry.window, into * geometry.up**2
    return SpatialMap(
        weight=torch.randn(outputs, source, window, window, generator=stream, dtype=torch.float64) / window,
        bias=torch.randn(outputs, generator=stream, dtype=torch.float64),
        fill=5 * torch.randn(source, generator=stream, dtype=torch.float64),  # far from 0: an edge padded with zeros would show
        geometry=geometry,
        kind="affine",
        source="A",
        target="B",
        target_scaling=scaling,
    )


def codes(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("width", [2, 9])
def test_a_folded_vector_map_draws_what_the_map_and_then_the_decoder_draw(name: str, width: int) -> None:
    decoder = target(name)
    size = int(torch.tensor(decoder.latent_shape).prod())
    there = linear(width, size)
    folded = fold(there, decoder)
    assert (folded.latent_shape, folded.image_shape) == ((width,), (1, 12, 12))
    given = codes(6, width)
    moved = there.apply(given.double()).float().view(6, *decoder.latent_shape)
    torch.testing.assert_close(folded.decode(given), decoder.decode(moved), atol=1e-5, rtol=0)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_folded_spatial_map_is_the_map_to_the_edge(geometry: PatchGeometry) -> None:
    there = spatial(geometry, 3, 2)
    decoder = target("autoencoder-kl")  # 2 x 6 x 6
    folded = fold(there, decoder)
    side = 6 // geometry.up * geometry.down
    assert folded.latent_shape == (3, side, side)
    given = codes(4, 3, side, side) + 5
    moved = there.apply(given.double())
    scale = float(moved.abs().max())
    torch.testing.assert_close(folded.relocation(given).double() / scale, moved / scale, atol=1e-6, rtol=0)
    torch.testing.assert_close(folded.decode(given), decoder.decode(moved.float()), atol=1e-5, rtol=0)


def test_a_map_far_from_the_origin_keeps_five_digits_in_float32() -> None:
    there = linear(16, 5, seed=3)
    given = codes(50, 16) + 100
    moved = there.apply(given.double())
    found = fold(there, target()).relocation(given)
    torch.testing.assert_close(found.double() / moved.abs().max(), moved / moved.abs().max(), atol=1e-6, rtol=0)


def test_a_folded_model_is_one_network_with_the_maps_numbers_in_it() -> None:
    folded = fold(linear(3, 5), target())
    buffers = dict(folded.named_buffers())
    assert {name: part.dtype for name, part in buffers.items()} == {
        "relocation.weight": torch.float32,
        "relocation.bias": torch.float32,
    }
    assert sum(part.numel() for part in folded.parameters()) == sum(part.numel() for part in target().parameters())
    given = codes(2, 3).requires_grad_()
    folded.decode(given).sum().backward()
    assert given.grad is not None
    assert bool(given.grad.abs().sum() > 0)
    assert folded.double().decode(codes(2, 3).double()).dtype == torch.float64  # every part moves together


def test_it_is_a_model_that_decodes_and_does_nothing_else() -> None:
    folded = fold(linear(3, 5), target())
    assert isinstance(folded, LatentModel)
    assert not hasattr(folded, "encode")  # the target's encoder gives codes of another space
    assert not hasattr(folded, "sample_codes")
    with pytest.raises(CodeShapeError, match="takes codes of shape 3, got 5"):
        folded.decode(codes(2, 5))


def test_the_fingerprint_changes_with_the_map_and_with_the_target() -> None:
    prints = {fold(linear(3, 5, seed=m), target(seed=t)).fingerprint for m in (0, 1) for t in (0, 1)}
    assert len(prints) == 4
    assert fold(linear(3, 5), target()).fingerprint == fold(linear(3, 5), target()).fingerprint


# What does not fit


@pytest.mark.parametrize(
    ("there", "name", "words"),
    [
        (
            linear(3, 4),
            "dense",
            r"leads to codes of 4 variables \(B\), and B decodes codes of shape 5. Give the map's own target",
        ),
        (spatial(PatchGeometry(1), 3, 2), "dense", "leads to codes of 2 channels in blocks of 1 x 1 positions"),
        (spatial(PatchGeometry(1), 3, 4), "autoencoder-kl", "leads to codes of 4 channels .* decodes codes of shape 2x6x6"),
        (
            spatial(PatchGeometry(1, up=4), 3, 2),
            "autoencoder-kl",
            "in blocks of 4 x 4 positions .* decodes codes of shape 2x6x6",
        ),
    ],
)
def test_a_map_that_leads_elsewhere_is_refused(there: LinearMap | SpatialMap, name: str, words: str) -> None:
    with pytest.raises(CodeShapeError, match=words):
        fold(there, target(name))


def test_a_map_to_another_model_of_the_same_shape_is_refused() -> None:
    right = linear(3, 5, fingerprint=target().fingerprint)
    assert fold(right, target()).name == "A → B"
    with pytest.raises(
        CodeShapeError, match=r"leads to B \(weights .*\), and B has others \(weights .*fit a map to this model"
    ):
        fold(right, target(seed=1))


def test_a_map_to_scaled_latents_is_refused_by_a_decoder_of_raw_ones() -> None:
    decoder = target("autoencoder-kl")
    there = spatial(PatchGeometry(1), 3, 2, scaling="scaled")
    assert fold(there, decoder).latent_shape == (3, 6, 6)  # a model that does not say is believed
    decoder.scaling = "raw"  # type: ignore[assignment]
    with pytest.raises(
        CodeShapeError, match=r"leads to scaled latents of B, and B decodes raw ones. Load the model with scaled"
    ):
        fold(there, decoder)


def test_what_does_not_decode_is_refused() -> None:
    blind = CallableModel(name="blind", image_shape=(1, 4, 4), latent_shape=(5,), encode_with=lambda images: images)
    with pytest.raises(CapabilityError, match="Folding a map needs a decoder, which blind lacks"):
        fold(linear(3, 5), blind)


@pytest.mark.parametrize("target_shape", [(4,), (2, 3, 1)])
def test_an_affine_relocation_whose_parts_do_not_fit_is_refused(target_shape: tuple[int, ...]) -> None:
    with pytest.raises(CodeShapeError, match="needs a weight s x"):
        AffineRelocation(torch.zeros(3, 5), torch.zeros(5), target_shape)


def test_a_spatial_relocation_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(CodeShapeError, match="needs a weight"):
        SpatialRelocation(torch.zeros(6, 3, 1, 1), torch.zeros(6), torch.zeros(3), down=1, up=2, margin=0)


# The artifact


@pytest.fixture(params=["vector", "spatial"])
def folded(request: pytest.FixtureRequest) -> RelocatedModel:
    if request.param == "vector":
        return fold(linear(3, 5), target())
    return fold(spatial(PatchGeometry(3, up=2), 3, 2), target("autoencoder-kl"))


def test_it_comes_back_bit_for_bit(folded: RelocatedModel, tmp_path: Path) -> None:
    folded.save_pretrained(tmp_path / "model")
    again = read_relocated(tmp_path / "model", VAE.from_pretrained)
    given = codes(3, *folded.latent_shape)
    assert again.decode(given).equal(folded.decode(given))
    assert again.fingerprint == folded.fingerprint
    assert (again.name, again.source, again.latent_shape, again.image_shape) == ("A → B", "A", folded.latent_shape, (1, 12, 12))
    assert again.evidence == folded.evidence
    assert again.provenance == folded.provenance
    assert not again.training


def test_the_folder_holds_the_target_as_a_model_of_its_own(folded: RelocatedModel, tmp_path: Path) -> None:
    folded.save_pretrained(tmp_path / "model")
    assert VAE.from_pretrained(tmp_path / "model" / "target").fingerprint == folded.target.fingerprint
    record = read_config(tmp_path / "model", kind=KIND)
    assert set(record["files"]) == {"relocation.safetensors", "target/config.json", "target/model.safetensors"}
    made_from = record["provenance"]["made_from"]
    assert made_from["target"] == folded.target.fingerprint
    assert (tmp_path / "model" / CARD).is_file()


@pytest.mark.parametrize("name", ["relocation.safetensors", "target/model.safetensors", "target/config.json"])
def test_a_flipped_byte_anywhere_in_it_is_noticed(name: str, tmp_path: Path) -> None:
    fold(linear(3, 5), target()).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_relocated(tmp_path / "model", VAE.from_pretrained)


@pytest.mark.parametrize(
    "relocation",
    [
        {"kind": "quadratic"},
        {},
        {"kind": "affine", "target_shape": [4]},
        {"kind": "affine", "target_shape": None},
        {"kind": "spatial", "down": 1, "up": 1, "margin": 0},
    ],
)
def test_settings_that_cannot_be_rebuilt_say_so(relocation: dict[str, object], tmp_path: Path) -> None:
    fold(linear(3, 5), target()).save_pretrained(tmp_path / "model")
    record = json.loads((tmp_path / "model" / CONFIG).read_text())
    record["settings"]["relocation"] = relocation
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "model" / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=r"is not a readable relocated model .* Fold the map again"):
        read_relocated(tmp_path / "model", VAE.from_pretrained)


def test_a_missing_folder_and_a_folder_of_another_kind_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="expected a latlas relocated-model there"):
        read_relocated(tmp_path / "nowhere", VAE.from_pretrained)
    target().save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match="holds a latlas vae, where a latlas relocated-model is needed"):
        read_relocated(tmp_path / "model", VAE.from_pretrained)


def test_a_target_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    made = CallableModel(
        name="made", image_shape=(1, 4, 4), latent_shape=(5,), decode_with=lambda given: given.new_zeros(len(given), 1, 4, 4)
    )
    folded = fold(linear(3, 5), made)
    assert folded.decode(codes(2, 3)).shape == (2, 1, 4, 4)
    assert folded.fingerprint == "unstated"  # as its target's, which tells no model from another
    with pytest.raises(CapabilityError, match="made cannot be written to a folder"):
        folded.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
