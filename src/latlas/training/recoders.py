"""A recoder from a generator to an artifact: trained on the generator's own stream, which never ends."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.utils.data import DataLoader

from latlas.base.errors import SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.seeds import derived_seed, generator
from latlas.models.protocols import Generator, device_of, require_generator
from latlas.models.recoder import Recoder, RecoderSettings
from latlas.training.asked import checked_seed, learning, number, whole
from latlas.training.precision import Precision, choose_device, choose_precision
from latlas.training.resumable import SteppedTraining, check_out, finished_before, fit_resumable, held_work_folder, publish
from latlas.training.streams import CachedStream, Stream, check_stream, frozen

LOSSES = ("code", "image", "both")
_STEPS_PER_EPOCH = 100  # between two checkpoints
_STEPS_A_CALL = 5  # of Lightning's loop
_WARM_UP = 0.02  # share of the steps in which the learning rate rises
_FINAL_RATE = 0.01  # share of the learning rate that is left at the end of the cosine
_MEASURED = 4000  # codes from which mean and deviation of each variable come
_HELD_OUT = 512  # images, never trained on, that the errors at the end are of


@dataclass(frozen=True, kw_only=True)
class TrainedRecoder:
    """A trained recoder and how it came about."""

    recoder: Recoder
    history: list[dict[str, Any]]  # one record a hundred steps: mean errors
    code_error: float  # squared error per variable of the codes of held-out samples
    code_variance: float  # of those codes, per variable: what answering with their mean would cost
    image_error: float  # squared error per pixel of decoding the recoder's code
    image_variance: float  # what the mean image would cost
    seconds: float  # of the training alone; of a resumed one, since it went on
    images_per_second: float

    def __repr__(self) -> str:
        return (
            f"<TrainedRecoder .recoder {self.recoder.name!r}: code error {self.code_error:.4g} of {self.code_variance:.4g}, "
            f"image error {self.image_error:.4g} of {self.image_variance:.4g}>"
        )


@learning()
def train_recoder(
    drawn_from: Generator,
    *,
    loss: str = "code",
    steps: int = 5000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    settings: RecoderSettings | None = None,
    cache: str | Path | None = None,
    cache_images: int = 20_000,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    name: str | None = None,
    out: str | Path | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> TrainedRecoder:
    """Fit a network that inverts a frozen generator, on images that the generator draws as they are needed.

    No image is seen twice, so there is nothing to over-fit to; with `cache` there is. With `out`, a training that was cut off
    goes on from its last hundred steps when it is started again with the same settings.

    Args:
        drawn_from: the generator; unchanged.
        loss: "code": squared error of the codes; "image": squared error of the images that the frozen generator draws from
            them; "both": the sum, each as a share of its variance.
        steps: of the optimiser.
        batch_size: images of a step.
        learning_rate: of Adam at its highest; it falls along a cosine.
        settings: sizes of the network; None for the defaults.
        cache: folder in which to keep the first images of the stream, for a generator so slow that drawing new ones takes
            longer than learning from them.
        cache_images: how many are kept there at most; each takes its pixels in bytes.
        seed: decides initial weights and the stream.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: of the recoder and of what the generator draws for it: "float32", "bfloat16", or "auto" (see
            `choose_precision`).
        name: what reports call the recoder.
        out: artifact folder: the recoder, its history, and TensorBoard scalars under `run`.
        replace: whether an earlier artifact there may be replaced.
        progress: called after each step of the loop with the task, steps done, steps in all, and a note with the errors; `print`
            will do.

    Raises:
        UnknownNameError: no such loss.
        CapabilityError: what is given draws no codes, or is no model.
        SettingError: a setting out of range, or a loss through a generator that has no gradient.
        OutputExistsError: `out` already holds something.
        ImageFormatError: the generator's images leave [0, 1], or are not square.
        IllPosedError: the generator's images are all alike.
        NonFiniteError: the generator's images or the loss left the numbers.
        ArtifactError: nothing can be written at `out` or `cache`.
        KeyboardInterrupt: with a message that says what was kept.
    """
    with frozen(drawn_from):  # as it will be while the recoder learns
        require_generator(drawn_from, "Training a recoder")
    steps, batch_size = whole(steps, "steps"), whole(batch_size, "batch size")
    learning_rate, seed = number(learning_rate, "learning rate"), checked_seed(seed)
    _check_settings(loss, steps, batch_size, learning_rate)
    if out is not None:
        check_out(out, replace=replace)
    place = choose_device(device)
    chosen = choose_precision(precision, convolutional=True, device=place)
    plain_settings = settings if settings is not None else RecoderSettings()
    recorded = {
        "loss": loss,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "network": asdict(plain_settings),
        "cache_images": None if cache is None else cache_images,
        "precision": chosen.to_json(),
        "device": place.type,
    }
    made_from = {"generator": drawn_from.fingerprint}
    provenance = Provenance(made_by="train_recoder", seed=seed, made_from=made_from, settings=recorded)
    earlier = finished_before(out, provenance, replace=replace)
    if earlier is not None and out is not None:
        recoder = Recoder.from_pretrained(out)
        progress(f"training {recoder.name}", steps, steps, "it was done before")
        return TrainedRecoder(
            recoder=recoder, history=earlier[:-1], **earlier[-1]["held_out"], seconds=0.0, images_per_second=0.0
        )
    stream_seed = derived_seed(seed, "stream")
    home = device_of(drawn_from)
    with held_work_folder(out, provenance) as work:
        with frozen(drawn_from):
            try:
                _move(drawn_from, place)
                stream: Stream = (
                    Stream(drawn_from, batch_size=batch_size, seed=stream_seed)
                    if cache is None
                    else CachedStream(
                        drawn_from, batch_size=batch_size, seed=stream_seed, folder=Path(cache), images=cache_images
                    )
                )
                module = _built(stream, loss, steps, learning_rate, plain_settings, name, provenance, chosen)
                started = time.perf_counter()
                task = f"training {module.recoder.name}"
                fit_resumable(module, task=task, place=place, precision=chosen, work=work, progress=progress)
                seconds = time.perf_counter() - started
                recoder = module.recoder.to(place).eval()
                errors = held_out_errors(drawn_from, recoder, seed=stream_seed)
                recoder = recoder.cpu()
            finally:
                _move(drawn_from, home)
        result = TrainedRecoder(
            recoder=recoder,
            history=module.history,
            **errors,
            seconds=seconds,
            images_per_second=(steps - module.earlier_steps) * batch_size / seconds,
        )
        if out is not None and work is not None:
            publish(
                recoder.write_files, [*module.history, {"step": steps, "held_out": errors}], Path(out), work, replace=replace
            )
    return result


class RecoderTraining(SteppedTraining):
    """Fits a recoder to a stream."""

    def __init__(
        self,
        recoder: Recoder,
        stream: Stream,
        loss: str,
        *,
        steps: int,
        learning_rate: float,
        image_variance: float,
        channels_last: bool = False,
    ) -> None:
        super().__init__(
            ("code_error",) if loss == "code" else ("code_error", "image_error"),
            steps=steps,
            steps_per_epoch=min(_STEPS_PER_EPOCH, steps),
            learning_rate=learning_rate,
        )
        self.recoder = recoder
        self._stream = (stream,)  # in a tuple: the generator's weights are no part of a checkpoint
        self.loss = loss
        self.code_variance = float(recoder.code_scale.double().square().mean())
        self.image_variance = image_variance
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def train_dataloader(self) -> DataLoader[int]:
        """Return a loader of numbers: the module draws its batches itself."""
        calls: Any = range(-(-self.steps_per_epoch // _STEPS_A_CALL))
        return DataLoader(calls, batch_size=None, generator=torch.Generator())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam, its rate rising over a fiftieth of the steps and then falling along a cosine."""
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.Adam(self.recoder.parameters(), lr=self.learning_rate, fused=fused)
        warm = max(int(_WARM_UP * self.steps), 1)

        def share(step: int) -> float:
            falling = _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
            return falling * min((step + 1) / warm, 1.0)

        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, share)}

    def training_step(self, call: int) -> None:  # noqa: ARG002
        """Run a few steps, each on a batch of its own."""
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
        until = min(self.steps_done + _STEPS_A_CALL, (self.current_epoch + 1) * self.steps_per_epoch, self.steps)
        while self.steps_done < until:
            codes, images = self._stream[0].batch(self.steps_done)
            found = self.recoder.encode(images.contiguous(memory_format=self.memory_format)).mean
            errors = [(found - codes).square().mean()]
            if self.loss != "code":
                errors.append((self._stream[0].generator.decode(found) - images).square().mean())
            shares = [
                error / variance for error, variance in zip(errors, (self.code_variance, self.image_variance), strict=False)
            ]
            aim = {"code": shares[0], "image": shares[-1], "both": shares[0] + shares[-1]}[self.loss]
            optimizer.zero_grad(set_to_none=True)
            self.manual_backward(aim)
            optimizer.step()
            scheduler.step()
            self.record(*errors, codes=found)


