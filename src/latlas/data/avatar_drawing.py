"""How avatars are drawn: one from its number, many by worker processes.

Each factor of each image has a random number of its own, made from seed, split, image and factor. So image i is the
same whoever draws it, and whatever is drawn beside it; and pinning one factor leaves all the others as they were.
"""

import bisect
import hashlib
import io
import itertools
import logging
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latlas.base.orphans import watch_parent
from latlas.base.progress import Progress, silent
from latlas.data.avatar_styles import ABSENT, AvatarSettings, missing_extra, read_style

if TYPE_CHECKING:
    from dicebear import Style

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]  # n 3 size size
Row = tuple[str, ...]  # the values of one image, in the order of the style's factors

_ONE = 1 << 53
_CHUNK = 250  # images a task: some 0.5 s of work against some 3 MB of pixels to send back
_ALONE = 1_000  # up to here one process is done before others have started and imported what they need


def choose(settings: AvatarSettings, indices: Iterable[int]) -> Iterator[dict[str, str]]:
    """Yield, for each image, the value of every factor, whether or not the drawing will show it.

    The factors are independent of each other; a value's probability is `settings.weights`.
    """
    plan = [
        (factor, settings.presence(factor), list(itertools.accumulate(settings.weights(factor))))
        for factor in read_style(settings.style).factors.values()
    ]
    for index in indices:
        chosen = dict(settings.pinned)
        for factor, presence, limits in plan:
            if factor.name in chosen:
                continue
            digest = hashlib.sha256(f"{settings.seed}/{settings.split}/{index}/{factor.name}".encode()).digest()
            # 53 bits, as many as a float holds: never rounded up to 1.
            drawn, which = (int.from_bytes(digest[start : start + 8], "big") >> 11 for start in (0, 8))
            if drawn >= presence * _ONE:
                chosen[factor.name] = ABSENT
            else:
                # The first value whose limit lies above: one of probability 0 has the limit of its predecessor.
                chosen[factor.name] = factor.values[bisect.bisect_right(limits, which / _ONE * limits[-1])]
        yield chosen


def draw_chunk(settings: AvatarSettings, start: int, stop: int) -> tuple[int, Pixels, list[Row]]:
    """Return `start`, and images `start` up to, not including, `stop` with the factors that they show.

    A colour that no drawn part uses is recorded as absent, whatever was chosen for it.
    """
    try:
        import resvg_py
        from dicebear import Avatar
    except ModuleNotFoundError as absent:
        raise missing_extra(absent) from absent
    style = read_style(settings.style)
    drawer = _drawer(settings.style)
    pixels = np.empty((stop - start, 3, settings.size, settings.size), dtype=np.uint8)
    rows: list[Row] = []
    for place, chosen in enumerate(choose(settings, range(start, stop))):
        options: dict[str, Any] = {"seed": "", "size": settings.size}
        for factor in style.factors.values():
            value = chosen[factor.name]
            if factor.kind == "color":
                options[f"{factor.option}Color"] = value
            elif value == ABSENT:
                options[f"{factor.option}Probability"] = 0
            else:
                options[f"{factor.option}Probability"] = 100
                options[f"{factor.option}Variant"] = value
        avatar = Avatar(drawer, options)
        shown = avatar.to_json()["options"]
        rows.append(
            tuple(
                ABSENT if factor.kind == "color" and not shown.get(f"{factor.option}Color") else chosen[factor.name]
                for factor in style.factors.values()
            )
        )
        # Without fonts the picture cannot depend on those of this machine; no style that is offered has text.
        png = resvg_py.svg_to_bytes(
            svg_string=avatar.to_string(), width=settings.size, background=settings.background, skip_system_fonts=True
        )
        with Image.open(io.BytesIO(png)) as picture:
            pixels[place] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    return start, pixels, rows


def draw(
    settings: AvatarSettings, part: range, *, workers: int | None = None, progress: Progress = silent
) -> tuple[Pixels, list[Row]]:
    """Return a part of the set: pixels `n 3 size size` and, for each image, the values of the style's factors.

    Args:
        settings: what to draw.
        part: the numbers of the images, one after the other.
        workers: how many processes draw; None: one a core that this process may use. The result is the same.
        progress: told how many images are drawn.

    Raises:
        MissingExtraError: the packages that draw are not installed.
    """
    if workers is None:
        workers = 1 if len(part) <= _ALONE else _cores()
    processes = 1 if multiprocessing.current_process().daemon else workers  # a DataLoader's worker may have none of its own
    pixels = np.empty((len(part), 3, settings.size, settings.size), dtype=np.uint8)
    rows: list[Row] = [()] * len(part)
    starts = set(range(part.start, part.stop, _CHUNK))
    task = f"drawing {settings.style} avatars"
    progress(task, 0, len(part))

    def keep(start: int, chunk: Pixels, chunk_rows: list[Row]) -> None:
        offset = start - part.start
        pixels[offset : offset + len(chunk)] = chunk
        rows[offset : offset + len(chunk)] = chunk_rows
        starts.discard(start)
        done = len(part) - sum(min(_CHUNK, part.stop - left) for left in starts)
        progress(task, done, len(part), f"{processes} process{'es' if processes > 1 else ''}")

    if processes > 1 and len(starts) > 1:
        count = min(processes, len(starts))
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=watch_parent)
        try:
            futures = [pool.submit(draw_chunk, settings, start, min(start + _CHUNK, part.stop)) for start in sorted(starts)]
            for future in as_completed(futures):
                keep(*future.result())
        except BrokenProcessPool:
            logger.warning(
                "The processes that draw avatars could not start or were ended, so this one draws alone. "
                "In a script, put what it does under: if __name__ == '__main__':"
            )
            processes = 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    for start in sorted(starts):
        keep(*draw_chunk(settings, start, min(start + _CHUNK, part.stop)))
    return pixels, rows


@lru_cache
def _drawer(name: str) -> "Style":
    from dicebear import Style

    return Style(dict(read_style(name).definition))  # checked against its schema: half a second, so once a process


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
