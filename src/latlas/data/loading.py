"""From a DATA spec to an ImageSet: the one place that knows every way to name images."""

import re
from pathlib import Path

from latlas.base.errors import MissingPathError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.data.avatar_styles import STYLES
from latlas.data.avatars import avatar_settings, load_avatars
from latlas.data.builtin import BUILTIN_SETS, SPLITS, load_builtin
from latlas.data.celeba import list_celeba
from latlas.data.files import load_array, load_folder
from latlas.data.images import ImageSet, part_of

_SLICE = re.compile(r"^(?P<rest>.+?)\[(?P<start>(-?\d+)?):(?P<stop>(-?\d+)?)\]$")
_Slice = tuple[int | None, int | None]


def load_images(spec: str | Path, *, size: int | None = None, progress: Progress = silent) -> ImageSet:
    """Return the images that a spec names.

    Args:
        spec: `mnist` or `fashion-mnist`, with `:train` (the default) or `:test`; a folder of pictures; an `.npy` or
            `.npz` file; `avatars` or `avatars-peeps`, with `:train` or `:test` and settings after a `?`, as in
            `avatars:train?hat=0.01&glasses=1` (`latlas.data.avatars.avatar_settings` lists them); `celeba:FOLDER`,
            with `:train`, `:val` or `:test` and `?crop=128` or `140`. Each may end in `[start:stop]`, as in
            `mnist:test[0:1000]`; of avatars and CelebA only that part is drawn or read.
        size: crop folders' pictures to their central square and resize them to this side; the side of avatars and of
            CelebA's pictures, where the spec names none.
        progress: told how far reading is.

    Raises:
        UnknownNameError, MissingPathError, ImageFormatError, DataUnavailableError, MissingExtraError, SettingError: as
            their names say.
    """
    text = str(spec)
    slices: list[_Slice] = []
    while match := _SLICE.match(text):  # the last slice of several stands outermost
        slices.insert(0, (int(match["start"]) if match["start"] else None, int(match["stop"]) if match["stop"] else None))
        text = match["rest"]
    scheme = re.split("[:?]", text, maxsplit=1)[0]
    if text != scheme or not Path(text).is_dir():  # a folder that has a set's very name is meant as the folder
        if scheme in STYLES:
            settings = avatar_settings(text, size=size)
            return load_avatars(settings, part=_part(settings.spec, settings.total, slices), progress=progress)
        if scheme == "celeba":
            listed = list_celeba(text, size=size)
            return listed.load(_part(listed.spec, len(listed.files), slices), progress=progress)
    images = _load_whole(text, size, progress)
    for start, stop in slices:
        images = images.slice(start, stop)
    return images


def _part(name: str, count: int, slices: list[_Slice]) -> range:
    part = range(count)
    for start, stop in slices:
        part = part_of(name, part, start, stop)
    return part


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
    known = [*BUILTIN_SETS, *STYLES, "celeba:FOLDER"]
    raise unknown_name("data set", name, known, hint="Or give a folder of pictures, an .npy or an .npz.")
