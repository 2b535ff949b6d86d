"""From image to code by descending the reconstruction error through a frozen decoder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, NonFiniteError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.shapes import Codes, PerImage
from latlas.base.threads import threads_for, using_threads
from latlas.data.images import ImageSet
from latlas.models.protocols import Decoder, check_codes, check_images, device_of, is_convolutional, parameter_count


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much work an inversion may do; the same for every image that is to be compared."""

    steps: int = 200  # of Adam, at most
    learning_rate: float = 0.05  # at the start; falls along a cosine to 0
    batch: int = 500  # images descended together
    patience: float = 0.0  # an image stops when ten steps lower its error by less than this share; 0: never

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1 or not self.learning_rate > 0 or self.patience < 0:
            raise SettingError(f"A budget needs steps >= 0, batch >= 1, learning rate > 0, patience >= 0, got {self}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversion:
    """Codes found for images, and how well they do."""

    codes: Codes  # of the best start of each image
    errors: PerImage  # squared error per pixel of decoding them
    start_errors: Tensor  # starts x images: the error that each start ended with
    curves: Tensor  # starts x steps + 1: mean error over images after each step; held after an early stop

    @property
    def disagreement(self) -> PerImage:
        """Per image, the worst start's error less the best's: small where the descent does not depend on its start."""
        return self.start_errors.amax(dim=0) - self.start_errors.amin(dim=0)


def descend(
    decoder: Decoder, images: ImageSet, starts: Sequence[Codes], *, budget: Budget | None = None, progress: Progress = silent
) -> Inversion:
    """Return, for each image, the best code that Adam reaches from any of the starts.

    Images are independent of each other: their errors are summed, Adam scales each coordinate by itself, and each image
    stops by its own error. What an image gets therefore does not depend on its company, without which errors of two
    sets could not be ranked against each other.

    Args:
        decoder: frozen; its parameters get no gradient.
        images: of the decoder's shape.
        starts: one or more sets of starting codes, one code an image each.
        budget: None for the default.
        progress: told in images, over all starts.

    Raises:
        CodeShapeError: starts of another shape or number than the images.
        ImageFormatError: images of another shape than the decoder's.
        NonFiniteError: the error of an image left the numbers; names the image.
    """
    work = budget if budget is not None else Budget()
    check_images(images.image_shape, decoder, name=images.name)
    for start in starts:
        check_codes(start, decoder)
        if len(start) != len(images):
            raise CodeShapeError(f"Each start must hold one code an image: got {len(start)} codes for {len(images)} images.")
    if not starts:
        raise CodeShapeError("Descent needs at least one set of starting codes.")
    threads = threads_for(parameter_count(decoder), convolutional=is_convolutional(decoder))
    codes, errors, curves = [], [], []
    done, total = 0, len(starts) * len(images)
    for number, start in enumerate(starts):
        parts: list[Tensor] = []
        part_errors: list[Tensor] = []
        curve = torch.zeros(work.steps + 1, dtype=torch.float64)
        for batch, target in zip(torch.split(start, work.batch), images.batches(work.batch), strict=True):
            with using_threads(threads):
                found, error, steps = _descend_batch(decoder, target, batch, work)
            if not bool(error.isfinite().all()):
                first = int((~error.isfinite()).nonzero()[0, 0]) + _rows(parts)
                raise NonFiniteError(
                    f"The descent of image {images.name_of(first)} of {images.name} (start {number + 1}) left the numbers. "
                    f"Lower the learning rate ({work.learning_rate})."
                )
            parts.append(found)
            part_errors.append(error)
            curve += steps * (len(batch) / len(images))
            done += len(batch)
            progress(f"inverting {images.name}", done, total)
        codes.append(torch.cat(parts))
        errors.append(torch.cat(part_errors))
        curves.append(curve)
    stacked = torch.stack(errors)
    best = stacked.argmin(dim=0)
    picked = torch.stack(codes)[best, torch.arange(len(images))]
    return Inversion(codes=picked, errors=stacked.amin(dim=0), start_errors=stacked, curves=torch.stack(curves))


def _rows(parts: Sequence[Tensor]) -> int:
    """Return how many rows the parts hold together."""
    return sum(int(part.shape[0]) for part in parts)


def _descend_batch(decoder: Decoder, images: Tensor, start: Tensor, work: Budget) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best codes met, their errors, and the mean error after each step (the last value held after a stop)."""
    device = device_of(decoder)
    target = images.to(device)
    codes = start.detach().to(device).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([codes], lr=work.learning_rate, betas=(0.9, 0.99))
    best_codes = codes.detach().clone()
    best = torch.full((len(start),), math.inf, dtype=torch.float64, device=device)
    curve = torch.zeros(work.steps + 1, dtype=torch.float64)
    mark = best
    going = torch.ones(len(start), dtype=torch.bool, device=device)  # images whose best may still change
    for step in range(work.steps + 1):
        errors = (decoder.decode(codes) - target).square().flatten(1).mean(dim=1)
        exact = errors.detach().double()
        better = going & (exact < best)
        best = torch.where(better, exact, best)
        best_codes[better] = codes.detach()[better]
        curve[step] = best.mean().cpu()
        if step == work.steps:
            break
        if step % 10 == 0:
            going = going & ~(mark - best < work.patience * best)
            if not bool(going.any()):
                curve[step + 1 :] = curve[step]
                break
            mark = best
        for group in optimizer.param_groups:
            group["lr"] = work.learning_rate * 0.5 * (1 + math.cos(math.pi * step / work.steps))
        (gradient,) = torch.autograd.grad(errors.sum(), codes)
        codes.grad = gradient
        optimizer.step()
    # An image whose error was never a number keeps an infinite best; the caller turns that into words.
    return best_codes.cpu(), best.cpu(), curve
