"""What an error in image space is read against: the codes that give its bounds, and shares of the way between them."""

from latlas.base.shapes import Codes
from latlas.encodings.encoding import Encoding

_EXACT = 1e-9  # share of the mean code's error below which an error is rounding of float32
_NOTHING = 1e-3  # share of the mean code's error below which the target's own codes are worth nothing


def target_bounds(fitting: Encoding, own: Encoding) -> dict[str, Codes]:
    """Return the codes that bound the errors of any map into a latent space, by name.

    "target_R": the target's own codes, as a perfect map would give them. "mean_code": its mean code over the images to fit on, whatever the
    image: what a map that has learnt nothing gives.

    Args:
        fitting: the target's codes of the images to fit on.
        own: those of the images to measure on.
    """
    middle = fitting.mean.double().mean(dim=0).float()
    return {"target_R": own.mean, "mean_code": middle.expand(len(own), *middle.shape).contiguous()}


def ratio(value: float, whole: float) -> float | None:
    """Return value / whole; None where the whole is 0, which has no shares."""
    return value / whole if whole else None


def share_of(error: float, best: float, scale: float) -> float | None:
    """Return error / best; None where the best is 0 but for rounding, beside errors of some scale: as of known codes."""
    return None if best <= _EXACT * scale else ratio(error, best)


def recovered_share(error: float, mean_code: float, best: float) -> float | None:
    """Return how much of the way from the mean code's error to the target's own an error has gone.

    Below 0 it is worse than the mean code. None where the two lie within a thousandth of each other: a target whose images
    hardly depend on the code has nothing to recover.
    """
    return None if mean_code - best <= _NOTHING * mean_code else (mean_code - error) / (mean_code - best)
