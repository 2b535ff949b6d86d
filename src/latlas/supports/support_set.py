"""The SupportSet value: few images, far apart, that cover the main factors of variation."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import FOLDER, Card, write_card
from latlas.base.errors import ArtifactError, LatlasError
from latlas.base.hub import Pushable, resolve
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance, tensor_hash
from latlas.base.records import plain
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.models.protocols import LatentModel
from latlas.supports.sectors import Sectors

KIND = "support-set"
_TENSORS = "support.safetensors"
_LISTED = 5  # changed images that an error names


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Which members a set of images still holds as they were chosen."""

    unchanged: tuple[str, ...]  # names
    changed: tuple[str, ...]  # there, with other pixels (or as another type of number)
    missing: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every member is there, unchanged."""
        return not self.changed and not self.missing


@dataclass(frozen=True, kw_only=True, eq=False)
class SupportSet(Pushable):
    """The members, where they came from, and the sectors that they stand for."""

    images: ImageSet  # the members themselves, with their names
    indices: Tensor  # of each member in the set it was chosen from
    codes: Tensor  # of each member, in the space of the model that chose
    sector: Tensor  # of each member; -1 of one that another rule than by sectors chose within the threshold
    sectors: Sectors
    occupancy: Tensor  # codes of the whole set in each sector, at the threshold
    model: str
    chosen_from: str  # name of the image set
    provenance: Provenance = field(default_factory=lambda: Provenance(made_by="build_support_set"))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return (
            f"<SupportSet of {len(self):,} images of {self.chosen_from!r} by {self.model!r}: {self.inhabited} sectors inhabited; "
            ".images, .indices, .member_names>"
        )

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """The SHA-256 of each member's pixels, as `latlas.base.provenance.tensor_hash` takes it of a tensor c x h x w."""
        return tuple(tensor_hash(image) for image in self.images.storage)

    @property
    def member_names(self) -> tuple[str, ...]:
        """The file of each member, or its number in the set it was chosen from."""
        return self.images.names or tuple(f"#{index}" for index in self.indices.tolist())

    @property
    def inhabited(self) -> int:
        """Sectors that hold at least one image."""
        return int((self.occupancy > 0).sum())

    def to_json(self) -> dict[str, Any]:
        """Return which images, by name, number and hash, and the sectors that they stand for."""
        record: dict[str, Any] = plain(
            {
                "members": self.indices,
                "names": self.member_names,
                "hashes": self.hashes,
                "sector": self.sector,
                "variables": self.sectors.variables,
                "threshold": self.sectors.threshold,
                "centre": self.sectors.centre,
                "scale": self.sectors.scale,
                "sectors": self.sectors.count,
                "inhabited": self.inhabited,
                "occupancy": self.occupancy,
                "settings": self.provenance.settings,
            }
        )
        return record

    def verify(self, images: ImageSet) -> Verification:
        """Compare the pixels of images with the members': each is looked up by its name, or by its number where there are none.

        Args:
            images: what the members were chosen from, as it is now.
        """
        places = {name: place for place, name in enumerate(images.names)}
        found: dict[str, list[str]] = {"unchanged": [], "changed": [], "missing": []}
        for name, index, known in zip(self.member_names, self.indices.tolist(), self.hashes, strict=True):
            place = places.get(name) if self.images.names and places else index if index < len(images) else None
            if place is None:
                found["missing"].append(name)
            else:
                found["unchanged" if tensor_hash(images.storage[place]) == known else "changed"].append(name)
        return Verification(**{state: tuple(names) for state, names in found.items()})

    def require_unchanged(self, images: ImageSet) -> None:
        """Raise unless images still hold every member as it was chosen.

        Raises:
            ArtifactError: some are not there, or not what their hashes say; names the first.
        """
        verified = self.verify(images)
        for names, state in ((verified.missing, "are not there"), (verified.changed, "are no longer what their hashes say")):
            if names:
                more = ", ..." if len(names) > _LISTED else ""
                raise ArtifactError(
                    f"Of the {len(self)} members of the Support Set of {self.chosen_from}, {len(names)} {state} in {images.name}: "
                    f"{', '.join(names[:_LISTED])}{more}. Give the images that it was chosen from, or choose again."
                )

    def apply(self, model: LatentModel, *, progress: Progress = silent) -> Encoding:
        """Return the members as another model sees them, in their order.

        Raises:
            CapabilityError: the model has no encoder.
            ImageFormatError: it takes images of another shape.
        """
        return encode(model, self.images, progress=progress)

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the set as an artifact folder, its images included.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            tensors = {
                "images": self.images.storage,
                "indices": self.indices,
                "codes": self.codes,
                "sector": self.sector,
                "occupancy": self.occupancy,
            }
            if self.images.labels is not None:
                tensors["labels"] = self.images.labels
            save_tensors(beside / _TENSORS, tensors)
            settings: dict[str, Any] = {
                "variables": list(self.sectors.variables),
                "threshold": self.sectors.threshold,
                "centre": list(self.sectors.centre),
                "scale": list(self.sectors.scale),
                "model": self.model,
                "chosen_from": self.chosen_from,
                "names": list(self.images.names),
                "hashes": list(self.hashes),
                "factors": {name: list(values) for name, values in (self.images.factors or {}).items()},
            }
            write_card(beside, self._card(), self.provenance)
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    def _card(self) -> Card:
        return Card(
            title=f"Support Set of {self.chosen_from}",
            summary=(
                f"{len(self)} images of `{self.chosen_from}`, few and far apart, that cover the main factors of variation as "
                f"`{self.model}` sees them: one for each inhabited sector of its latent space."
            ),
            usage=(
                f'from latlas import SupportSet\n\nsupport = SupportSet.from_pretrained("{FOLDER}")\n'
                "images = support.images.tensor()  # n x c x h x w, in [0, 1]\n"
                "indices = support.indices  # of each in the set that it was chosen from"
            ),
            kind=KIND,
            facts={
                "images": len(self),
                "chosen from": self.chosen_from,
                "model": self.model,
                "sectors": len(self.occupancy),
                "inhabited": self.inhabited,
                "variables": self.sectors.variables,
                "threshold": self.sectors.threshold,
            },
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "SupportSet":
        """Read what `save_pretrained` wrote: a folder, or a Hub id.

        Raises:
            MissingPathError, ArtifactError: no such artifact, or a damaged one.
            HubError: a Hub id, and the Hub could not be reached.
        """
        folder = resolve(folder)
        config = read_config(folder, kind=KIND)
        tensors = load_tensors(Path(folder) / _TENSORS)
        settings = config["settings"]
        try:
            factors = settings.get("factors", {})  # these three are of later versions
            hashes = settings.get("hashes")
            scale = tuple(settings.get("scale", ()))
            if not all(isinstance(name, str) for name in settings["names"]):
                raise TypeError("its names are no texts")
            if hashes is not None and not isinstance(hashes, list):
                raise TypeError("its hashes are no list")
            loaded = cls(
                images=ImageSet(
                    name=f"Support Set of {settings['chosen_from']}",
                    storage=tensors["images"],
                    labels=tensors.get("labels"),
                    names=tuple(settings["names"]),
                    factors={name: tuple(values) for name, values in factors.items()} or None,
                ),
                indices=tensors["indices"],
                codes=tensors["codes"],
                sector=tensors["sector"],
                sectors=Sectors(
                    variables=tuple(settings["variables"]),
                    threshold=float(settings["threshold"]),
                    centre=tuple(settings["centre"]),
                    scale=scale,
                ),
                occupancy=tensors["occupancy"],
                model=settings["model"],
                chosen_from=settings["chosen_from"],
                provenance=Provenance.from_json(config["provenance"]),
            )
            counts = {len(part) for part in (loaded.indices, loaded.codes, loaded.sector)}
            if counts != {len(loaded)} or len(loaded.occupancy) != loaded.sectors.count:
                raise ValueError("its parts are of different lengths")
        except KeyError as failure:
            raise ArtifactError(f"{folder} is not a readable Support Set (no {failure}). Build it again.") from failure
        except (*MISFITS, LatlasError) as failure:
            raise ArtifactError(f"{folder} is not a readable Support Set ({failure}). Build it again.") from failure
        if hashes is not None and list(loaded.hashes) != hashes:
            wrong = [name for name, now, was in zip(loaded.member_names, loaded.hashes, hashes, strict=False) if now != was]
            raise ArtifactError(
                f"{folder} is damaged: images of the Support Set are no longer what their hashes say "
                f"({', '.join(wrong[:_LISTED]) or 'another number of them'}). Build it again."
            )
        return loaded
