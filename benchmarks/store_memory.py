"""Peak memory of encoding into a store, and of fitting a map to stored ones: it must not grow with the rows.

Each measurement has a process of its own: `python benchmarks/store_memory.py encode 1000000 FOLDER` prints one as JSON, and
`memory_of` collects them. The images are made as they are asked for, so that nothing but the store can grow with their number.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latlas.data.images import PixelBlock
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.maps.fit import fit_map
from latlas.models.adapters.callables import CallableModel

SHAPE = (1, 8, 8)
LATENT = 64


@dataclass(frozen=True)
class Made:
    """A source whose pixels are a function of their numbers."""

    count: int
    name: str = "made"
    image_shape: tuple[int, int, int] = SHAPE

    @property
    def listing_hash(self) -> str:
        """How many they are says everything."""
        return f"made {self.count}"

    def __len__(self) -> int:
        return self.count

    def name_of(self, index: int) -> str:
        """Return the number."""
        return f"{index:08d}.png"

    def blocks(self, bounds: Iterable[tuple[int, int]]) -> Iterator[PixelBlock]:
        """Yield the images of each [start, stop)."""
        for start, stop in bounds:
            indices = torch.arange(start, stop)
            values = ((indices[:, None] + 1) * (torch.arange(64) * 2_654_435_761 + 1)) >> 9
            yield PixelBlock(
                pixels=(values % 256).to(torch.uint8).view(-1, *SHAPE),
                indices=indices,
                names=tuple(self.name_of(index) for index in range(start, stop)),
            )


def linear(latent: int = LATENT) -> CallableModel:
    """Return a linear encoder with log-variances."""
    weight = torch.randn(64, 2 * latent, generator=torch.Generator().manual_seed(1))

    def codes(images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = (images.flatten(1) @ weight).chunk(2, dim=1)
        return mean, log_variance

    return CallableModel(image_shape=SHAPE, latent_shape=(latent,), encode_with=codes, name="linear", fingerprint="linear")


def memory_of(rows: int, folder: Path, *, latent: int = LATENT) -> dict[str, int]:
    """Return the peak resident bytes of a process that encodes so many images, and of one that fits a map to their codes.

    Args:
        rows: images.
        folder: for the encoding of `rows` x `latent` means and log-variances in float32, which stays there.
        latent: variables of a code.
    """
    peaks = {}
    for work in ("encode", "map"):
        command = [sys.executable, __file__, work, str(rows), str(folder), "--latent", str(latent)]
        peaks[work] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["peak"]
    return {"encode": peaks["encode"], "fit_map": peaks["map"]}


def ratios(few: int = 10_000, many: int = 1_000_000, *, latent: int = LATENT) -> dict[str, float]:
    """Return, of encoding and of fitting a map, the peak memory at many rows over that at few."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = (memory_of(rows, Path(folder) / str(rows), latent=latent) for rows in (few, many))
    return {work: large[work] / small[work] for work in small}


def _peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Do one piece of work and print the peak memory of this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=("encode", "map", "ratios"))
    parser.add_argument("rows", type=int)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--latent", type=int, default=LATENT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.work == "ratios":
        print(json.dumps(ratios(many=given.rows, latent=given.latent)))
        return
    if given.work == "map":
        source, target = (Encoding.from_pretrained(given.folder, verify=False) for _ in range(2))
        fit_map(source, target, ridge=1e-3)
    else:
        encode(linear(given.latent), Made(given.rows), out=given.folder)
    print(json.dumps({"work": given.work, "rows": given.rows, "peak": _peak()}))


if __name__ == "__main__":
    main()