def held_out_errors(drawn_from: Generator, recoder: Recoder, *, seed: int, count: int = _HELD_OUT) -> dict[str, float]:
    """Return how well a recoder does on samples that no training draws: errors, and the variances to read them against.

    Args:
        drawn_from: the generator.
        recoder: in evaluation mode.
        seed: decides the samples.
        count: how many.
    """
    device = device_of(recoder)
    drawn = drawn_from.sample_codes(count, generator(seed, "held out"))
    pairs = []
    with torch.no_grad():
        for codes in torch.split(drawn, 64):
            images = drawn_from.decode(codes.to(device))
            found = recoder.encode(images).mean
            pairs.append((found.cpu(), images.cpu(), drawn_from.decode(found).cpu()))
    found, images, again = (torch.cat(parts).double() for parts in zip(*pairs, strict=True))
    return {
        "code_error": float((found - drawn).square().mean()),
        "code_variance": float(drawn.double().var(dim=0).mean()),
        "image_error": float((again - images).square().mean()),
        "image_variance": float(images.var(dim=0).mean()),
    }


def _built(
    stream: Stream,
    loss: str,
    steps: int,
    learning_rate: float,
    settings: RecoderSettings,
    name: str | None,
    provenance: Provenance,
    precision: Precision,
) -> RecoderTraining:
    probed, images = check_stream(stream.generator, seed=stream.seed)
    if loss != "code":
        with torch.enable_grad():
            if not stream.generator.decode(probed[:2].clone().requires_grad_(True)).requires_grad:
                raise SettingError(f"{stream.generator.name} has no gradient for the loss {loss!r} to go through. Use code.")
    codes = stream.generator.sample_codes(_MEASURED, generator(stream.seed, "scale")).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(stream.seed, "weights"))
        recoder = Recoder(
            stream.generator,
            settings,
            code_mean=codes.mean(dim=0),
            code_scale=codes.std(dim=0),
            name=name,
            provenance=provenance,
        )
    return RecoderTraining(
        recoder,
        stream,
        loss,
        steps=steps,
        learning_rate=learning_rate,
        image_variance=float(images.double().var(dim=0).mean()),
        channels_last=precision.channels_last,
    )


def _move(model: object, place: torch.device) -> None:
    if isinstance(model, nn.Module):
        model.to(place)


def _check_settings(loss: str, steps: int, batch_size: int, learning_rate: float) -> None:
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    if steps < 1:
        raise SettingError(f"A training needs at least 1 step, got {steps}.")
    if batch_size < 2:
        raise SettingError(f"A recoder needs at least 2 images a step, got a batch size of {batch_size}.")
    if not 0 < learning_rate < 10:
        raise SettingError(f"The learning rate must lie between 0 and 10, got {learning_rate}.")
