"""The Sampler value: a fitted density of codes that draws new ones, kept as tensors and plain settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from latlas.base.artifacts import MISFITS, load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.cards import FOLDER, Card, write_card
from latlas.base.errors import ArtifactError, CodeShapeError, SettingError
from latlas.base.hub import Pushable, resolve
from latlas.base.provenance import UNSTATED, Provenance
from latlas.base.shapes import LatentShape, Rows
from latlas.models.protocols import LatentModel

KIND = "sampler"
_TENSORS = "sampler.safetensors"


@runtime_checkable
class Density(Protocol):
    """A density of flat codes `n d`: draws rows, and gives the tensors and settings that rebuild it."""

    @property
    def kind(self) -> str: ...
    def draw(self, n: int, generator: torch.Generator) -> Rows: ...
    def tensors(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Renormalisation:
    """An affine change of each variable that gives drawn codes the moments of the aggregate posterior.

    By the variance law the aggregate posterior has, per variable, the mean of the posterior means and the variance
    `variance of means + mean posterior variance`. A density that loses variance is stretched back to it (Asperti and
    Trentin 2020, arXiv:2002.07514, section on two-stage sampling; they use one scalar for all variables).
    """

    scale: Tensor  # d
    shift: Tensor  # d

    def apply(self, codes: Rows) -> Rows:
        """Return the codes with the moments of the aggregate posterior."""
        return (codes.double() * self.scale + self.shift).to(codes.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler(Pushable):
    """Draws codes for one latent space.

    `evidence` tells how the fit went; `warnings` what a person must hear of it.
    """

    density: Density
    latent_shape: LatentShape
    model: str  # name of the model whose codes it was fitted on
    renormalisation: Renormalisation | None = None
    variance_ratio: float = 1.0  # mean variance of drawn codes over that of the codes fitted, before renormalisation
    evidence: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=lambda: Provenance(made_by="fit_sampler"))

    @property
    def name(self) -> str:
        """The kind, and whether it is renormalised."""
        return self.density.kind + (", renormalised" if self.renormalisation is not None else "")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return `n` new codes of the latent shape."""
        if n < 1:
            raise SettingError(f"Asked for {n} samples; ask for at least 1.")
        codes = self.density.draw(n, generator).float()
        if self.renormalisation is not None:
            codes = self.renormalisation.apply(codes)
        return codes.view(n, *self.latent_shape)

    def check_fits(self, model: LatentModel) -> None:
        """Raise unless this sampler draws codes of the model's latent space.

        Raises:
            CodeShapeError: it draws codes of another shape, or is known to have been fitted to those of other weights.
        """
        if tuple(model.latent_shape) != tuple(self.latent_shape):
            want, got = ("x".join(map(str, shape)) for shape in (model.latent_shape, self.latent_shape))
            raise CodeShapeError(
                f"This sampler draws codes of shape {got} ({self.model}); {model.name} takes {want}. Fit one for it."
            )
        known = self.provenance.model
        if known is not None and model.fingerprint not in (known, UNSTATED):
            raise CodeShapeError(
                f"This sampler was fitted to codes of {self.model} (weights {known[:12]}), and {model.name} has other weights "
                f"({model.fingerprint[:12]}): the same numbers mean other images there. Fit one for it: latlas calibrate."
            )

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write the sampler as an artifact folder.

        Raises:
            OutputExistsError: the folder already holds something.
        """
        with writing(folder, replace=replace) as beside:
            tensors = {f"density.{name}": tensor for name, tensor in self.density.tensors().items()}
            if self.renormalisation is not None:
                tensors |= {
                    "renormalisation.scale": self.renormalisation.scale,
                    "renormalisation.shift": self.renormalisation.shift,
                }
            save_tensors(beside / _TENSORS, tensors)
            settings: dict[str, Any] = {
                "density": self.density.kind,
                "latent_shape": list(self.latent_shape),
                "model": self.model,
                "variance_ratio": self.variance_ratio,
                "evidence": dict(self.evidence),
                "warnings": list(self.warnings),
            }
            write_card(beside, self._card(), self.provenance)
            write_config(beside, kind=KIND, settings=settings, provenance=self.provenance)

    def _card(self) -> Card:
        shape = " x ".join(map(str, self.latent_shape))
        return Card(
            title=f"Sampler: {self.name}, for {self.model}",
            summary=f"Draws new codes of `{self.model}`, which decodes them into new images.",
            usage=(
                "import torch\n\nfrom latlas.samplers.fit import load_sampler\n\n"
                f'sampler = load_sampler("{FOLDER}")\n'
                f"codes = sampler.sample(64, torch.Generator().manual_seed(0))  # 64 x {shape}\n"
                f"images = model.decode(codes)  # model: the one that the sampler was fitted for"
            ),
            kind=KIND,
            tags=(self.density.kind,),
            facts={
                "density": self.density.kind,
                "renormalised": self.renormalisation is not None,
                "model": self.model,
                "codes": self.latent_shape,
                "variance ratio": self.variance_ratio,
                **self.evidence,
            },
            warnings=self.warnings,
        )


def read_sampler(folder: str | Path, densities: Mapping[str, Any]) -> Sampler:
    """Read what `save_pretrained` wrote.

    Args:
        folder: the artifact, or a Hub id.
        densities: by kind, what rebuilds a density from its tensors.

    Raises:
        MissingPathError, ArtifactError: no such artifact, or a damaged one.
        HubError: a Hub id, and the Hub could not be reached.
    """
    folder = resolve(folder)
    config = read_config(folder, kind=KIND)
    settings = config["settings"]
    tensors = load_tensors(Path(folder) / _TENSORS)
    try:
        inner = {name.removeprefix("density."): tensor for name, tensor in tensors.items() if name.startswith("density.")}
        renormalisation = None
        if "renormalisation.scale" in tensors:
            renormalisation = Renormalisation(scale=tensors["renormalisation.scale"], shift=tensors["renormalisation.shift"])
        return Sampler(
            density=densities[settings["density"]](inner),
            latent_shape=tuple(settings["latent_shape"]),
            model=settings["model"],
            renormalisation=renormalisation,
            variance_ratio=float(settings["variance_ratio"]),
            evidence=settings["evidence"],
            warnings=tuple(settings["warnings"]),
            provenance=Provenance.from_json(config["provenance"]),
        )
    except (*MISFITS, CodeShapeError, SettingError) as failure:
        raise ArtifactError(f"{folder} is not a readable sampler ({failure}). Fit it again.") from failure
