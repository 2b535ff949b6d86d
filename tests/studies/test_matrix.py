"""The matrix of pairs: each cell is the comparison of its pair, and no model encodes twice."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, ImageFormatError, SettingError
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.models.protocols import Posterior
from latlas.studies import matrix as matrix_module
from latlas.studies.compare import compare
from latlas.studies.matrix import ComparisonMatrix, compare_all

IDENTITY = torch.eye(3, dtype=torch.float64)
NARROW = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.5]], dtype=torch.float64)


class Counting:
    """A model that counts the images it is asked to encode."""

    def __init__(self, model: CallableModel) -> None:
        self.model, self.seen = model, 0
        self.name, self.fingerprint = model.name, model.fingerprint
        self.image_shape, self.latent_shape = model.image_shape, model.latent_shape

    def encode(self, images: Tensor) -> Posterior:
        self.seen += len(images)
        return self.model.encode(images)

    def decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes)


class Drawer:
    """A generator of the world's images."""

    name, fingerprint, image_shape, latent_shape = "drawer", "d", (1, 4, 6), (3,)

    def __init__(self, world: Any) -> None:
        self.world = world

    def decode(self, codes: Tensor) -> Tensor:
        return (0.5 + codes.double() @ self.world.drawing).float().unflatten(1, (1, 4, 6))

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 3, generator=generator).clamp(-2, 2)


@pytest.fixture
def models(world: Any, basis: Tensor) -> list[CallableModel]:
    named = (("plain", IDENTITY), ("turned", basis), ("narrow", NARROW))
    return [world.autoencoder(matrix, name=name) for name, matrix in named]


def test_each_cell_is_the_comparison_of_its_pair(models: list[CallableModel], world: Any) -> None:
    matrix = compare_all(models, world.images(), ridge=0.1)
    assert len(matrix.cells) == 6
    for cell in matrix.cells:
        source, target = (next(model for model in models if model.name == name) for name in (cell.source, cell.target))
        alone = compare(source, target, world.images(), ridge=0.1)
        for name in ("L", "M", "target_R", "mean_code", "no_map", "recovered_share"):
            assert getattr(cell, name) == getattr(alone, name), name
        assert cell.r2 == pytest.approx(sum(value for value in alone.r2 if value is not None) / len(alone.r2))
    assert matrix.cell("plain", "plain") is None
    assert matrix.R["narrow"] == compare(models[2], models[0], world.images()).R


def test_each_model_encodes_every_image_once(models: list[CallableModel], world: Any) -> None:
    counting = [Counting(model) for model in models]
    compare_all(counting, world.images())
    assert [model.seen for model in counting] == [500, 500, 500]


def test_the_record_has_its_tables_by_source_then_target(models: list[CallableModel], world: Any) -> None:
    record = compare_all(models, world.images()).to_json()
    json.dumps(record, allow_nan=False)
    assert record["models"] == ["plain", "turned", "narrow"]
    assert record["M_over_target_R"]["plain"]["narrow"] == pytest.approx(1.0, rel=1e-3)
    assert record["M_over_target_R"]["narrow"]["plain"] > 1.05  # what it never held cannot be brought
    assert record["M_over_no_map"]["plain"]["narrow"] is None
    assert record["M_over_no_map"]["plain"]["turned"] < 1
    assert record["M_over_target_R"]["plain"]["plain"] is None
    assert set(record["provenance"]["made_from"]) == {"model plain", "model turned", "model narrow", "fitted_on", "test"}


def test_a_generator_is_paired_on_its_own_stream(models: list[CallableModel], world: Any) -> None:
    drawers = [Drawer(world), Drawer(world)]
    matrix = compare_all([*drawers, *models[:2]], world.images(), stream=400)
    assert matrix.models == ("drawer #1", "drawer #2", "plain", "turned")
    assert matrix.cell("drawer #1", "drawer #2") is None
    there, back = matrix.cell("drawer #1", "turned"), matrix.cell("turned", "drawer #1")
    assert there is not None
    assert back is not None
    assert there.images == "drawer's own stream (test)"
    assert there.M.mean == pytest.approx(0.0, abs=1e-10)
    assert back.target_R.mean == 0.0
    assert back.over_target is None
    assert back.recovered_share == pytest.approx(1.0, abs=1e-6)
    assert set(matrix.R) == set(matrix.codes) == {"plain", "turned"}
    between = matrix.cell("plain", "turned")
    assert between is not None
    assert between.images == "world[400:500]"


def test_test_images_of_their_own_are_measured_on(models: list[CallableModel], world: Any) -> None:
    images = world.images()
    matrix: ComparisonMatrix = compare_all(models, images, test=images.slice(0, 30))
    assert (matrix.images, matrix.fitted_on) == ("world[0:30]", "world")
    assert matrix.examples.storage.equal(images.storage[:6])
    assert matrix.cells[0].linear_map.evidence["pairs"] == 500


def test_a_neighbourhood_concerns_only_pairs_of_spatial_spaces(models: list[CallableModel], world: Any) -> None:
    grid = CallableModel(
        name="grid",
        image_shape=(1, 4, 6),
        latent_shape=(1, 4, 6),
        encode_with=lambda images: images,
        decode_with=lambda codes: codes,
    )
    matrix = compare_all([grid, models[0], grid], world.images(), neighbourhood=3, ridge=1e-6)
    kinds = {(cell.source, cell.target): type(cell.linear_map).__name__ for cell in matrix.cells}
    assert kinds["grid #1", "grid #2"] == "SpatialMap"
    assert kinds["grid #1", "plain"] == kinds["plain", "grid #2"] == "LinearMap"


def test_models_that_make_no_matrix_are_refused(models: list[CallableModel], world: Any) -> None:
    with pytest.raises(SettingError, match="at least 2 models, got 1"):
        compare_all(models[:1], world.images())
    with pytest.raises(SettingError, match="None of drawer #1, drawer #2 encodes"):
        compare_all([Drawer(world), Drawer(world)], world.images())
    with pytest.raises(SettingError, match="at least 8 codes"):
        compare_all(models, world.images(), stream=4)
    blind = CallableModel(
        name="blind", image_shape=(1, 4, 6), latent_shape=(3,), encode_with=lambda images: images.flatten(1)[:, :3]
    )
    with pytest.raises(CapabilityError, match="A matrix needs a decoder, which blind lacks"):
        compare_all([*models, blind], world.images())
    with pytest.raises(ImageFormatError, match=r"plain takes images of 1x4x6 .*, wide\[0:16\] has 1x4x7"):
        compare_all(models, ImageSet("wide", torch.zeros(20, 1, 4, 7)))
    other = CallableModel(
        name="big", image_shape=(1, 8, 8), latent_shape=(3,), encode_with=lambda x: x, decode_with=lambda z: z
    )
    with pytest.raises(ImageFormatError, match="plain takes images of 1x4x6 and big of 1x8x8"):
        compare_all([*models, other], world.images())


def test_no_two_models_share_a_name_whatever_they_are_called() -> None:
    assert matrix_module._distinct(["a", "a", "a #1"]) == ["a #2", "a #3", "a #1"]
    assert matrix_module._distinct(["a", "b"]) == ["a", "b"]
