"""What every GAN's training shares from settings to artifact: seeded, resumable, recorded, and looked at when it ends."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from latlas.base.errors import SettingError
from latlas.base.progress import Progress
from latlas.base.provenance import Provenance
from latlas.base.seeds import derived_seed, generator
from latlas.base.threads import threads_for, using_threads
from latlas.data.images import ImageSet
from latlas.models.architectures.registry import architecture_to_json
from latlas.models.generator import GeneratorArchitecture, GeneratorModel
from latlas.models.given import check_image_set
from latlas.models.protocols import parameter_count
from latlas.numerics.moments import MarginalMoments
from latlas.training.adversarial import AdversarialSchedule, AdversarialTraining
from latlas.training.precision import Precision, choose_device, choose_precision
from latlas.training.resumable import check_out, finished_before, fit_resumable, held_work_folder, publish

logger = logging.getLogger(__name__)

_EPOCHS = 50  # where neither epochs nor steps are given
_COMPARED = 1000  # images and samples whose distances are compared
_COLLAPSED = 0.5  # of the data's mean squared distance between two images: samples below it are too much alike


@dataclass(frozen=True, kw_only=True)
class TrainedGAN:
    """A trained generator and how it came about."""

    model: GeneratorModel  # the average of the weights
    history: list[dict[str, Any]]  # one record a pass over the images: losses and scores
    precision: Precision
    spread_ratio: (
        float  # mean squared distance between two samples over that between two images: near 1, far below if collapsed
    )
    seconds: float  # of the training alone; of a resumed one, since it went on
    images_per_second: float
    warnings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {"step": 0}
        return (
            f"<TrainedGAN .model {self.model.name!r}, step {last['step']}: spread of its samples {self.spread_ratio:.3g} of the "
            "images'>"
        )


def train_adversarially(
    images: ImageSet,
    built: GeneratorArchitecture,
    schedule: AdversarialSchedule,
    *,
    training: type[AdversarialTraining],
    finish: Callable[[GeneratorModel], None],
    made_by: str,
    seed: int,
    device: str,
    precision: str,
    name: str | None,
    out: str | Path | None,
    replace: bool,
    progress: Progress,
) -> TrainedGAN:
    """Fit a generator to images; keep the running average of its weights.

    Args:
        images: what to fit.
        built: settings of both networks.
        schedule: of the training; its seed is `derived_seed(seed, "training")`.
        training: the steps of both networks.
        finish: makes good, on the CPU, what an average of weights does not have from the weights that it averages.
        made_by: the public function, for the provenance.
        seed: of everything, for the provenance; decides the initial weights.
        device: as `choose_device` has it.
        precision: as `choose_precision` has it.
        name: what reports call the generator.
        out: artifact folder.
        replace: whether an earlier artifact there may be replaced.
        progress: told after each step of the loop, in steps.

    Raises:
        SettingError, OutputExistsError, ImageFormatError, NonFiniteError, ArtifactError, KeyboardInterrupt: as `train_gan`.
    """
    if out is not None:
        check_out(out, replace=replace)
    place = choose_device(device)
    chosen = choose_precision(precision, convolutional=built.convolutional, device=place)
    settings = {
        "architecture": architecture_to_json(built),
        **{key: value for key, value in asdict(schedule).items() if key != "seed"},
        "precision": chosen.to_json(),
        "device": place.type,
    }
    provenance = Provenance(made_by=made_by, seed=seed, made_from={"images": images.content_hash}, settings=settings)
    earlier = finished_before(out, provenance, replace=replace)
    if earlier is not None and out is not None:
        kept = GeneratorModel.from_pretrained(out)
        progress(f"training {kept.name}", schedule.steps, schedule.steps, "it was done before")
        ratio = spread_ratio(kept, images, seed=seed)
        return TrainedGAN(
            model=kept,
            history=earlier,
            precision=chosen,
            spread_ratio=ratio,
            seconds=0.0,
            images_per_second=0.0,
            warnings=collapse_warnings(ratio),
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        model = GeneratorModel(built, images.image_shape, name=name, provenance=provenance)
        discriminator = built.discriminator(images.image_shape)
    module = training(model, discriminator, images, schedule, channels_last=chosen.channels_last)
    started = time.perf_counter()
    with held_work_folder(out, provenance) as work:
        with using_threads(threads_for(parameter_count(module), convolutional=built.convolutional)):
            fit_resumable(module, task=f"training {model.name}", place=place, precision=chosen, work=work, progress=progress)
            seconds = time.perf_counter() - started
            kept = module.averaged.cpu().eval()
            finish(kept)
            ratio = spread_ratio(kept, images, seed=seed)
        result = TrainedGAN(
            model=kept,
            history=module.history,
            precision=chosen,
            spread_ratio=ratio,
            seconds=seconds,
            images_per_second=(module.steps - module.earlier_steps) * min(schedule.batch_size, len(images)) / seconds,
            warnings=collapse_warnings(ratio),
        )
        for warning in result.warnings:
            logger.warning("%s", warning)
        if out is not None and work is not None:
            publish(kept.write_files, module.history, Path(out), work, replace=replace)
    return result


def steps_in_all(images: ImageSet, *, epochs: int | None, steps: int | None, batch_size: int) -> int:
    """Return how many steps a training has: those given, or those of so many passes over the images, 50 if not told."""
    if steps is not None:
        return steps
    return len(images) // min(batch_size, len(images)) * (_EPOCHS if epochs is None else epochs)


def spread_ratio(model: GeneratorModel, images: ImageSet, *, seed: int) -> float:
    """Return the mean squared distance between two samples over that between two images.

    That distance is, up to n / (n - 1), twice the variance of a pixel, averaged over pixels. NaN where all images are equal.
    """
    count = min(_COMPARED, max(len(images), 2))
    order = torch.randperm(len(images), generator=generator(seed, "compared"))[:count]
    codes = model.sample_codes(count, generator(seed, "compared codes"))
    with torch.inference_mode():
        samples = torch.cat([model.decode(part) for part in torch.split(codes, 100)])
    of_samples, of_images = (
        float(MarginalMoments.of(batch).variance().mean()) for batch in (samples, images.take(order).tensor())
    )
    return of_samples / of_images if of_images > 0 else float("nan")


def collapse_warnings(ratio: float) -> list[str]:
    """Return what to tell of samples whose spread, of squared distances, is this share of the images' spread."""
    if not ratio < _COLLAPSED:
        return []
    message = (
        f"The generator has collapsed: its samples lie {100 * ratio**0.5:.0f} % as far from each other as the images do. Train longer, with "
        "another --seed, a lower --learning-rate, or a higher --gradient-penalty."
    )
    return [message]


