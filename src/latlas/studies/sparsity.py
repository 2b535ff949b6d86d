"""How many latent variables collapse: dense and convolutional nets, several seeds, with the KL term and without it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latlas.base.errors import unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import derived_seed, generator
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.measurements.collapse_rules import collapsed_at_any_scale, information_share, rules_agree
from latlas.measurements.latents import silence
from latlas.measurements.reconstruction import decode_batches, squared_error_per_pixel
from latlas.models.architectures.architecture import Architecture
from latlas.models.architectures.conv import Conv
from latlas.models.architectures.dense import Dense
from latlas.models.protocols import Decoder
from latlas.studies.budgets import Budget, as_budget
from latlas.studies.diagnose import Diagnosis, diagnose
from latlas.studies.kept_trainings import PUBLISHED_OBJECTIVE, Training, kept_training
from latlas.training.objectives import LATENT_TERMS

DATA = ("mnist", "fashion-mnist")
# The dense one is the posts'. Of the convolutional one they show a picture and no list of layers: this is ours, small.
NETWORKS: Mapping[str, Architecture] = {
    "dense": Dense(widths=(256, 64, 32), latent=16),
    "conv": Conv(channels=(8, 16, 32), latent=16),
}


@dataclass(frozen=True, kw_only=True)
class SparsitySettings:
    """How much is trained and measured."""

    images: int | None  # of each training set, the first so many; None: all
    epochs: Mapping[str, int]  # by network
    seeds: int  # trainings with the KL term, of each network and data set
    controls: int  # the same without it, and with the quadratic penalty alone
    measured: int  # training images that every variable is measured on
    data: tuple[str, ...] = DATA


SETTINGS: Mapping[Budget, SparsitySettings] = {
    "quick": SparsitySettings(
        images=20_000, epochs={"dense": 20, "conv": 12}, seeds=2, controls=1, measured=2_000, data=("mnist",)
    ),
    "paper": SparsitySettings(images=None, epochs={"dense": 30, "conv": 15}, seeds=5, controls=3, measured=10_000),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class SparsityRun:
    """One training, and each of its variables."""

    data: str
    network: str
    term: str  # of LATENT_TERMS
    number: int  # of the seed, from 0
    diagnosis: Diagnosis
    history: list[dict[str, Any]]  # one record an epoch

    @property
    def name(self) -> str:
        """What the training is called."""
        return run_name(self.data, self.network, self.term, self.number)

    @property
    def shares(self) -> list[float]:
        """Share of each variable's variance that tells images apart."""
        return information_share(self.diagnosis.latents).tolist()

    @property
    def collapsed(self) -> int:
        """Collapsed variables: by Burda's threshold where the KL term fixes the scale, else by the same at any scale."""
        return int((~self.diagnosis.latents.active).sum()) if self.term == "kl" else self.collapsed_at_any_scale

    @property
    def collapsed_at_any_scale(self) -> int:
        """Variables whose samples tell next to nothing of the image, whatever the scale of the code."""
        return int(collapsed_at_any_scale(self.diagnosis.latents).sum())

    @property
    def collapsed_by_rule(self) -> dict[str, int]:
        """Collapsed variables by each published rule."""
        return {rule: int(marked.sum()) for rule, marked in self.diagnosis.latents.collapsed_by_rule.items()}

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        table = [{**row, "information_share": share} for row, share in zip(self.diagnosis.table, self.shares, strict=True)]
        record: dict[str, Any] = plain(
            {
                "name": self.name,
                "data": self.data,
                "network": self.network,
                "term": self.term,
                "seed": self.number,
                "collapsed": self.collapsed,
                "collapsed_by_rule": self.collapsed_by_rule,
                "collapsed_at_any_scale": self.collapsed_at_any_scale,
                "rules_agree": rules_agree(self.diagnosis.latents),
                "loss": self.history[-1]["loss"],
                "summary": self.diagnosis.summary,
                "table": table,
                "variance_of_means": [epoch["variance_of_means"] for epoch in self.history],
            }
        )
        return record


