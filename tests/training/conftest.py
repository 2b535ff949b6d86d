"""Images small enough to train on in a blink, and one thread to do it with."""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from threadpoolctl import threadpool_limits

from latlas.data.images import ImageSet


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small gain nothing from a second thread, and on a busy machine wait for it a hundred times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def blobs() -> ImageSet:
    """320 images, 8 x 8, of a bright spot: two factors of variation."""
    generator = torch.Generator().manual_seed(7)
    centre = 1 + 5 * torch.rand(320, 2, generator=generator)
    down, across = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    distance = (down - centre[:, :1, None]) ** 2 + (across - centre[:, 1:, None]) ** 2
    return ImageSet("blobs", (255 * torch.exp(-distance / 4)).to(torch.uint8)[:, None])


@pytest.fixture
def read_scalars() -> Callable[[Path], dict[str, dict[int, float]]]:
    """A reader of TensorBoard's files that is not TensorBoard."""
    return _read_scalars


def _read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Every scalar of every event file, by tag and step; read by hand from the TFRecord framing.

    A record is its length (8 bytes), a checksum of that (4), the event, a checksum of it (4).
    """
    scalars: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        raw, at = path.read_bytes(), 0
        while at < len(raw):
            (length,) = struct.unpack_from("<Q", raw, at)
            event = Event.FromString(raw[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                assert event.step not in scalars[value.tag], f"{value.tag} was told twice in step {event.step}"
                scalars[value.tag][event.step] = value.simple_value
    return scalars
