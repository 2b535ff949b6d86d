"""Images from a user's own files: a folder of pictures, an `.npy`, an `.npz`."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from latlas.base.errors import ImageFormatError, MissingPathError, SettingError
from latlas.base.progress import Progress, silent, track
from latlas.data.images import ImageSet

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


def load_folder(folder: Path, *, size: int | None = None, progress: Progress = silent) -> ImageSet:
    """Return every picture under a folder, in the order of their names.

    Pictures are turned as their EXIF says. All grey: one channel, else three. With `size` each picture's central
    square is resized by Pillow's bicubic filter (which antialiases); without, all must have one shape.

    Raises:
        MissingPathError: no such folder.
        ImageFormatError: no picture in it, one that cannot be read, or shapes that differ.
    """
    if not folder.is_dir():
        raise MissingPathError(f"No folder {folder}.")
    if size is not None and size < 1:
        raise SettingError(f"The image size must be at least 1, got {size}.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not paths:
        raise ImageFormatError(f"{folder} holds no pictures (looked for {', '.join(EXTENSIONS)}).")
    pictures = [_read_picture(path, size) for path in track(paths, f"reading {folder.name}", progress)]
    colour = any(picture.shape[0] == 3 for picture in pictures)
    pictures = [picture.expand(3, -1, -1) if colour and picture.shape[0] == 1 else picture for picture in pictures]
    first = pictures[0].shape
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape != first:
            raise ImageFormatError(
                f"{path} is {_size(picture)} and {paths[0].name} is {_size(pictures[0])}: a set holds one size. "
                "Give a size to crop and resize to (--resize N)."
            )
    names = tuple(str(path.relative_to(folder)) for path in paths)
    return ImageSet(name=str(folder), storage=torch.stack(pictures), names=names)


def load_array(path: Path) -> ImageSet:
    """Return the images of an `.npy` file, or of an `.npz` that holds `images` (and perhaps `labels`).

    Accepted: `n h w`, `n h w c` or `n c h w` with 1 or 3 channels, uint8 or bool, or floats in [0, 1].

    Raises:
        MissingPathError: no such file.
        ImageFormatError: not readable without unpickling, or no array of images in it.
        NonFiniteError: NaN or infinity.
    """
    if not path.is_file():
        raise MissingPathError(f"No file {path}.")
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = (
            {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else {"images": loaded}
        )
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
    if "images" not in arrays:
        candidates = [name for name, array in arrays.items() if array.ndim in (3, 4)]
        if len(candidates) != 1:
            raise ImageFormatError(
                f"{path} must hold an array named 'images'; it holds {', '.join(sorted(arrays)) or 'nothing'}."
            )
        arrays["images"] = arrays[candidates[0]]
    labels = arrays.get("labels")
    images = _as_images(arrays["images"], path)
    if labels is not None and labels.shape != (images.shape[0],):
        raise ImageFormatError(f"{path}: labels have shape {labels.shape}, expected ({images.shape[0]},), one an image.")
    if labels is not None and not (labels.dtype == np.bool_ or np.issubdtype(labels.dtype, np.integer)):
        raise ImageFormatError(f"{path}: labels must be whole class numbers, got {labels.dtype}. Number the classes first.")
    return ImageSet(
        name=str(path), storage=images, labels=None if labels is None else torch.from_numpy(labels.astype(np.int64))
    )


def _as_images(array: np.ndarray, path: Path) -> Tensor:
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


def _read_picture(path: Path, size: int | None) -> Tensor:
    try:
        with Image.open(path) as opened:
            turned = ImageOps.exif_transpose(opened)
            mode = "L" if turned.mode in _GREY_MODES else "RGB"
            if turned.mode in ("I", "I;16", "F"):
                raise ImageFormatError(f"{path} has 16 or more bits a pixel; convert it to 8 bits first.")
            picture = turned.convert(mode)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as failure:
        raise ImageFormatError(f"{path} cannot be read as a picture ({failure}). Remove or repair it.") from failure
    if size is not None:
        picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BICUBIC)
    array = np.asarray(picture, dtype=np.uint8)
    return torch.from_numpy(array.copy()).reshape(array.shape[0], array.shape[1], -1).permute(2, 0, 1)


def _size(picture: Tensor) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]}"
