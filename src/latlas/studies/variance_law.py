"""Mean posterior variance + variance of posterior means = 1, per variable: for which networks, from when on, and where not."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latlas.base.errors import ArtifactError, CapabilityError, IllPosedError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.latents import latent_table
from latlas.models.architectures.architecture import Architecture
from latlas.models.architectures.draw import Draw
from latlas.models.architectures.resnet import ResNet
from latlas.models.architectures.split import Split
from latlas.models.protocols import LatentModel
from latlas.numerics.posteriors import mean_by_channel
from latlas.studies.budgets import Budget, as_budget
from latlas.studies.kept_trainings import kept_training
from latlas.studies.sparsity import SETTINGS as SPARSITY
from latlas.studies.sparsity import trained

BOUND = 0.05  # of 1: within which the mean over variables is called in agreement
FAR = 0.1  # of 1: a variable beyond it is told by name
UNSETTLED = 0.02  # change of a variable's sum over the last quarter of a training, from where it is called under way still
# The rest of the family, small. Dense and convolutional nets are those of the `sparsity` study.
OTHERS: Mapping[str, Architecture] = {
    "draw": Draw(steps=4, latent=4, hidden=128, attention=False),
    "resnet": ResNet(base_dim=8, fc_dim=128, latent=16),
    "split": Split(base_dim=8, fc_dim=128, latent=16),
}


@dataclass(frozen=True, kw_only=True)
class LawVariable:
    """One latent variable (channel) of one model."""

    variable: int
    active: bool
    variance_of_means: float
    mean_posterior_variance: float
    squared_mean: float  # of the posterior means over images: what the law takes to be 0

    @property
    def total(self) -> float:
        """The sum that the law says is 1."""
        return self.variance_of_means + self.mean_posterior_variance

    @property
    def scale(self) -> float:
        """The same with the mean's square: mean of mu^2 + sigma^2, which is 1 exactly where the scale is stationary."""
        return self.total + self.squared_mean

    @property
    def cost_nats(self) -> float:
        """What the wrong scale costs: KL that rescaling the variable by `scale`^(-1/2) would save.

        For codes scaled by c the mean KL is (c^2 S - log c^2 - mean log sigma^2 - 1) / 2 with S the mean of mu^2 + sigma^2;
        at c = 1 less its least value, at c^2 = 1 / S, that is (S - 1 - log S) / 2. Of second order in S - 1: a sum of 1.4
        costs 0.03 nats, and so little pulls it back.
        """
        return 0.5 * (self.scale - 1.0 - math.log(self.scale)) if self.scale > 0 else math.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class VarianceLawPoint:
    """The law of one model on one image set."""

    model: str
    family: str
    images: str
    variables: list[LawVariable]
    positions: int  # of each channel of a spatial latent space; 1 of a vector
    history: list[list[float]]  # the sum of each variable after each epoch, as training saw it; empty: not known

    @property
    def mean(self) -> float:
        """Mean of the sums over variables."""
        return statistics.mean(variable.total for variable in self.variables)

    def mean_of(self, *, active: bool) -> float | None:
        """Mean over the active variables, or over the collapsed ones; None where there is none."""
        totals = [variable.total for variable in self.variables if variable.active is active]
        return statistics.mean(totals) if totals else None

    @property
    def low(self) -> float:
        """Smallest sum."""
        return min(variable.total for variable in self.variables)

    @property
    def high(self) -> float:
        """Largest sum."""
        return max(variable.total for variable in self.variables)

    @property
    def agrees(self) -> bool:
        """Whether the mean lies within `BOUND` of 1."""
        return abs(self.mean - 1.0) <= BOUND

    @property
    def far(self) -> list[LawVariable]:
        """Variables beyond `FAR`, the farthest first."""
        beyond = [variable for variable in self.variables if abs(variable.total - 1.0) > FAR]
        return sorted(beyond, key=lambda variable: -abs(variable.total - 1.0))

    @property
    def cost_nats(self) -> float:
        """What all wrong scales together cost."""
        return self.positions * sum(variable.cost_nats for variable in self.variables)

    @property
    def drift(self) -> float | None:
        """Largest change of a sum over the last quarter of the training; None where the history is not known."""
        if len(self.history) < 4:
            return None
        before, after = self.history[-1 - max(len(self.history) // 4, 1)], self.history[-1]
        return max(abs(late - early) for early, late in zip(before, after, strict=True))

    @property
    def causes(self) -> list[str]:
        """Why sums are far from 1, as far as the numbers tell; empty where none is far."""
        if not self.far:
            return []
        found = []
        shifted = [variable for variable in self.far if abs(variable.scale - 1.0) <= abs(variable.total - 1.0) / 2]
        if shifted:
            names = ", ".join(str(variable.variable) for variable in shifted)
            found.append(f"the means of variable {names} are not centred: with their squared mean the sum is near 1")
        if self.drift is not None and self.drift > UNSETTLED:
            found.append(f"the training had not settled: sums moved by up to {self.drift:.2f} in its last quarter")
        found.append(f"the right scales would save {self.cost_nats:.2g} nats of KL in all")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "model": self.model,
                "family": self.family,
                "images": self.images,
                "positions": self.positions,
                "mean": self.mean,
                "mean_active": self.mean_of(active=True),
                "mean_collapsed": self.mean_of(active=False),
                "low": self.low,
                "high": self.high,
                "agrees": self.agrees,
                "far": [variable.variable for variable in self.far],
                "cost_nats": self.cost_nats,
                "drift": self.drift,
                "causes": self.causes,
                "variables": [
                    {**vars(v), "total": v.total, "scale": v.scale, "cost_nats": v.cost_nats} for v in self.variables
                ],
                "history": self.history,
            }
        )
        return record


