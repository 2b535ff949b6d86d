"""From image to code by descending the reconstruction error through a frozen decoder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, NonFiniteError, SettingError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.shapes import Codes, PerImage
from latlas.base.threads import threads_for, using_threads
from latlas.data.images import ImageSet
from latlas.inversion.noise import NoiseInputs, noise_inputs, noise_penalty, normalised
from latlas.inversion.prior import CodePrior
from latlas.models.given import described
from latlas.models.protocols import (
    Decoder,
    check_codes,
    check_images,
    device_of,
    images_at_once,
    is_convolutional,
    parameter_count,
)

_BETAS, _EPSILON = (0.9, 0.99), 1e-8  # of Adam (Kingma and Ba 2015, arXiv:1412.6980)
_ROUND = 10  # steps between two looks at which images still go on


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much work an inversion may do; the same for every image that is to be compared.

    Args:
        steps: of Adam, at most; 0 or more.
        learning_rate: at its height, in units of the code; above 0.
        warmup: share of the steps, 0 to 1, in which it rises to its height; along all of them it falls as a cosine to 0.
        batch: images descended together, at most: large images are fewer.
        patience: an image stops when ten steps lower its error by less than this share; 0: never.

    Raises:
        SettingError: a setting out of range.

    >>> Budget(steps=60, learning_rate=0.1)
    Budget(steps=60, learning_rate=0.1, warmup=0.0, batch=500, patience=0.0)
    """

    steps: int = 200
    learning_rate: float = 0.05
    warmup: float = 0.0
    batch: int = 500
    patience: float = 0.0

    def __post_init__(self) -> None:
        for setting, count in (("steps", self.steps), ("batch", self.batch)):
            if not isinstance(count, Integral) or isinstance(count, bool):
                raise SettingError(f"The {setting} of a budget must be a whole number, got {count!r}.")
            object.__setattr__(self, setting, int(count))  # of NumPy's, too: a record of it is written as JSON
        if self.steps < 0 or self.batch < 1 or not 0 < self.learning_rate < math.inf or not self.patience >= 0:
            raise SettingError(f"A budget needs steps >= 0, batch >= 1, learning rate > 0, patience >= 0, got {self}.")
        if not 0 <= self.warmup <= 1:
            raise SettingError(f"The warm-up is a share of the steps, 0 to 1, got {self.warmup}.")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        >>> [round(Budget(steps=4, learning_rate=1.0, warmup=0.5).rate(step), 3) for step in range(4)]
        [0.5, 0.854, 0.5, 0.146]
        """
        rising = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return self.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * step / self.steps))


# By name: "thorough" takes five times the time of "default", and that three times the time of "quick".
BUDGETS = {
    "quick": Budget(steps=60, learning_rate=0.1),
    "default": Budget(),
    "thorough": Budget(steps=1000),
}


def named_budget(name: str, *, steps: int | None = None) -> Budget:
    """Return the budget of that name, with another number of steps if one is given.

    Raises:
        UnknownNameError: no such budget.
        SettingError: a number of steps out of range.

    >>> named_budget("quick", steps=7).steps
    7
    """
    if name not in BUDGETS:
        raise unknown_name("budget", name, BUDGETS)
    return BUDGETS[name] if steps is None else replace(BUDGETS[name], steps=steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversion:
    """Codes found for images, and how well they do.

    `codes` holds the best code of each image, `errors` the squared error per pixel of decoding it. Rows of `start_errors` and
    of `image_curves` are starts, in the order of `start_names`; large `disagreement` between them says that the budget was short.
    """

    codes: Codes  # of the best start of each image
    errors: PerImage  # squared error per pixel of decoding them; infinite where no start ever gave a number
    start_errors: Tensor  # starts x images: the error that each start ended with
    start_names: tuple[str, ...]  # of each start
    winners: Tensor  # per image, the number of the start that its code comes from
    image_curves: Tensor  # starts x images x steps + 1: the best code's error after each step; held after an early stop
    broken: Tensor  # bool, starts x images: the descent left the numbers, and was held at the best code before
    names: tuple[str, ...]  # of the images
    noises: tuple[Tensor, ...] = ()  # of the best start, where they were descended too: decode the codes with them

    def __repr__(self) -> str:
        return (
            f"<Inversion of {len(self.errors):,} images from {', '.join(self.start_names)}: mean squared error "
            f"{float(self.errors.mean()):.4g}; .codes, .errors, .curves>"
        )

    @property
    def curves(self) -> Tensor:
        """Starts x steps + 1: the mean of `image_curves` over the images that have a number."""
        finite = self.image_curves.isfinite()
        total = self.image_curves.masked_fill(~finite, 0.0).sum(dim=1)
        return total / finite.sum(dim=1)

    @property
    def disagreement(self) -> PerImage:
        """Per image, the worst start's error less the best's: small where the descent does not depend on its start."""
        return self.start_errors.amax(dim=0) - self.start_errors.amin(dim=0)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The images whose descent left the numbers from every start: their codes are the best met before that."""
        return tuple(name for name, failed in zip(self.names, self.broken.all(dim=0).tolist(), strict=True) if failed)


