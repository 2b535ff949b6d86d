"""Images from a user's own files: a folder of pictures, an `.npy`, an `.npz`."""

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latlas.base.errors import ImageFormatError, MissingPathError
from latlas.base.npy import check_header
from latlas.base.progress import Progress, silent
from latlas.data.images import ImageSet
from latlas.data.listings import list_folder
from latlas.data.picture_files import load_pictures, open_pictures

_MOST_UNPACKED = 1 << 30  # bytes that an .npz of any size may unpack to,
_MOST_EXPANSION = 100  # and times its own size that a larger one may; zeros alone are deflated to a thousandth


def load_folder(
    folder: Path,
    *,
    size: int | None = None,
    policy: str = "stop",
    workers: int | None = None,
    progress: Progress = silent,
) -> ImageSet:
    """Return every picture under a folder, in the order of their names.

    Pictures are turned as their EXIF says. All grey: one channel, else three. With `size` each picture's central
    square is resized by Pillow's bicubic filter (which antialiases); without, all must have one shape.

    Args:
        folder: where the pictures are, those in folders within included.
        size: the side of the images.
        policy: what happens with pictures that cannot be used: "stop" or "skip".
        workers: processes that decode; None: one a core, at most 8, and none for few pictures.
        progress: told how many are read.

    Raises:
        MissingPathError: no such folder.
        ImageFormatError: no picture in it, one that cannot be read, or shapes that differ.
        SettingError: a setting out of its range.
    """
    listing = list_folder(folder, progress=progress)
    return load_pictures(open_pictures(listing, size=size, policy=policy, workers=workers), progress=progress)


def load_array(path: Path) -> ImageSet:
    """Return the images of an `.npy` file, or of an `.npz` that holds `images` (and perhaps `labels`).

    Accepted: `n h w`, `n h w c` or `n c h w` with 1 or 3 channels, uint8 or bool, or floats in [0, 1].

    Raises:
        MissingPathError: no such file.
        ImageFormatError: not readable without unpickling, or no array of images in it.
        NonFiniteError: NaN or infinity.
    """
    if not os.path.isfile(path):  # noqa: PTH113  # a Path raises where no file could have that name
        raise MissingPathError(f"No file {path}.")
    try:
        _check_members(path)
        loaded = np.load(path, allow_pickle=False)
        arrays = (
            {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else {"images": loaded}
        )
    except ImageFormatError:
        raise
    except (ValueError, OSError, EOFError, KeyError) as failure:
        # NumPy's own sentences end in the advice to unpickle, which latlas never does.
        if "Object arrays" in str(failure):
            raise ImageFormatError(_no_numbers(path)) from failure
        if "pickle" in str(failure):
            raise ImageFormatError(
                f"{path} is not a readable array file: it is a pickle, or neither .npy nor .npz. Save it with numpy.save."
            ) from failure
        raise ImageFormatError(f"{path} is not a readable array file ({failure}).") from failure
    except Exception as failure:  # a damaged zip raises its own kinds
        raise ImageFormatError(f"{path} is damaged ({type(failure).__name__}).") from failure
    arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}  # other members come as bytes
    if "images" not in arrays:
        candidates = [name for name, array in arrays.items() if array.ndim in (3, 4)]
        if len(candidates) != 1:
            raise ImageFormatError(
                f"{path} must hold an array named 'images'; it holds {', '.join(sorted(arrays)) or 'nothing'}."
            )
        arrays["images"] = arrays[candidates[0]]
    labels = arrays.get("labels")
    images = as_images(arrays["images"], path)
    if labels is not None and labels.shape != (images.shape[0],):
        raise ImageFormatError(f"{path}: labels have shape {labels.shape}, expected ({images.shape[0]},), one an image.")
    if labels is not None and not (labels.dtype == np.bool_ or np.issubdtype(labels.dtype, np.integer)):
        raise ImageFormatError(f"{path}: labels must be whole class numbers, got {labels.dtype}. Number the classes first.")
    return ImageSet(
        name=str(path), storage=images, labels=None if labels is None else torch.from_numpy(labels.astype(np.int64))
    )


def _check_members(path: Path) -> None:
    """Raise before any array is read if the members of an `.npz` would take more memory than images of its size do.

    Raises:
        ImageFormatError: they would.
        ValueError: a header, of one of them or of an `.npy`, that NumPy does not read at once.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            check_header(stream)
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())  # more than this is never unpacked, whatever they hold
    if size > max(_MOST_UNPACKED, _MOST_EXPANSION * path.stat().st_size):
        raise ImageFormatError(
            f"{path} would unpack to {size:,} bytes, more than {_MOST_EXPANSION} times its size: images do not. Save them as .npy."
        )
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                check_header(stream)


def as_images(array: np.ndarray, path: Path) -> Tensor:
    """Return an array of images as an ImageSet keeps them.

    Raises:
        ImageFormatError: it is none; `load_array` says what is.
    """
    if array.dtype.kind in "OSTU":
        raise ImageFormatError(_no_numbers(path))
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise ImageFormatError(
            f"{path}: expected images as n x h x w, n x h x w x c or n x c x h x w with 1 or 3 channels, got shape {array.shape}."
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
    elif array.dtype != np.uint8:
        raise ImageFormatError(
            f"{path}: expected uint8, bool or float values, got {array.dtype}. Convert to uint8 (0 to 255) first."
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def _no_numbers(path: Path) -> str:
    return f"{path} holds Python objects or text, not numbers; save it as uint8 (0 to 255; labels as whole numbers)."