@dataclass(frozen=True, kw_only=True, eq=False)
class VarianceLawStudy:
    """The law over several models."""

    points: list[VarianceLawPoint]
    provenance: Provenance

    @property
    def agreeing(self) -> int:
        """Models whose mean over variables lies within `BOUND` of 1."""
        return sum(point.agrees for point in self.points)

    @property
    def families(self) -> list[str]:
        """Families, in the order in which they came."""
        return list(dict.fromkeys(point.family for point in self.points))

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "bound": BOUND,
                "agreeing": self.agreeing,
                "of": len(self.points),
                "points": [point.to_json() for point in self.points],
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def variance_law_point(
    model: LatentModel,
    images: ImageSet,
    *,
    family: str | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    progress: Progress = silent,
) -> VarianceLawPoint:
    """Return the law of one model on images.

    Args:
        model: encodes, with posterior variances.
        images: of its image shape.
        family: what to count it as; None for its architecture's name, or "other".
        history: of its training, one record an epoch, as `TrainedVAE.history`.
        progress: told throughout.

    Raises:
        CapabilityError: the model has no encoder, or one without posterior variances.
        ImageFormatError: images of another shape.
        IllPosedError: fewer than two images.
    """
    if len(images) < 2:
        raise IllPosedError(
            f"The variance law is of how codes vary over images, and {images.name} has {len(images)}. Give more."
        )
    encoding = encode(model, images, progress=progress)
    if encoding.log_variance is None:
        raise CapabilityError(
            f"{model.name} has no posterior variances, which the variance law is about: its encoder is deterministic. "
            "Give a VAE."
        )
    moments = encoding.moments()
    table = latent_table(moments)
    squared_mean = mean_by_channel(moments.means.mean.square())
    return VarianceLawPoint(
        model=model.name,
        family=family if family is not None else getattr(getattr(model, "architecture", None), "name", "other"),
        images=images.name,
        variables=[
            LawVariable(
                variable=index,
                active=bool(table.active[index]),
                variance_of_means=float(table.variance_of_means[index]),
                mean_posterior_variance=float(table.mean_posterior_variance[index]),
                squared_mean=float(squared_mean[index]),
            )
            for index in range(len(table))
        ],
        positions=math.prod(encoding.latent_shape[1:]),
        history=[(torch.tensor(e["variance_of_means"]) + torch.tensor(e["mean_posterior_variance"])).tolist() for e in history],
    )


