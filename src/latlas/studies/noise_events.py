"""When each event of a variable's course under noise came, and what did not come as published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latlas.base.errors import IllPosedError
from latlas.numerics.posteriors import ACTIVE_VARIANCE
from latlas.training.noise_injection import NoiseEpoch

RISE = 1.05  # over its start: from where a mean or KL is called larger. Between two epochs without noise they move by 1 to 2 %.
PROMPT = 5  # epochs from the crossing to the collapse, at most: "a few"
DELAYED = 2  # epochs without noise until the variable is in use again, at least: "several"
# The events in the order that the posts tell them, and how each is said.
EVENTS: Mapping[str, str] = {
    "rise": "means and KL grow",
    "crossing": "the gain falls below the KL",
    "collapse": "the variable collapses",
    "recovery": "without noise it is in use again",
}


@dataclass(frozen=True, kw_only=True)
class Events:
    """In which epoch each event was first seen; None: never."""

    rise: int | None  # variance of means and KL both above `RISE` times their start, while the noise grows
    crossing: int | None  # gain below KL
    collapse: int | None  # variance of means at most 0.01
    removal: int | None  # first epoch without noise
    recovery: int | None  # variance of means above 0.01 again, without noise, after a collapse
    kl_start: float
    kl_most: float  # while the noise grows
    variance_most: float  # of the means, likewise
    noise_most: float  # its deviation
    gain_start: float  # nats
    gain_end: float
    prompt: int = PROMPT
    delayed: int = DELAYED

    @property
    def delay(self) -> int | None:
        """Epochs without noise until the variable was in use again; 1: after the first."""
        return None if self.recovery is None or self.removal is None else self.recovery - self.removal + 1

    @property
    def recovered_gain(self) -> float:
        """Gain at the end, over that before the noise."""
        return self.gain_end / self.gain_start if self.gain_start > 0 else float("nan")

    @property
    def departures(self) -> list[str]:
        """What did not come as the posts tell it, in words; empty: all did."""
        found = []
        if self.rise is None:
            found.append(
                f"KL and means never grew by {100 * (RISE - 1):.0f} % together (KL from {self.kl_start:.2f} to {self.kl_most:.2f} nats at most)"
            )
        if self.crossing is None:
            found.append(f"the gain stayed above the KL up to a noise of {self.noise_most:.2g}")
        if self.rise is not None and self.crossing is not None and self.rise > self.crossing:
            found.append(f"the gain crossed the KL in epoch {self.crossing}, before they grew (epoch {self.rise})")
        if self.collapse is None:
            found.append("the variable never collapsed")
        elif self.crossing is not None and not 0 <= self.collapse - self.crossing <= self.prompt:
            found.append(
                f"the collapse came {self.collapse - self.crossing} epochs after the crossing"
                if self.collapse > self.crossing
                else "the collapse came before the crossing"
            )
        if self.collapse is not None and self.recovery is None:
            found.append("the variable stayed collapsed without noise")
        if self.delay is not None and self.delay < self.delayed:
            found.append(f"it was in use again after {self.delay} epoch{'s'[: self.delay != 1]} without noise")
        if self.recovery is not None and self.recovered_gain >= 1.0:
            found.append(f"it ended with {self.recovered_gain:.2f} of its first gain")
        return found

    @property
    def as_published(self) -> bool:
        """Whether all events came, in the order and at the distances of the posts, and the recovery was partial."""
        return not self.departures

    @property
    def order(self) -> list[str]:
        """Names of the events that came, by epoch; those of one epoch as the posts have them."""
        epochs = {name: getattr(self, name) for name in EVENTS}
        return sorted((name for name, epoch in epochs.items() if epoch is not None), key=lambda name: epochs[name])


def events_of(epochs: Sequence[NoiseEpoch], variable: int, *, prompt: int = PROMPT, delayed: int = DELAYED) -> Events:
    """Return when each event of one variable's course came.

    Args:
        epochs: of a `NoiseCourse`, from epoch 0 on, before the noise.
        variable: whose.
        prompt: epochs from the crossing to the collapse, at most.
        delayed: epochs without noise until it is in use again, at least.

    Raises:
        IllPosedError: no epoch with noise.
    """
    growing = [epoch for epoch in epochs if epoch.phase == "growing"]
    if not growing or epochs[0].phase != "start":
        raise IllPosedError(
            "Events need the state before the noise and at least one epoch with it; this course has none. Run it longer."
        )
    start = epochs[0]
    kl, variance = start.kl_nats[variable], start.variance_of_means[variable]
    noisy = [epoch for epoch in epochs if epoch.phase in ("growing", "held")]
    clean = [epoch for epoch in epochs if epoch.phase == "removed"]

    def first(candidates: Sequence[NoiseEpoch], *tests: bool) -> int | None:
        return next((epoch.epoch for epoch, passed in zip(candidates, tests, strict=True) if passed), None)

    collapse = first([*noisy, *clean], *(epoch.variance_of_means[variable] <= ACTIVE_VARIANCE for epoch in (*noisy, *clean)))
    after = [epoch for epoch in clean if collapse is not None and epoch.epoch > collapse]
    return Events(
        rise=first(
            growing,
            *(e.kl_nats[variable] > RISE * kl and e.variance_of_means[variable] > RISE * variance for e in growing),
        ),
        crossing=first(noisy, *(epoch.gain_nats[variable] < epoch.kl_nats[variable] for epoch in noisy)),
        collapse=collapse,
        removal=clean[0].epoch if clean else None,
        recovery=first(after, *(epoch.variance_of_means[variable] > ACTIVE_VARIANCE for epoch in after)),
        kl_start=kl,
        kl_most=max(epoch.kl_nats[variable] for epoch in growing),
        variance_most=max(epoch.variance_of_means[variable] for epoch in growing),
        noise_most=max(epoch.deviation for epoch in noisy),
        gain_start=start.gain_nats[variable],
        gain_end=epochs[-1].gain_nats[variable],
        prompt=prompt,
        delayed=delayed,
    )
