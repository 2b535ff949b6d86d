"""What every network of ours shares that lives as an artifact: a fingerprint, a folder with a card, the Hub, and the way back."""

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import Card, write_card
from latlas.base.errors import ArtifactError, LatlasError, MissingExtraError
from latlas.base.hub import Pushable, resolve
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.shapes import ImageShape

WEIGHTS = "model.safetensors"
_MOST_REGISTERED = 4  # parameters that building may register for each of the file: absent biases count, and replaced ones

Network = TypeVar("Network", bound="PretrainedNetwork")


class PretrainedNetwork(nn.Module, Pushable):
    """A network that saves itself as an artifact folder, and can be pushed to the Hub."""

    kind: ClassVar[str]  # of its artifacts
    provenance: Provenance | None  # what it was trained from; None before training

    @abstractmethod
    def settings_to_json(self) -> dict[str, Any]:
        """Return what rebuilds it, beside its weights."""

    @abstractmethod
    def card(self) -> Card:
        """Return what its model card says."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return tensor_hash(*self.state_dict().values())

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the network as an artifact folder.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            self.write_files(beside)

    def write_files(self, folder: Path) -> None:
        """Write weights, card and config into a folder that `writing` gave."""
        save_tensors(folder / WEIGHTS, self.state_dict())
        provenance = self.provenance if self.provenance is not None else Provenance(made_by=type(self).__name__)
        write_card(folder, self.card(), provenance)
        write_config(folder, kind=self.kind, settings=self.settings_to_json(), provenance=provenance)


def read_pretrained(
    folder: str | Path, build: Callable[[Mapping[str, Any], Provenance], Network], *, kind: str, called: str
) -> Network:
    """Read what `save_pretrained` wrote: its folder, or its Hub id. The network comes in evaluation mode.

    Args:
        folder: the artifact.
        build: makes the network of its settings and provenance; the weights are put into it afterwards.
        kind: of the artifact.
        called: what errors call it: "model".

    Raises:
        MissingPathError, ArtifactError: no such artifact, or a damaged one.
        MissingExtraError: it needs a package that is not installed.
        HubError: a Hub id, and the Hub could not be reached.
    """
    place = resolve(folder)
    config = read_config(place, kind=kind)
    try:
        provenance, weights = Provenance.from_json(config["provenance"]), load_tensors(place / WEIGHTS)
        # Hollow first: a config that asks for more than its weights are is refused before it has cost memory or hours.
        with bounded_parameters(_MOST_REGISTERED * len(weights) + _MOST_REGISTERED), torch.device("meta"):
            hollow = build(config["settings"], provenance)
        hollow.load_state_dict(weights, assign=True)
        network = build(config["settings"], provenance)
        network.load_state_dict(weights)
    except MISFITS as failure:
        reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise ArtifactError(f"{folder} is not a {called} that this latlas can rebuild ({reason}). Train it again.") from failure
    except MissingExtraError:
        raise  # the folder is sound
    except LatlasError as failure:
        raise ArtifactError(f"{folder} is not a {called} that this latlas can rebuild: {failure}") from failure
    network.eval()
    return network


@contextmanager
def bounded_parameters(most: int) -> Iterator[None]:
    """Raise a ValueError once this thread has given modules more than `most` parameters."""
    thread, given = threading.get_ident(), 0

    def count(*_: Any) -> None:
        nonlocal given
        given += threading.get_ident() == thread
        if given > most:
            raise ValueError(f"it has more than {most:,} parameters, and its weights are of fewer")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def shape_of_images(record: Any) -> ImageShape:
    """Return an image shape as JSON has it: channels, height, width.

    Raises:
        TypeError, ValueError: it is none.
    """
    channels, height, width = (int(size) for size in record)
    return channels, height, width


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as cards show it.

    >>> shape_text((3, 64, 64))
    '3 x 64 x 64'
    """
    return " x ".join(map(str, shape))