@dataclass(frozen=True, kw_only=True)
class Count:
    """Collapsed variables over the seeds of one network, data set and latent term."""

    data: str
    network: str
    term: str  # of LATENT_TERMS
    collapsed: tuple[int, ...]  # one a seed

    @property
    def mean(self) -> float:
        """Average over seeds."""
        return sum(self.collapsed) / len(self.collapsed)

    @property
    def spread(self) -> int:
        """Largest less smallest."""
        return max(self.collapsed) - min(self.collapsed)


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedDigits:
    """Images of codes drawn from the prior, and of the same codes with the collapsed variables at 0."""

    model: str
    whole: Tensor  # n c h w
    silenced: Tensor
    squared_difference: float  # per pixel, over all that were drawn
    silenced_collapsed: int  # variables at 0 in `silenced`
    silenced_active: int  # the least informative active ones, set to 0 instead: as many, or all where fewer are active
    active_squared_difference: float  # what that makes of it: what `squared_difference` is to be read by
    largest_difference: float  # of any pixel


@dataclass(frozen=True, kw_only=True, eq=False)
class SparsityStudy:
    """Collapse over networks, data sets, seeds and latent terms."""

    runs: list[SparsityRun]
    generated: list[GeneratedDigits]  # of the first seed of each network and data set in which something collapsed
    settings: SparsitySettings
    provenance: Provenance

    def of(self, data: str, network: str, term: str) -> list[SparsityRun]:
        """Return the trainings of one cell, by seed."""
        return [run for run in self.runs if (run.data, run.network, run.term) == (data, network, term)]

    @property
    def counts(self) -> list[Count]:
        """One a cell that was trained."""
        cells = dict.fromkeys((run.data, run.network, run.term) for run in self.runs)
        return [
            Count(data=d, network=n, term=t, collapsed=tuple(run.collapsed for run in self.of(d, n, t))) for d, n, t in cells
        ]

    def fewer(self, data: str) -> tuple[int, int]:
        """Return in how many seeds the convolutional net collapses fewer variables than the dense one, and of how many."""
        pairs = list(zip(self.of(data, "dense", "kl"), self.of(data, "conv", "kl"), strict=True))
        return sum(conv.collapsed < dense.collapsed for dense, conv in pairs), len(pairs)

    def to_json(self) -> dict[str, Any]:
        """Return every number."""
        record: dict[str, Any] = plain(
            {
                "settings": self.settings,
                "counts": [{**vars(count), "mean": count.mean, "spread": count.spread} for count in self.counts],
                "convolutional_collapses_fewer": {
                    data: dict(zip(("seeds", "of"), self.fewer(data), strict=True)) for data in self.settings.data
                },
                "generated": [
                    {
                        "model": each.model,
                        "squared_difference": each.squared_difference,
                        "silenced_collapsed": each.silenced_collapsed,
                        "silenced_active": each.silenced_active,
                        "active_squared_difference": each.active_squared_difference,
                        "largest_difference": each.largest_difference,
                    }
                    for each in self.generated
                ],
                "runs": [run.to_json() for run in self.runs],
                "provenance": self.provenance.to_json(),
            }
        )
        return record


def run(
    budget: str,
    seed: int = 0,
    progress: Progress = silent,
    *,
    data: tuple[str, ...] | None = None,
    work: Path | None = None,
    device: str = "auto",
) -> SparsityStudy:
    """Run the study at a budget: "paper" is 60,000 images of each data set and five seeds.

    Args:
        budget: "quick" or "paper".
        seed: decides everything random; the trainings of one cell are numbered from 0 under it.
        progress: told throughout.
        data: sets of `DATA`; None for those of the budget.
        work: folder to keep trainings in, and to take them from.
        device: as in `train_vae`.

    Raises:
        UnknownNameError: no such budget, or no such data set.
        DataUnavailableError: a data set cannot be had.
    """
    settings = SETTINGS[as_budget(budget)]
    for name in data or ():
        if name not in DATA:
            raise unknown_name("data set of this study", name, DATA)
    settings = settings if not data else replace(settings, data=tuple(dict.fromkeys(data)))
    return study_sparsity(settings, seed=seed, work=work, device=device, progress=progress)


