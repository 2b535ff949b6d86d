"""A model for a verb: loaded, and moved to the device asked for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latlas.models.protocols import LatentModel


def model_on(spec: str, device: str) -> "LatentModel":
    """Return the model of a spec on a device.

    Raises:
        MissingPathError, UnknownNameError, ArtifactError, SettingError: as their names say.
    """
    from torch import nn

    from latlas.models.loading import load_model
    from latlas.training.precision import choose_device

    place = choose_device(device)
    model = load_model(spec)
    return model.to(place) if isinstance(model, nn.Module) else model
