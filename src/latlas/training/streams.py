"""A generator's own endless stream of codes and images: batch k is the same whenever it is asked for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latlas.base.artifacts import read_json, write_json
from latlas.base.errors import ArtifactError, SettingError
from latlas.base.npy import open_npy
from latlas.base.seeds import generator
from latlas.data.images import to_pixels
from latlas.models.drawn import check_drawn, check_varied
from latlas.models.protocols import Generator, device_of

_PROBED = 32  # images that are looked at before any work
_SETTINGS = "stream.json"


class Stream:
    """Codes and images of a generator, batch by batch, from a seed.

    Args:
        drawn_from: the generator; it gets no gradient and keeps its mode.
        batch_size: images of a batch.
        seed: decides every batch.
    """

    def __init__(self, drawn_from: Generator, *, batch_size: int, seed: int) -> None:
        self.generator, self.batch_size, self.seed = drawn_from, batch_size, seed

    def codes(self, step: int) -> Tensor:
        """Return the codes of batch `step`, on the CPU."""
        return self.generator.sample_codes(self.batch_size, generator(self.seed, "stream", step))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return codes and images of batch `step`, on the generator's device."""
        codes = self.codes(step).to(device_of(self.generator))
        with torch.no_grad():
            return codes, self.generator.decode(codes).float()


class CachedStream(Stream):
    """The same from the disk, for slow generators: codes in float16, images in uint8, a bounded number of them.

    The first `images` are drawn as they are asked for and kept; from then on batches are drawn from those that lie there, so
    that the stream is endless no more and a long training can over-fit. Another training of the same generator, seed and
    batch size finds them again.

    Args:
        drawn_from: the generator.
        batch_size: images of a batch.
        seed: decides every batch.
        folder: where to keep them; made if need be.
        images: how many at most, rounded down to whole batches.

    Raises:
        SettingError: fewer images than a batch, or a folder that holds another stream.
        ArtifactError: the folder cannot be written.
    """

    def __init__(self, drawn_from: Generator, *, batch_size: int, seed: int, folder: Path, images: int) -> None:
        super().__init__(drawn_from, batch_size=batch_size, seed=seed)
        self.batches = images // batch_size
        if self.batches < 1:
            raise SettingError(f"A cache must hold a batch of {batch_size} images at least, got {images}.")
        self.folder = folder
        record = {
            "generator": drawn_from.fingerprint,
            "image_shape": list(drawn_from.image_shape),
            "latent_shape": list(drawn_from.latent_shape),
            "batch_size": batch_size,
            "batches": self.batches,
            "seed": seed,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                self._check_same(record)
            else:
                write_json(folder / _SETTINGS, record)
            self.pixels = self._open("images.npy", np.uint8, drawn_from.image_shape)
            self.kept_codes = self._open("codes.npy", np.float16, drawn_from.latent_shape)
            self.kept = self._open("kept.npy", np.bool_, (), rows=self.batches)
        except (OSError, ValueError) as failure:
            raise ArtifactError(
                f"Could not keep a stream in {folder}: {failure}. Delete it, or name another place."
            ) from failure

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return codes and images of batch `step`, as rounded as the disk keeps them, on the generator's device."""
        if step < self.batches:
            rows = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
            if not self.kept[step]:
                self._draw(step)
        else:
            for missing in np.flatnonzero(~self.kept):  # a resumed training may have lost the folder
                self._draw(int(missing))
            count = self.batches * self.batch_size
            rows = torch.randperm(count, generator=generator(self.seed, "kept", step))[: self.batch_size]
        device = device_of(self.generator)
        codes = torch.from_numpy(self.kept_codes[rows.numpy()]).float().to(device)
        return codes, torch.from_numpy(self.pixels[rows.numpy()]).to(device).float().div_(255.0)

    def _draw(self, step: int) -> None:
        # The images are those of the rounded codes: else the pair on the disk would not be a pair.
        codes = self.codes(step).half()
        with torch.no_grad():
            images = self.generator.decode(codes.float().to(device_of(self.generator)))
        rows = slice(step * self.batch_size, (step + 1) * self.batch_size)
        self.kept_codes[rows] = codes.numpy()
        self.pixels[rows] = to_pixels(images).numpy()
        for array in (self.kept_codes, self.pixels):
            array.flush()  # before the mark that they are whole
        self.kept[step] = True
        self.kept.flush()

    def _check_same(self, record: dict[str, Any]) -> None:
        if not (self.folder / _SETTINGS).is_file():
            raise SettingError(f"{self.folder} holds something else than a stream. Name an empty folder.")
        if read_json(self.folder / _SETTINGS) != json.loads(json.dumps(record)):
            raise SettingError(
                f"{self.folder} holds the stream of another generator, seed, batch size or number of images. Name another folder."
            )

    def _open(self, name: str, kind: type, shape: tuple[int, ...], *, rows: int | None = None) -> "np.memmap[Any, Any]":
        path = self.folder / name
        full = (self.batches * self.batch_size if rows is None else rows, *shape)
        if not path.is_file():
            # Written sparse: the disk fills as images come.
            return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=full)
        found = open_npy(path, "r+")
        if found.shape != full or found.dtype != kind:
            raise ValueError(f"{name} is damaged")
        return found


def check_stream(drawn_from: Generator, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return a few codes and images of a generator, after checking that one can learn from them.

    Raises:
        NonFiniteError: it draws NaN or infinity.
        ImageFormatError: its images have another shape than it says, or leave [0, 1].
        IllPosedError: its images are all alike.
    """
    codes = drawn_from.sample_codes(_PROBED, generator(seed, "probe")).to(device_of(drawn_from))
    with torch.no_grad():
        images = drawn_from.decode(codes)
    check_drawn(images, drawn_from)
    check_varied(images, drawn_from)
    return codes, images


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """Keep a network in evaluation mode and without gradients of its own within the block; then as it was."""
    if not isinstance(model, nn.Module):
        yield
        return
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    in_training = [part for part in model.modules() if part.training]
    try:
        model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for part in in_training:
            part.training = True
        for parameter in learning:
            parameter.requires_grad_(True)
