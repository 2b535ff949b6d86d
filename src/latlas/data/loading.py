"""From a DATA spec to images, in memory or read as they are asked for: the one place that knows every way to name them."""

import os
import re
from pathlib import Path

from latlas.base.errors import MissingPathError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.data.array_files import ArrayFile, open_array
from latlas.data.avatar_styles import STYLES
from latlas.data.avatars import avatar_settings, load_avatars
from latlas.data.builtin import BUILTIN_SETS, SPLITS, load_builtin
from latlas.data.celeba import list_celeba
from latlas.data.files import load_array
from latlas.data.images import ImageSet, ImageSource, part_of
from latlas.data.listings import Listing, list_folder
from latlas.data.picture_files import PictureFiles, load_pictures, open_pictures
from latlas.data.shard_paths import shard_paths
from latlas.data.specs import agreed_size, parse_query, whole_number

_SLICE = re.compile(r"^(?P<rest>.+?)\[(?P<start>(-?\d{1,4000})?):(?P<stop>(-?\d{1,4000})?)\]$")
_Slice = tuple[int | None, int | None]
_FILES_SETTINGS = ("size", "channels")  # of every spec that names files of pictures
_COLUMN_SETTINGS = (*_FILES_SETTINGS, "image", "label")  # of those with columns


def load_images(
    spec: str | Path,
    *,
    size: int | None = None,
    policy: str = "stop",
    workers: int | None = None,
    progress: Progress = silent,
) -> ImageSet:
    """Return the images that a spec names, all in memory.

    Args:
        spec: `mnist` or `fashion-mnist`, with `:train` (the default) or `:test`; a folder of pictures; tar files in the
            layout of WebDataset, as in `shards/train-{000..009}.tar` or `shards/*.tar`; Parquet files with a column of
            pictures, likewise; `hub:OWNER/NAME` or `hub:FOLDER`, perhaps with `:SPLIT`, for a Hugging Face data set; an
            `.npy` or `.npz` file; `avatars` or `avatars-peeps`, with `:train` or `:test` and settings after a `?`, as in
            `avatars:train?hat=0.01&glasses=1` (`latlas.data.avatars.avatar_settings` lists them); `celeba:FOLDER`,
            with `:train`, `:val` or `:test` and `?crop=128` or `140`. Pictures in files take `?size=64` and
            `?channels=1` or `3`, those in columns also `?image=COLUMN` and `?label=COLUMN`, and sets on the Hub
            `?config=NAME`. Each may end in `[start:stop]`, as in `mnist:test[0:1000]`; of avatars and pictures in files
            only that part is drawn or read.
        size: crop pictures in files to their central square and resize them to this side; the side of avatars and of
            CelebA's pictures, where the spec names none.
        policy: what happens with pictures in files that cannot be used: "stop" with an error, or "skip" and name them
            in the set's `skipped`.
        workers: processes that decode pictures in files; None: one a core, at most 8, and none for few pictures.
        progress: told how far reading is.

    Raises:
        UnknownNameError, MissingPathError, ImageFormatError, DataUnavailableError, MissingExtraError, SettingError: as
            their names say.
    """
    _check_spec(spec)
    text, slices = _split_slices(str(spec))
    files = _open_files(text, slices, size, policy, workers, progress)
    if files is not None:
        return load_pictures(files, progress=progress)
    drawn = _draw(text, slices, size, progress)
    if drawn is not None:
        return drawn
    images = load_array(Path(text)) if _is_array(text) else _built_in(text, progress)
    for start, stop in slices:
        images = images.slice(start, stop)
    return images


def open_images(
    spec: str | Path,
    *,
    size: int | None = None,
    policy: str = "stop",
    workers: int | None = None,
    progress: Progress = silent,
) -> ImageSource:
    """Return the images that a spec names, read as they are asked for where they are files, else in memory.

    Of pictures in files that have not one side, `size` or `?size=` is needed; whether they are in colour is seen from
    the heads of 32 of them, unless `?channels=` says so.

    Args:
        spec: as for `load_images`. Files of pictures and `.npy` stay on disk.
        size: as for `load_images`.
        policy: as for `load_images`; pictures that are skipped are named in their blocks.
        workers: as for `load_images`.
        progress: told how far listing, or reading, is.

    Raises:
        UnknownNameError, MissingPathError, ImageFormatError, DataUnavailableError, MissingExtraError, SettingError: as
            their names say.
    """
    _check_spec(spec)
    text, slices = _split_slices(str(spec))
    files = _open_files(text, slices, size, policy, workers, progress)
    if files is not None:
        return files
    if _is_array(text):
        array: ArrayFile | ImageSet = open_array(Path(text))
        for start, stop in slices:
            array = array.slice(start, stop)
        return array
    return load_images(spec, size=size, progress=progress)


def _check_spec(spec: object) -> None:
    if not isinstance(spec, str | os.PathLike):
        raise SettingError(
            f"Images are named by words, as 'mnist:test' or a folder, got a {type(spec).__name__}. Of a tensor make an ImageSet: "
            'latlas.ImageSet("a name", tensor), n x c x h x w, of float32 in [0, 1] or of uint8.'
        )


