"""Avatars with known factors, drawn on this machine from a seed and kept in the cache.

The pictures come from dicebear's styles, by way of resvg; both styles that are offered are in the public domain (CC0).
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latlas.base.artifacts import CONFIG, check_free, read_config, write_config, writing
from latlas.base.errors import ArtifactError, SettingError, unknown_name
from latlas.base.npy import open_npy
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance, package_versions
from latlas.data.avatar_drawing import Pixels, draw
from latlas.data.avatar_styles import COUNTS, STYLES, AvatarSettings, missing_extra, read_style
from latlas.data.builtin import cache_folder
from latlas.data.images import ImageSet
from latlas.data.specs import agreed_size, parse_query, whole_number
from latlas.data.tables import read_table, write_table

logger = logging.getLogger(__name__)

KIND = "avatars"
_DRAWING = 1  # raised when the same settings would give other pixels
_PACKAGES = ("dicebear-core", "dicebear-styles", "resvg-py")
_NUMBERS = ("count", "seed", "size")


def avatar_settings(spec: str, *, size: int | None = None) -> AvatarSettings:
    """Return the settings that a spec such as `avatars:train?hat=0.01&glasses=1` names.

    After the `?`: `count`, `seed`, `size`, `background` (rrggbb); `PART=0.01`, the probability that a part is drawn;
    `FACTOR=VALUE`, which pins it; `FACTOR.VALUE=0.01`, the probability of one value where the factor shows.

    Args:
        spec: `avatars` or `avatars-peeps`, perhaps with `:train` (the default) or `:test`, perhaps with settings.
        size: the side of the images where the spec names none.

    Raises:
        UnknownNameError, SettingError, MissingExtraError: as their names say.
    """
    base, query = parse_query(spec)
    name, _, split = base.partition(":")
    split = split or "train"
    if name not in STYLES:
        raise unknown_name("set of avatars", name, STYLES)
    if split not in COUNTS:
        raise unknown_name(f"split of {name}", split, COUNTS)
    factors = read_style(STYLES[name]).factors
    numbers: dict[str, int] = {}
    words: dict[str, str] = {}
    pinned: dict[str, str] = {}
    probabilities: dict[str, float] = {}
    for key, value in query.items():
        factor = factors.get(key.partition(".")[0])
        number = _as_float(value)
        if key in _NUMBERS:
            numbers[key] = whole_number(key, value)
        elif key == "background":
            words[key] = _as_color(value)
        elif factor is None:
            raise unknown_name(f"setting of {name}", key, [*_NUMBERS, "background", *factors])
        elif "." in key:
            if number is None:
                raise SettingError(f"{key} is a probability and must be a number in [0, 1], got {value!r}.")
            probabilities[key] = number
        elif factor.kind == "color":
            pinned[key] = _as_color(value)
        elif number is not None:
            probabilities[key] = number
        else:
            pinned[key] = value
    side = agreed_size(spec, numbers.pop("size", None), size, 64)
    return AvatarSettings(
        style=STYLES[name],
        split=split,
        size=side,
        count=numbers.get("count"),
        seed=numbers.get("seed", 0),
        pinned=pinned,
        probabilities=probabilities,
        **words,
    )


def load_avatars(
    settings: AvatarSettings, *, part: range | None = None, workers: int | None = None, progress: Progress = silent
) -> ImageSet:
    """Return a set of avatars with the factors that each image shows, drawn once and then kept in the cache.

    Image i depends on the settings and on i alone: a part holds the same images as the whole does there, and only a
    part is drawn where only a part is asked for. What was drawn lies in the cache as `avatars/HASH/`: `images.npy`,
    `factors.parquet` (one row an image, one column a factor) and the style's licence.

    Args:
        settings: what to draw.
        part: the numbers of the images that are wanted, one after the other; None: all.
        workers: how many processes draw; None: one a core. The images do not depend on it.
        progress: told how many images are drawn.

    Raises:
        MissingExtraError: the packages that draw are not installed.
        OutputExistsError: something that latlas did not write lies in the cache at that place.

    Cost: about 2 ms an image (pixel-art) or 4 ms (open-peeps) on each core, once.
    """
    whole = range(settings.total)
    part = whole if part is None else part
    versions = _versions()
    drawn = _cached(settings, whole, part, versions) or _cached(settings, part, part, versions)
    if drawn is None:
        folder = _folder(settings, part, versions)
        with suppress(ArtifactError):  # a cache that cannot be written costs a warning, once the images are drawn
            check_free(folder, replace=True)  # before any work
        pixels, rows = draw(settings, part, workers=workers, progress=progress)
        names = read_style(settings.style).factors
        factors = {name: tuple(row[place] for row in rows) for place, name in enumerate(names)}
        _keep(folder, settings, part, pixels, factors, versions)
        drawn = pixels, factors
    name = settings.spec if len(part) == len(whole) else f"{settings.spec}[{part.start}:{part.stop}]"
    return ImageSet(name=name, storage=torch.from_numpy(drawn[0]), factors=drawn[1])


def _folder(settings: AvatarSettings, part: range, versions: Mapping[str, str]) -> Path:
    text = json.dumps([_record(settings, part), dict(versions), _DRAWING], sort_keys=True)
    return cache_folder() / KIND / hashlib.sha256(text.encode()).hexdigest()[:32]


def _record(settings: AvatarSettings, part: range) -> dict[str, Any]:
    return {**asdict(settings), "count": settings.total, "part": [part.start, part.stop]}


def _cached(
    settings: AvatarSettings, stored: range, part: range, versions: Mapping[str, str]
) -> tuple[Pixels, dict[str, tuple[str, ...]]] | None:
    folder = _folder(settings, stored, versions)
    if not (folder / CONFIG).is_file():
        return None
    try:
        read_config(folder, kind=KIND)
        chosen = slice(part.start - stored.start, part.stop - stored.start)
        pixels = np.array(open_npy(folder / "images.npy")[chosen])
        factors = {name: values[chosen] for name, values in read_table(folder / "factors.parquet").items()}
    except ArtifactError as failure:
        logger.warning("The cached avatars are drawn again: %s", failure)
        return None
    return pixels, factors


def _keep(
    folder: Path,
    settings: AvatarSettings,
    part: range,
    pixels: Pixels,
    factors: Mapping[str, tuple[str, ...]],
    versions: Mapping[str, str],
) -> None:
    style = read_style(settings.style)
    try:
        with writing(folder, replace=True) as beside:
            np.save(beside / "images.npy", pixels, allow_pickle=False)
            write_table(beside / "factors.parquet", factors)
            (beside / "LICENSE.txt").write_text(style.licence + "\n", encoding="utf-8")
            write_config(
                beside,
                kind=KIND,
                settings=_record(settings, part),
                provenance=Provenance(made_by="load_avatars", seed=settings.seed, versions={**package_versions(), **versions}),
            )
    except ArtifactError as failure:
        # The images are here; that they must be drawn again next time is a pity and no reason to stop.
        logger.warning("The avatars could not be kept in the cache: %s", failure)


def _versions() -> dict[str, str]:
    try:
        return {name: metadata.version(name) for name in _PACKAGES}
    except metadata.PackageNotFoundError as absent:
        raise missing_extra(absent) from absent


def _as_float(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _as_color(value: str) -> str:
    return "#" + value.lower().removeprefix("#")