def check_settings(
    images: ImageSet,
    epochs: int | None,
    steps: int | None,
    batch_size: int,
    learning_rate: float,
    gradient_penalty: float,
    half_life: int,
) -> None:
    """Raise unless these settings, which every GAN shares, make a training.

    Raises:
        SettingError: one is out of range.
    """
    check_image_set(images, "Training")
    if len(images) < 2:
        raise SettingError(f"A GAN needs at least 2 images, got {len(images)}.")
    if batch_size < 2:
        raise SettingError(f"A GAN needs at least 2 images a step, got a batch size of {batch_size}.")
    if epochs is not None and steps is not None:
        raise SettingError(f"Give epochs or steps, not both; got {epochs} and {steps}.")
    if epochs is not None and epochs < 1:
        raise SettingError(f"A training needs at least 1 epoch, got {epochs}.")
    if steps is not None and steps < 1:
        raise SettingError(f"A training needs at least 1 step, got {steps}.")
    if not 0 < learning_rate < 10:
        raise SettingError(f"The learning rate must lie between 0 and 10, got {learning_rate}.")
    if not 0 <= gradient_penalty < float("inf"):
        raise SettingError(f"The gradient penalty must be 0 or more, got {gradient_penalty}.")
    if half_life < 1:
        raise SettingError(f"The average's half-life must be at least 1 image, got {half_life}.")