def descend(
    decoder: Decoder,
    images: ImageSet,
    starts: Sequence[Codes],
    *,
    start_names: Sequence[str] = (),
    budget: Budget | None = None,
    prior: CodePrior | None = None,
    prior_weight: float = 0.0,
    noise_weight: float | None = None,
    progress: Progress = silent,
) -> Inversion:
    """Return, for each image, the best code that Adam reaches from any of the starts.

    Images are independent of each other: their errors are summed, Adam scales each coordinate by itself, and each image
    stops by its own error. What an image gets therefore does not depend on its company, without which errors of two
    sets could not be ranked against each other. An image whose error leaves the numbers is held at the best code that it
    met, and the others go on.

    Args:
        decoder: frozen; its parameters get no gradient.
        images: of the decoder's shape.
        starts: one or more sets of starting codes, one code an image each.
        start_names: what to call each; () for "start 1" and on.
        budget: None for the default.
        prior: where codes are ordinary.
        prior_weight: what a code as far from its mean as codes are on average costs, in squared error per pixel. The best code
            is the one with the least sum.
        noise_weight: None: the noise of a StyleGAN stays as it is. Else it is descended with the code, image by image, and this
            is the weight of `noise_penalty` (StyleGAN2's projector has 1e5, beside a perceptual distance).
        progress: told in images, over all starts.

    Raises:
        CodeShapeError: starts of another shape or number than the images.
        ImageFormatError: images of another shape than the decoder's.
        NonFiniteError: not one image of them gave a number from any start.
        CapabilityError: images have no gradient, or noise is to be descended and there is none.
        SettingError: a weight that is negative, or of a prior that is not given.
    """
    work = budget if budget is not None else Budget()
    if not isinstance(work, Budget):
        raise SettingError(f"The work of an inversion is a latlas.Budget, as Budget(steps=60), got {described(work)}.")
    check_images(images.image_shape, decoder, name=images.name)
    for start in starts:
        check_codes(start, decoder)
        if len(start) != len(images):
            raise CodeShapeError(f"Each start must hold one code an image: got {len(start)} codes for {len(images)} images.")
    if not starts:
        raise CodeShapeError("Descent needs at least one set of starting codes.")
    if start_names and len(start_names) != len(starts):
        raise SettingError(f"Give each start a name: got {len(start_names)} names for {len(starts)} starts.")
    for name, weight in (("prior", prior_weight), ("noise", noise_weight if noise_weight is not None else 0.0)):
        if not 0 <= weight < math.inf:
            raise SettingError(f"The weight of the {name} must be 0 or more, got {weight}.")
    if prior_weight > 0 and prior is None:
        raise SettingError("A prior weight needs a prior: give latlas.inversion.prior.code_prior(generator, seed=0).")
    objective = _Objective(
        decoder=decoder,
        prior=prior,
        prior_weight=prior_weight,
        noise=None if noise_weight is None else noise_inputs(decoder),
        noise_weight=noise_weight if noise_weight is not None else 0.0,
    )
    threads = threads_for(parameter_count(decoder), convolutional=is_convolutional(decoder))
    size = min(work.batch, images_at_once(images.image_shape))
    found: list[_Found] = []
    done, total = 0, len(starts) * len(images)
    for start in starts:
        parts: list[_Found] = []
        for batch, target in zip(torch.split(start, size), images.batches(size), strict=True):
            # Whoever asks may have switched gradients off, as notebooks do for whole cells.
            with using_threads(threads), torch.inference_mode(mode=False), torch.enable_grad():
                parts.append(_descend_batch(objective, target, batch, work))
            done += len(batch)
            progress(f"inverting {images.name}", done, total)
        found.append(_joined(parts))
    errors = torch.stack([one.errors for one in found])
    if not bool(errors.isfinite().any()):
        raise NonFiniteError(
            f"{decoder.name} gave NaN or infinity for every image of {images.name} from every start. Start from codes of its "
            f"own, or see what it draws of them; a lower learning rate than {work.learning_rate} mends only what breaks on the way."
        )
    # By what was descended, the prior's cost included, so that a start cannot win by leaving ordinary codes.
    best = torch.stack([one.objectives for one in found]).argmin(dim=0)
    rows = torch.arange(len(images))
    picked = errors[best, rows]
    return Inversion(
        codes=torch.stack([one.codes for one in found])[best, rows],
        errors=picked,
        start_errors=errors,
        start_names=tuple(start_names) or tuple(f"start {number + 1}" for number in range(len(starts))),
        winners=best,
        image_curves=torch.stack([one.curves for one in found]),
        broken=torch.stack([one.broken for one in found]),
        names=tuple(images.name_of(row) for row in range(len(images))),
        noises=tuple(torch.stack(layer)[best, rows] for layer in zip(*(one.noises for one in found), strict=True)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Objective:
    """What is descended: the error of each image, and what its code and noise cost."""

    decoder: Decoder
    prior: CodePrior | None
    prior_weight: float
    noise: NoiseInputs | None
    noise_weight: float

    def __call__(self, variables: Sequence[Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is descended and the error alone, one of each an image."""
        codes, *noises = variables
        drawn = self.decoder.decode(codes) if self.noise is None else self.noise.draw(codes, noises)
        errors = (drawn - target).square().flatten(1).mean(dim=1)
        cost = errors
        if self.prior is not None and self.prior_weight > 0:
            cost = cost + self.prior_weight * self.prior.distance(codes)
        if self.noise is not None:
            cost = cost + self.noise_weight * noise_penalty(noises)
        return cost, errors


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """What one start led to."""

    codes: Codes
    noises: tuple[Tensor, ...]
    objectives: PerImage
    errors: PerImage
    curves: Tensor  # images x steps + 1
    broken: Tensor


def _joined(parts: Sequence[_Found]) -> _Found:
    return _Found(
        codes=torch.cat([part.codes for part in parts]),
        noises=tuple(torch.cat(layer) for layer in zip(*(part.noises for part in parts), strict=True)),
        objectives=torch.cat([part.objectives for part in parts]),
        errors=torch.cat([part.errors for part in parts]),
        curves=torch.cat([part.curves for part in parts]),
        broken=torch.cat([part.broken for part in parts]),
    )


def _descend_batch(objective: _Objective, images: Tensor, start: Tensor, work: Budget) -> _Found:
    """Return the best of what was met, and the best error after each step (the last value held after a stop)."""
    device = device_of(objective.decoder)
    target = (images.clone() if images.is_inference() else images).to(device)
    variables = [start.detach().to(device).clone()]
    if objective.noise is not None:
        variables += objective.noise.start(len(start))
    best_variables = [variable.clone() for variable in variables]
    best = torch.full((len(start),), math.inf, dtype=torch.float64, device=device)
    best_errors, mark = best.clone(), best.clone()
    broken = torch.zeros(len(start), dtype=torch.bool, device=device)
    curves = torch.zeros(len(start), work.steps + 1, dtype=torch.float64, device=device)
    rows = torch.arange(len(start), device=device)  # images that still go on
    adam = [(torch.zeros_like(variable), torch.zeros_like(variable)) for variable in variables]
    for step in range(work.steps + 1):
        leaves = [variable.detach().requires_grad_(step < work.steps) for variable in variables]
        with torch.set_grad_enabled(step < work.steps):
            costs, errors = objective(leaves, target)
        exact = costs.detach().double()
        broken[rows] |= ~exact.isfinite()
        here = (exact < best[rows]) & ~broken[rows]
        better = rows[here]
        best[better] = exact[here]
        best_errors[better] = errors.detach().double()[here]
        for kept, leaf in zip(best_variables, leaves, strict=True):
            kept[better] = leaf.detach()[here]
        curves[:, step] = best_errors
        if step == work.steps:
            break
        going = ~broken[rows]
        if step % _ROUND == 0:
            stuck = mark - best < work.patience * best
            going &= ~(stuck[rows] & (step >= work.warmup * work.steps))
            mark = best.clone()
            if not bool(going.any()):
                curves[:, step + 1 :] = best_errors[:, None]
                break
        gradients = _gradients(objective, costs, leaves)
        if step % _ROUND == 0 and not bool(going.all()):
            rows, target = rows[going], target[going]
            variables, gradients = [each[going] for each in variables], [each[going] for each in gradients]
            adam = [(first[going], second[going]) for first, second in adam]
        for gradient in gradients:
            broken[rows] |= ~gradient.isfinite().flatten(1).all(dim=1)
        variables, adam = _adam_step(variables, gradients, adam, step, work.rate(step))
        if objective.noise is not None:
            variables = [variables[0], *(normalised(noise) for noise in variables[1:])]
    return _Found(
        codes=best_variables[0].cpu(),
        noises=tuple(noise.cpu() for noise in best_variables[1:]),
        objectives=best.cpu(),
        errors=best_errors.cpu(),
        curves=curves.cpu(),
        broken=broken.cpu(),
    )


def _gradients(objective: _Objective, costs: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not costs.requires_grad:
        raise CapabilityError(
            f"The images of {objective.decoder.name} have no gradient, so that nothing can be descended. Let it decode in torch, "
            "and without no_grad or inference_mode."
        )
    found = torch.autograd.grad(costs.sum(), list(leaves), allow_unused=True)
    return [torch.zeros_like(leaf) if one is None else one for one, leaf in zip(found, leaves, strict=True)]


def _adam_step(
    variables: Sequence[Tensor], gradients: Sequence[Tensor], state: Sequence[tuple[Tensor, Tensor]], step: int, rate: float
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Return variables and state after one step of Adam; written out, so that images that stop can leave its state."""
    first_decay, second_decay = _BETAS
    moved, kept = [], []
    for variable, gradient, (first, second) in zip(variables, gradients, state, strict=True):
        mean = first_decay * first + (1 - first_decay) * gradient
        square = second_decay * second + (1 - second_decay) * gradient.square()
        scale = (square / (1 - second_decay ** (step + 1))).sqrt() + _EPSILON
        moved.append(variable - rate * mean / (1 - first_decay ** (step + 1)) / scale)
        kept.append((mean, square))
    return moved, kept
