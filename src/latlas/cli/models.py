"""A model for a verb: loaded, and moved to the device asked for."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latlas.models.protocols import LatentModel

_FILES = (".npy", ".npz", ".tar", ".parquet")


def model_on(spec: str, device: str) -> "LatentModel":
    """Return the model of a spec on a device.

    Raises:
        MissingPathError, UnknownNameError, ArtifactError, SettingError: as their names say.
    """
    from torch import nn

    from latlas.base.errors import MissingPathError, SettingError, UnknownNameError
    from latlas.models.loading import load_model
    from latlas.training.precision import choose_device

    place = choose_device(device)
    if not spec.strip():
        raise SettingError("A model was wanted, and what came is empty, as a variable of the shell that is not set.")
    try:
        model = load_model(spec)
    except (MissingPathError, UnknownNameError) as failure:
        if not _names_images(spec):
            raise
        raise SettingError(
            f"{spec} names images, and a model was wanted there. Models come first, the images last."
        ) from failure
    return model.to(place) if isinstance(model, nn.Module) else model


def _names_images(spec: str) -> bool:
    """Return whether a spec that names no model is one of images, as where MODEL and DATA changed places."""
    from latlas.data.avatar_styles import STYLES
    from latlas.data.builtin import BUILTIN_SETS

    scheme = re.split(r"[:?\[]", spec, maxsplit=1)[0]
    return scheme in (*BUILTIN_SETS, *STYLES, "celeba", "hub") or Path(re.split(r"[?\[]", spec, maxsplit=1)[0]).suffix in _FILES