def _split_slices(text: str) -> tuple[str, list[_Slice]]:
    slices: list[_Slice] = []
    while match := _SLICE.match(text):  # the last slice of several stands outermost
        slices.insert(0, (int(match["start"]) if match["start"] else None, int(match["stop"]) if match["stop"] else None))
        text = match["rest"]
    return text, slices


def _part(name: str, count: int, slices: list[_Slice]) -> range:
    part = range(count)
    for start, stop in slices:
        part = part_of(name, part, start, stop)
    return part


def _is_array(text: str) -> bool:
    return Path(text).suffix in (".npy", ".npz")


def _open_files(
    text: str, slices: list[_Slice], size: int | None, policy: str, workers: int | None, progress: Progress
) -> PictureFiles | None:
    """Return the pictures in files that a spec names; None: it names something else."""
    # A path with a question mark in it is meant as it stands.
    base, settings = (text, {}) if "?" not in text or os.path.exists(text) else _query_of_files(text)  # noqa: PTH110
    listing = _listing(base, settings, progress)
    if listing is None:
        return None
    side = agreed_size(text, whole_number("size", settings["size"]), size, 0) if "size" in settings else size
    channels = whole_number("channels", settings["channels"]) if "channels" in settings else None
    part = _part(listing.spec, len(listing), slices)
    return open_pictures(listing, part=part, size=side, channels=channels, policy=policy, workers=workers)


def _query_of_files(text: str) -> tuple[str, dict[str, str]]:
    base = text.partition("?")[0]
    names_files = base.startswith("hub:") or base.endswith((".tar", ".parquet")) or os.path.isdir(base)  # noqa: PTH112
    return parse_query(text) if names_files else (text, {})


def _listing(base: str, settings: dict[str, str], progress: Progress) -> Listing | None:
    path = Path(base)
    if os.path.isdir(base):  # noqa: PTH112  # a Path raises where no folder could have that name
        _check_settings(base, settings, _FILES_SETTINGS)
        return list_folder(path, progress=progress)
    if base.endswith(".tar"):
        from latlas.data.tar_shards import list_tars

        _check_settings(base, settings, _FILES_SETTINGS)
        return list_tars(base, shard_paths(base), progress=progress)
    if base.endswith(".parquet"):
        from latlas.data.parquet_files import list_parquet

        _check_settings(base, settings, _COLUMN_SETTINGS)
        columns = {key: settings.get(key) for key in ("image", "label")}
        return list_parquet(base, shard_paths(base), **columns, progress=progress)
    if base.startswith("hub:"):
        from latlas.data.hub_sets import list_hub

        _check_settings(base, settings, (*_COLUMN_SETTINGS, "config"))
        name, split = _hub_name(base.removeprefix("hub:"))
        return list_hub(name, split=split, **{key: settings.get(key) for key in ("config", "image", "label")})
    if base.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise SettingError(f"{base} is compressed; pictures are read from their places in plain .tar files. Unpack it first.")
    return None


def _hub_name(text: str) -> tuple[str, str | None]:
    if not text:
        raise SettingError("hub needs the name of a data set: hub:OWNER/NAME, hub:OWNER/NAME:SPLIT or hub:FOLDER.")
    name, colon, split = text.rpartition(":")
    return (name, split) if colon and split and os.sep not in split and not os.path.isdir(text) else (text, None)  # noqa: PTH112


def _check_settings(base: str, settings: dict[str, str], known: tuple[str, ...]) -> None:
    for key in settings:
        if key not in known:
            raise unknown_name(f"setting of {base}", key, known)


def _draw(text: str, slices: list[_Slice], size: int | None, progress: Progress) -> ImageSet | None:
    """Return the part that is wanted of a set that is drawn, or cropped as published; None: the spec names another."""
    scheme = re.split("[:?]", text, maxsplit=1)[0]
    if scheme in STYLES:
        settings = avatar_settings(text, size=size)
        return load_avatars(settings, part=_part(settings.spec, settings.total, slices), progress=progress)
    if scheme == "celeba":
        listed = list_celeba(text, size=size)
        return listed.load(_part(listed.spec, len(listed.files), slices), progress=progress)
    return None


def _built_in(spec: str, progress: Progress) -> ImageSet:
    if os.path.isfile(spec):  # noqa: PTH113
        raise SettingError(f"{spec} is a file; images come from a folder of pictures, a .tar, a .parquet, an .npy or an .npz.")
    name, _, split = spec.partition(":")
    if name in BUILTIN_SETS:
        return load_builtin(name, split or SPLITS[0], progress=progress)
    if "/" in spec or spec.startswith((".", "~")):
        raise MissingPathError(f"No folder or file {spec}.")
    known = [*BUILTIN_SETS, *STYLES, "celeba:FOLDER", "hub:NAME"]
    raise unknown_name("data set", name, known, hint="Or give a folder of pictures, a .tar, a .parquet, an .npy or an .npz.")