def study_sparsity(
    settings: SparsitySettings, *, seed: int = 0, work: Path | None = None, device: str = "auto", progress: Progress = silent
) -> SparsityStudy:
    """Train every network on every data set, with each latent term, and look at every variable.

    Args:
        settings: how much.
        seed: decides everything random.
        work: folder to keep trainings in, and to take them from.
        device: as in `train_vae`.
        progress: told throughout.

    Raises:
        DataUnavailableError: a data set cannot be had.
    """
    runs, generated, hashes = [], [], {}
    for data in settings.data:
        images = load_images(f"{data}:train", progress=progress).slice(0, settings.images)
        measured = images.slice(0, settings.measured)
        hashes[data] = images.content_hash
        for network in NETWORKS:
            for term in LATENT_TERMS:
                for number in range(settings.seeds if term == "kl" else settings.controls):
                    done = trained(
                        images,
                        data=data,
                        network=network,
                        term=term,
                        number=number,
                        epochs=settings.epochs[network],
                        seed=seed,
                        work=work,
                        device=device,
                        progress=progress,
                    )
                    diagnosis = diagnose(done.model, measured, progress=progress)
                    runs.append(
                        SparsityRun(
                            data=data, network=network, term=term, number=number, diagnosis=diagnosis, history=done.history
                        )
                    )
                    if term == "kl" and number == 0:
                        found = generated_digits(done.model, ~diagnosis.latents.active, diagnosis.gain.order(), seed=seed)
                        generated += [] if found is None else [found]
    provenance = Provenance(made_by="study_sparsity", seed=seed, made_from=hashes, settings=plain(settings))
    return SparsityStudy(runs=runs, generated=generated, settings=settings, provenance=provenance)


def run_name(data: str, network: str, term: str, number: int) -> str:
    """Return what a training is called, in reports and on the disk."""
    return f"{data}-{network}-{term}-{number}"


def trained(
    images: ImageSet,
    *,
    data: str,
    network: str,
    term: str,
    number: int,
    epochs: int,
    seed: int,
    work: Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Training:
    """Return one training of the study, from `work` where it is kept: the same for every study that asks for it."""
    return kept_training(
        images,
        NETWORKS[network],
        name=run_name(data, network, term, number),
        work=work,
        objective=replace(PUBLISHED_OBJECTIVE, latent_term=term),
        epochs=epochs,
        # Not of the term: with and without it, a training starts from the same weights and sees the same order.
        seed=derived_seed(seed, "sparsity", data, network, number),
        device=device,
        progress=progress,
    )


def generated_digits(
    model: Decoder, collapsed: Tensor, by_gain: list[int], *, drawn: int = 1000, shown: int = 12, seed: int = 0
) -> GeneratedDigits | None:
    """Return images of random codes, whole and with the collapsed variables at 0; None where none has collapsed.

    Args:
        model: decodes.
        collapsed: bool a variable.
        by_gain: variables from the most informative to the least.
        drawn: codes that the differences are taken over.
        shown: images to keep.
        seed: of the codes.
    """
    count = int(collapsed.sum())
    if count == 0:
        return None
    codes = torch.randn(drawn, *model.latent_shape, generator=generator(seed, "generated"))
    active = [variable for variable in by_gain if not bool(collapsed[variable])]
    others = torch.zeros_like(collapsed)
    others[active[-count:]] = True  # the least informative ones: the mildest comparison there is
    kinds = (codes, silence(codes, collapsed), silence(codes, others))
    whole, silenced, other = (torch.cat(list(decode_batches(model, kind))) for kind in kinds)
    return GeneratedDigits(
        model=model.name,
        whole=whole[:shown].clone(),
        silenced=silenced[:shown].clone(),
        squared_difference=float(squared_error_per_pixel(whole, silenced).mean()),
        silenced_collapsed=count,
        silenced_active=int(others.sum()),
        active_squared_difference=float(squared_error_per_pixel(whole, other).mean()),
        largest_difference=float((whole - silenced).abs().max()),
    )
