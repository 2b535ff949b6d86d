"""A direction of a latent space along which one attribute of images changes, and how well it tells who has it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, unknown_name
from latlas.base.shapes import PerImage, PerVariable, Rows
from latlas.numerics.moments import CONSTANT

METHODS = ("difference", "logistic")
_ROUNDS = 1000  # of the logistic probe's solver, at most
_FEWEST = 2  # codes of each kind: one has no spread


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """A line through a latent space: which way it runs, and what a step along it is."""

    vector: PerVariable  # of length 1
    spread: float  # standard deviation of the codes along it: one step
    threshold: float  # position beyond which a code counts as having the attribute
    method: str

    def positions(self, codes: Rows) -> PerImage:
        """Return where codes lie along the line, in units of the code."""
        self._check(codes)
        return codes.cpu().double() @ self.vector

    def tells(self, codes: Rows) -> Bool[Tensor, " n"]:
        """Return which codes lie beyond the threshold."""
        return self.positions(codes) > self.threshold

    def move(self, codes: Rows, steps: float) -> Rows:
        """Return codes moved along the line by some steps of its spread, in the type and on the device they came in."""
        self._check(codes)
        return (codes.cpu().double() + steps * self.spread * self.vector).to(codes)

    def _check(self, codes: Tensor) -> None:
        if codes.ndim != 2 or codes.shape[1] != len(self.vector):
            raise CodeShapeError(
                f"This direction is one of {len(self.vector)} variables, got codes of shape {tuple(codes.shape)}. "
                "Use codes of the model it was found in, or carry it over by a map."
            )


def find_direction(codes: Rows, has: Shaped[Tensor, " m"], *, method: str = "difference") -> Direction:
    """Return the direction along which codes with an attribute differ from those without.

    Args:
        codes: of images; vector codes.
        has: which of the images have the attribute: one truth value for each.
        method: "difference" (of the two means; the threshold lies midway between them), or "logistic" (the normal of
            scikit-learn's logistic regression on codes in units of their spread, both kinds weighing alike; the threshold
            is its boundary). The first follows the codes, and suits editing; the second separates them, and suits telling.

    Raises:
        UnknownNameError: no such method.
        CodeShapeError: codes that are no matrix; not one truth value for each.
        NonFiniteError: NaN or infinity among the codes.
        IllPosedError: fewer than two codes of a kind; means that do not differ by more than rounding.
    """
    if method not in METHODS:
        raise unknown_name("method for a direction", method, METHODS)
    exact, has = _checked(codes, has)
    if method == "logistic":
        normal, boundary = _logistic(exact, has)
    else:
        normal, boundary = exact[has].mean(dim=0) - exact[~has].mean(dim=0), None
    length = float(torch.linalg.vector_norm(normal))
    if not (length > 0.0 and _apart(exact, has)):
        raise IllPosedError(
            "The codes with the attribute have the same mean as those without: there is no direction. Take another attribute."
        )
    vector = normal / length
    along = exact @ vector
    middle = 0.5 * float(along[has].mean() + along[~has].mean())
    return Direction(
        vector=vector,
        spread=float(along.std(correction=0)),
        threshold=middle if boundary is None else boundary / length,
        method=method,
    )


def carry_direction(
    direction: Direction,
    weight: Float64[Tensor, "s t"],
    codes: Float[Tensor, "n t"],
    has: Bool[Tensor, " n"],
) -> Direction:
    """Return a direction in the space that a linear map leads to: one step here is the image of one step there.

    The map's shift does not move a direction; only its linear part does.

    Args:
        direction: of the map's source space.
        weight: of the map: target = source @ weight + shift.
        codes: of images in the target space: they set the threshold, midway between the means of both kinds.
        has: which of those images have the attribute.

    Raises:
        CodeShapeError: a weight of another source space.
        IllPosedError: the map takes the direction to nothing; fewer than two codes of a kind.
    """
    if weight.shape[0] != len(direction.vector):
        raise CodeShapeError(
            f"A direction of {len(direction.vector)} variables needs a map from as many, got {weight.shape[0]}."
        )
    exact, has = _checked(codes, has)
    carried = direction.vector @ weight
    length = float(torch.linalg.vector_norm(carried))
    if not length > 0.0:
        raise IllPosedError("The map takes this direction to nothing: what it edits is lost on the way. Edit before mapping.")
    along = exact @ (carried / length)
    return Direction(
        vector=carried / length,
        spread=direction.spread * length,
        threshold=0.5 * float(along[has].mean() + along[~has].mean()),
        method="carried",
    )


def random_direction(codes: Rows, has: Bool[Tensor, " n"], generator: torch.Generator) -> Direction:
    """Return a direction of no meaning, uniform over the sphere: what any other must be held against.

    Raises:
        CodeShapeError, NonFiniteError, IllPosedError: as in `find_direction`.
    """
    exact, has = _checked(codes, has)
    drawn = torch.randn(exact.shape[1], generator=generator, dtype=torch.float64)
    vector = drawn / torch.linalg.vector_norm(drawn)
    along = exact @ vector
    return Direction(
        vector=vector,
        spread=float(along.std(correction=0)),
        threshold=0.5 * float(along[has].mean() + along[~has].mean()),
        method="random",
    )


def cosine(one: Direction, other: Direction) -> float:
    """Return the cosine of the angle between two directions of one space.

    Raises:
        CodeShapeError: directions of two spaces.
    """
    if one.vector.shape != other.vector.shape:
        raise CodeShapeError(f"Directions of {len(one.vector)} and {len(other.vector)} variables have no angle between them.")
    return float(one.vector @ other.vector)


def balanced_accuracy(told: Bool[Tensor, " n"], has: Bool[Tensor, " n"]) -> float:
    """Return the mean, over those with and those without, of the share that is told rightly: 0.5 is chance.

    Raises:
        IllPosedError: none with the attribute, or none without.
    """
    if not bool(has.any()) or bool(has.all()):
        raise IllPosedError("A balanced accuracy needs images with the attribute and images without; give some of both.")
    return 0.5 * (float(told[has].double().mean()) + float((~told[~has]).double().mean()))


def _checked(codes: Tensor, has: Tensor) -> tuple[Float64[Tensor, "n d"], Bool[Tensor, " n"]]:
    if codes.ndim != 2:
        raise CodeShapeError(f"A direction needs vector codes of shape n x variables, got {tuple(codes.shape)}. Flatten them.")
    # Numbers 0 and 1 would be taken for the numbers of two rows.
    if has.dtype != torch.bool or tuple(has.shape) != (len(codes),):
        raise CodeShapeError(
            f"A direction needs to be told of each of {len(codes)} images whether it has the attribute, as truth values; got "
            f"{has.dtype} of shape {tuple(has.shape)}. Give one a code, as has == 1 makes them of numbers."
        )
    exact, has = codes.detach().cpu().double(), has.cpu()
    if not bool(exact.isfinite().all()):
        raise NonFiniteError("The codes hold NaN or infinity; no direction can be found in them. Remove those images.")
    count = int(has.sum())
    if min(count, len(has) - count) < _FEWEST:
        raise IllPosedError(
            f"A direction needs at least {_FEWEST} images with the attribute and as many without, got {count} and "
            f"{len(has) - count}. Give more images, or another attribute."
        )
    return exact, has


def _apart(codes: Float64[Tensor, "n d"], has: Tensor) -> bool:
    """Tell whether the means of both kinds differ in any variable by more than the rounding of sums of codes."""
    difference = (codes[has].mean(dim=0) - codes[~has].mean(dim=0)).abs()
    return bool((difference > CONSTANT * codes.abs().amax(dim=0)).any())


def _logistic(codes: Float64[Tensor, "n d"], has: Tensor) -> tuple[PerVariable, float]:
    from sklearn.linear_model import LogisticRegression

    middle, spread = codes.mean(dim=0), codes.std(dim=0, correction=0)
    varies = spread > CONSTANT * middle.abs()
    scale = torch.where(varies, 1.0 / spread, torch.zeros_like(spread))
    probe = LogisticRegression(class_weight="balanced", max_iter=_ROUNDS)
    probe.fit(((codes - middle) * scale).numpy(), has.numpy())
    normal = torch.from_numpy(probe.coef_[0]).double() * scale
    return normal, float(normal @ middle - probe.intercept_[0])
