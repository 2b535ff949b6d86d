"""A generator against a model that encodes: its codes are known, so that its own error is nothing."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError, SettingError
from latlas.studies.compare import compare
from latlas.studies.pairs import is_stream_only, pair_on_stream, stream_of

CLOSE = {"rel": 1e-4}
IDENTITY = torch.eye(3, dtype=torch.float64)


@dataclass(frozen=True)
class Drawer:
    """A generator: factors to images, without the residual; nothing encodes."""

    world: Any
    basis: Tensor
    name: str = "drawer"
    image_shape: tuple[int, int, int] = (1, 4, 6)
    fingerprint: str = "weights of drawer"

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.basis.shape[0],)

    def decode(self, codes: Tensor) -> Tensor:
        return (0.5 + codes.double() @ self.basis @ self.world.drawing).float().unflatten(1, (1, 4, 6))

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, *self.latent_shape, generator=generator).clamp(-2, 2)


def test_from_a_generator_a_linear_map_is_exact_where_the_world_is_linear(world: Any, basis: Tensor) -> None:
    drawer = Drawer(world, basis)
    result = compare(drawer, world.autoencoder(IDENTITY, name="seer"), "stream", stream=200)
    assert result.R.mean == 0.0
    assert result.M.mean == pytest.approx(0.0, abs=1e-10)
    assert isinstance(result.linear_map.weight, Tensor)
    torch.testing.assert_close(result.linear_map.weight, basis, rtol=1e-3, atol=1e-4)
    assert result.known_codes == "drawer"
    assert result.linear_map.evidence["pairs"] == 200
    assert len(result.examples) == 12
    record = result.to_json()
    assert record["round_trip_over_R"] is None  # nothing over nothing
    assert record["provenance"]["settings"]["fit_on"] == "stream of 200 codes"
    json.dumps(record, allow_nan=False)


def test_into_a_generator_the_known_codes_are_the_bound_and_nothing_goes_through_images(world: Any, basis: Tensor) -> None:
    """The seer keeps two of three factors: what the generator cannot be told is what the third draws."""
    narrow = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    drawer = Drawer(world, IDENTITY)
    result = compare(world.autoencoder(narrow, name="seer"), drawer, "stream", stream=2000)
    assert result.target_R.mean == 0.0
    assert (result.decode_encode, result.times.through_images) == (None, None)
    _, fresh = stream_of(drawer, 500, part="test")
    third = fresh.mean[:, 2].double()
    expected = float(torch.outer(third, world.drawing[2]).square().mean())
    assert result.M.mean == pytest.approx(expected, rel=0.02)
    assert result.R.mean == pytest.approx(expected, rel=0.02)
    assert result.recovered_share == pytest.approx(1 - result.M.mean / result.mean_code.mean)
    assert result.to_json()["M_over_target_R"] is None


def test_a_stream_is_measured_on_codes_that_it_was_not_fitted_on(world: Any, basis: Tensor) -> None:
    drawer, seer = Drawer(world, basis), world.autoencoder(IDENTITY)
    fitted, fresh = (pair_on_stream(drawer, seer, 50, part=part, seed=4) for part in ("fit", "test"))
    again = pair_on_stream(drawer, seer, 50, part="fit", seed=4)
    assert fitted.source.mean.equal(again.source.mean)
    assert fitted.images.content_hash == again.images.content_hash
    assert not fitted.source.mean.equal(fresh.source.mean)
    assert not fitted.source.mean.equal(pair_on_stream(drawer, seer, 50, part="fit", seed=5).source.mean)
    assert drawer.decode(fitted.source.mean).equal(fitted.images.tensor())
    back = pair_on_stream(seer, drawer, 50, part="fit", seed=4)
    assert back.target.mean.equal(fitted.source.mean)


def test_only_what_draws_and_does_not_encode_has_nothing_but_a_stream(world: Any, basis: Tensor) -> None:
    assert is_stream_only(Drawer(world, basis))
    assert not is_stream_only(world.autoencoder(basis))


def test_a_stream_that_pairs_nothing_is_refused(world: Any, basis: Tensor) -> None:
    drawer, seer = Drawer(world, basis), world.autoencoder(IDENTITY, name="seer")
    with pytest.raises(CapabilityError, match="Neither drawer nor drawer encodes"):
        compare(drawer, drawer, "stream")
    with pytest.raises(CapabilityError, match="Both seer and seer encode: there is no need of a stream"):
        compare(seer, seer, "stream")
    with pytest.raises(CapabilityError, match=r"needs an encoder, which drawer lacks.*images='stream' in Python"):
        compare(drawer, seer, world.images())
    with pytest.raises(SettingError, match="Leave out fit_on and test images"):
        compare(drawer, seer, "stream", test=world.images())
    with pytest.raises(SettingError, match="at least 2 codes"):
        compare(drawer, seer, "stream", stream=1)
    with pytest.raises(IllPosedError, match="Give at least 4 pairs"):
        compare(drawer, seer, "stream", stream=3)


def test_a_generator_of_another_range_is_told(world: Any, basis: Tensor) -> None:
    class Wide(Drawer):
        def decode(self, codes: Tensor) -> Tensor:
            return 2 * super().decode(codes) - 1

    with pytest.raises(ImageFormatError, match=r"drawer draws values from -.*needs images in \[0, 1\]\. Rescale"):
        compare(Wide(world, basis), world.autoencoder(IDENTITY), "stream")