def variance_law_study(points: Sequence[VarianceLawPoint], *, provenance: Provenance | None = None) -> VarianceLawStudy:
    """Return the study of these points.

    Raises:
        IllPosedError: there is none.
    """
    if not points:
        raise IllPosedError("The variance law needs at least one model. Give some.")
    return VarianceLawStudy(
        points=list(points), provenance=provenance if provenance is not None else Provenance(made_by="variance_law_study")
    )


@dataclass(frozen=True, kw_only=True)
class LawSettings:
    """How much is trained: dense and convolutional nets as in the `sparsity` study, the others on fewer images."""

    seeds: int  # of the dense and the convolutional net
    others: tuple[str, ...]  # of OTHERS
    images: int  # that the others are trained on
    epochs: int  # of the others
    measured: int


SETTINGS: Mapping[Budget, LawSettings] = {
    "quick": LawSettings(seeds=1, others=("draw",), images=6_000, epochs=8, measured=2_000),
    "paper": LawSettings(seeds=5, others=tuple(OTHERS), images=12_000, epochs=12, measured=10_000),
}


def run(
    budget: str,
    seed: int = 0,
    progress: Progress = silent,
    *,
    others: Sequence[str] | None = None,
    more: Sequence[VarianceLawPoint] = (),
    work: Path | None = None,
    device: str = "auto",
) -> VarianceLawStudy:
    """Train the family of VAEs on digits at a budget, and measure the law on each, over training time and at its end.

    Args:
        budget: "quick" or "paper".
        seed: decides everything random.
        progress: told throughout.
        others: networks of `OTHERS` beside the dense and the convolutional one; None for those of the budget.
        more: points of models trained elsewhere, to stand beside these.
        work: folder to keep trainings in, and to take them from; those of the `sparsity` study serve here too.
        device: as in `train_vae`.

    Raises:
        UnknownNameError: no such budget, or no such network.
        DataUnavailableError: the digits cannot be had.
    """
    size = as_budget(budget)
    settings, shared = SETTINGS[size], SPARSITY[size]
    rest = settings.others if others is None else others
    for network in rest:
        if network not in OTHERS:
            raise unknown_name("network of this study", network, OTHERS)
    whole = load_images("mnist:train", progress=progress)
    images = whole.slice(0, shared.images)
    points = []
    for network in ("dense", "conv"):
        for number in range(settings.seeds):
            done = trained(
                images,
                data="mnist",
                network=network,
                term="kl",
                number=number,
                epochs=shared.epochs[network],
                seed=seed,
                work=work,
                device=device,
                progress=progress,
            )
            points.append(variance_law_point(done.model, images.slice(0, settings.measured), history=done.history))
    few = whole.slice(0, settings.images)
    for network in rest:
        done = kept_training(
            few,
            OTHERS[network],
            name=f"mnist-{network}-law",
            work=work,
            epochs=settings.epochs,
            seed=seed,
            device=device,
            progress=progress,
        )
        points.append(variance_law_point(done.model, few.slice(0, settings.measured), history=done.history))
    provenance = Provenance(
        made_by="variance_law_study", seed=seed, made_from={"images": whole.content_hash}, settings=plain(settings)
    )
    return variance_law_study([*points, *more], provenance=provenance)


def history_of(folder: Path) -> list[dict[str, Any]]:
    """Return the history that a training left in its folder; empty where it left none.

    Raises:
        ArtifactError: it is damaged.
    """
    path = folder / "run" / "history.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except (OSError, ValueError, RecursionError) as failure:
        raise ArtifactError(f"{path} is damaged ({type(failure).__name__}). Train again into another folder.") from failure
