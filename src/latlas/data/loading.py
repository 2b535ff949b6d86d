"""From a DATA spec to an ImageSet: the one place that knows every way to name images."""

import re
from pathlib import Path

from latlas.base.errors import MissingPathError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.data.builtin import BUILTIN_SETS, SPLITS, load_builtin
from latlas.data.files import load_array, load_folder
from latlas.data.images import ImageSet

_SLICE = re.compile(r"^(?P<rest>.+?)\[(?P<start>(-?\d+)?):(?P<stop>(-?\d+)?)\]$")


def load_images(spec: str | Path, *, size: int | None = None, progress: Progress = silent) -> ImageSet:
    """Return the images that a spec names.

    Args:
        spec: `mnist` or `fashion-mnist`, with `:train` (the default) or `:test`; a folder of pictures; an `.npy` or
            `.npz` file. Each may end in `[start:stop]`, as in `mnist:test[0:1000]`.
        size: crop folders' pictures to their central square and resize them to this side.
        progress: told how far reading is.

    Raises:
        UnknownNameError, MissingPathError, ImageFormatError, DataUnavailableError: as their names say.
    """
    text = str(spec)
    match = _SLICE.match(text)
    if match is None:
        return _load_whole(text, size, progress)
    images = load_images(match["rest"], size=size, progress=progress)  # which may be a slice itself
    return images.slice(int(match["start"]) if match["start"] else None, int(match["stop"]) if match["stop"] else None)


def _load_whole(spec: str, size: int | None, progress: Progress) -> ImageSet:
    path = Path(spec)
    if path.suffix in (".npy", ".npz"):
        return load_array(path)
    if path.is_dir():
        return load_folder(path, size=size, progress=progress)
    if path.is_file():
        raise SettingError(f"{spec} is a file; images come from a folder of pictures, an .npy or an .npz.")
    name, _, split = spec.partition(":")
    if name in BUILTIN_SETS:
        return load_builtin(name, split or SPLITS[0], progress=progress)
    if "/" in spec or spec.startswith((".", "~")):
        raise MissingPathError(f"No folder or file {spec}.")
    raise unknown_name("data set", name, BUILTIN_SETS, hint="Or give a folder of pictures, an .npy or an .npz.")
