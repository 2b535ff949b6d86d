"""What bounds an encoding, told from parts whose speed is planted."""

import time
from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, ImageFormatError, SettingError
from latlas.data.images import ImageSet, PixelBlock
from latlas.encodings.pipeline_speed import PipelineSpeed, measure_pipeline
from latlas.models.adapters.callables import CallableModel

COUNT = 20


def digits(count: int = COUNT) -> ImageSet:
    return ImageSet(name="zeros", storage=torch.zeros(count, 3, 512, 512, dtype=torch.uint8))  # one is encoded at once


class Slowly:
    """An image set that takes a stated time for each image."""

    def __init__(self, images: ImageSet, seconds: float) -> None:
        self.images, self.seconds = images, seconds
        self.name, self.image_shape, self.listing_hash = images.name, images.image_shape, "slowly"

    def __len__(self) -> int:
        return len(self.images)

    def name_of(self, index: int) -> str:
        return self.images.name_of(index)

    def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
        for start, stop in bounds:
            time.sleep(self.seconds * (stop - start))
            yield from self.images.blocks([(start, stop)])


def taking(seconds: float) -> CallableModel:
    def encode(images: Tensor) -> Tensor:
        time.sleep(seconds * len(images))
        return images.flatten(1)[:, :2]

    return CallableModel(name="slow", image_shape=(3, 512, 512), latent_shape=(2,), encode_with=encode)


@pytest.mark.parametrize(("source", "network", "bound"), [(0.02, 0.002, "decode"), (0.002, 0.02, "network")])
def test_the_slowest_part_is_found_and_its_speed_is_the_planted_one(source: float, network: float, bound: str) -> None:
    speed = measure_pipeline(Slowly(digits(), source), taking(network), rounds=1)
    assert speed.bound == bound
    # A sleep never ends early; on a busy machine it ends late, and there is work beside it.
    assert 0.3 / source < speed.decode <= 1 / source
    assert 0.3 / network / 10 < speed.network <= 1 / network
    assert speed.whole <= 1.02 / (source + network)  # one process does one after the other
    assert speed.transfer is None
    assert (speed.images, speed.batch, speed.workers) == (COUNT, 1, 0)


def speeds(**parts: float | None) -> PipelineSpeed:
    return PipelineSpeed(**{"images": 1, "batch": 1, "workers": 0, "rounds": 1, "transfer": None, **parts})  # type: ignore[arg-type]


def test_the_share_is_of_the_slowest_part() -> None:
    side_by_side = speeds(decode=100.0, network=400.0, whole=90.0)
    assert (side_by_side.bound, side_by_side.share) == ("decode", 0.9)
    assert side_by_side.share_one_after_the_other == pytest.approx(90 / 80)  # 1 / (1/100 + 1/400) = 80
    transferred = speeds(decode=100.0, network=400.0, transfer=50.0, whole=40.0)
    assert (transferred.bound, transferred.share) == ("transfer", 0.8)


def test_only_the_first_images_are_passed_over() -> None:
    assert measure_pipeline(digits(), taking(0.0), images=3, rounds=1).images == 3


def test_nonsense_is_refused() -> None:
    with pytest.raises(SettingError, match="at least 1 image and 1 round, got 0 and 3"):
        measure_pipeline(digits(), taking(0.0), images=0)
    with pytest.raises(SettingError, match="got 4096 and 0"):
        measure_pipeline(digits(), taking(0.0), rounds=0)
    with pytest.raises(CapabilityError):
        measure_pipeline(digits(), CallableModel(name="none", image_shape=(3, 512, 512), latent_shape=(2,)))
    small = CallableModel(name="small", image_shape=(3, 4, 4), latent_shape=(2,), encode_with=lambda images: images)
    with pytest.raises(ImageFormatError):
        measure_pipeline(digits(), small)
