"""Two hundred times the same: as many open files, mappings, threads and processes as before, and no more memory."""

import multiprocessing
import os
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from latlas.base.artifacts import check_free, read_config, write_config, write_file, writing
from latlas.base.errors import LatlasError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.data.loading import load_images, open_images
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")

REPEATS = 200
PIXEL = b"P5 4 4 255\n" + bytes(16)
MOST = 16 * 2**20  # bytes that so many repeats may leave: what one of them takes is a few thousand


class Held(NamedTuple):
    """What a process holds of the system."""

    files: int
    mappings: int
    threads: int
    processes: int


def held() -> Held:
    mappings = len(Path("/proc/self/maps").read_text().splitlines())
    return Held(
        len(list(Path("/proc/self/fd").iterdir())), mappings, threading.active_count(), len(multiprocessing.active_children())
    )


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    (folder / "pictures").mkdir()
    for number in range(3):
        (folder / "pictures" / f"{number}.pgm").write_bytes(PIXEL)
    (folder / "pictures-bad").mkdir()
    (folder / "pictures-bad" / "0.pgm").write_bytes(PIXEL)
    (folder / "pictures-bad" / "1.pgm").write_bytes(b"rubbish")
    np.save(folder / "a.npy", np.zeros((3, 4, 4), dtype=np.uint8))
    np.savez(folder / "a.npz", images=np.zeros((3, 4, 4), dtype=np.uint8))
    (folder / "bad.npz").write_bytes(b"PK\3\4" + bytes(40))
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.add(folder / "pictures" / "0.pgm", "0.pgm")
    (folder / "bad.tar").write_bytes((folder / "a.tar").read_bytes()[:700])
    encode(small(), images(), out=folder / "codes")
    whole = Encoding.from_pretrained(folder / "codes")
    whole.save_pretrained(folder / "damaged")
    (folder / "damaged" / "mean.npy").write_bytes(b"x")
    return folder


def small() -> VAE:
    torch.manual_seed(0)
    return VAE(Dense(widths=(4,), latent=2), (1, 4, 4))


def images() -> ImageSet:
    return ImageSet(name="i", storage=torch.zeros(3, 1, 4, 4, dtype=torch.uint8))


def _artifact(folder: Path) -> None:
    with writing(folder / "again", replace=True) as beside:
        write_config(beside, kind="thing", settings={}, provenance=Provenance(made_by="test", versions={}))
    read_config(folder / "again", kind="thing")


def _broken_artifact(folder: Path) -> None:
    with writing(folder / "broken") as beside:
        (beside / "half").touch()
        raise LatlasError("in the midst of it")


def _refused(folder: Path) -> None:
    with suppress(LatlasError):
        check_free(folder / "codes")
    write_file(folder / "pictures" / "0.pgm", lambda stream: stream.write(b"x"))


DOORS: dict[str, Callable[[Path], object]] = {
    "artifact": _artifact,
    "broken artifact": _broken_artifact,
    "refused": _refused,
    "folder": lambda folder: load_images(folder / "pictures"),
    "bad folder": lambda folder: load_images(folder / "pictures-bad"),
    "npy": lambda folder: next(iter(open_images(folder / "a.npy").blocks([(0, 2)]))),
    "npz": lambda folder: load_images(folder / "a.npz"),
    "bad npz": lambda folder: load_images(folder / "bad.npz"),
    "tar": lambda folder: load_images(folder / "a.tar"),
    "bad tar": lambda folder: load_images(folder / "bad.tar"),
    "encoding": lambda folder: encode(small(), images(), out=folder / "anew", replace=True),
    "refused encoding": lambda folder: encode(small(), images(), out=folder / "pictures"),
    "opened": lambda folder: Encoding.from_pretrained(folder / "codes").mean.sum(),
    "damaged": lambda folder: Encoding.from_pretrained(folder / "damaged"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_leaves_nothing_open_however_often_one_goes_through(door: str, world: Path) -> None:
    def go(times: int) -> None:
        for _ in range(times):
            with suppress(LatlasError):
                DOORS[door](world)

    go(10)  # what is loaded, and kept, once
    before, memory = held(), resident()
    go(REPEATS)
    after = held()
    assert after.files == before.files
    assert after.threads <= before.threads
    assert after.processes == before.processes
    assert after.mappings <= before.mappings + 8  # the allocator's own come and go
    assert resident() - memory < MOST
    assert not [path.name for path in world.iterdir() if path.name.startswith(".")]
