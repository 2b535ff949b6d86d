"""The SupportSet value: few images, far apart, that cover the main factors of variation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from latlas.base.artifacts import load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import FOLDER, Card, write_card
from latlas.base.errors import ArtifactError
from latlas.base.hub import Pushable, resolve
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.supports.sectors import Sectors

KIND = "support-set"
_TENSORS = "support.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class SupportSet(Pushable):
    """The members, where they came from, and the sectors that they stand for."""

    images: ImageSet  # the members themselves, with their names
    indices: Tensor  # of each member in the set it was chosen from
    codes: Tensor  # of each member, in the space of the model that chose
    sector: Tensor  # of each member
    sectors: Sectors
    occupancy: Tensor  # codes of the whole set in each sector, at the threshold
    model: str
    chosen_from: str  # name of the image set
    provenance: Provenance = field(default_factory=lambda: Provenance(made_by="build_support_set"))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def inhabited(self) -> int:
        """Sectors that hold at least one image."""
        return int((self.occupancy > 0).sum())

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
                "model": self.model,
                "chosen_from": self.chosen_from,
                "names": [self.images.names[i] for i in range(len(self))] if self.images.names else [],
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
            return cls(
                images=ImageSet(
                    name=f"Support Set of {settings['chosen_from']}",
                    storage=tensors["images"],
                    labels=tensors.get("labels"),
                    names=tuple(settings["names"]),
                ),
                indices=tensors["indices"],
                codes=tensors["codes"],
                sector=tensors["sector"],
                sectors=Sectors(
                    variables=tuple(settings["variables"]),
                    threshold=float(settings["threshold"]),
                    centre=tuple(settings["centre"]),
                ),
                occupancy=tensors["occupancy"],
                model=settings["model"],
                chosen_from=settings["chosen_from"],
                provenance=Provenance.from_json(config["provenance"]),
            )
        except KeyError as failure:
            raise ArtifactError(f"{folder} is not a readable Support Set (no {failure}). Build it again.") from failure
