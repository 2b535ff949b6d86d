"""An encoding that grows shard by shard in a folder beside its place, and takes its place when it is whole.

The work folder of NAME is `.NAME.encoding`. A process that dies leaves whole shards there; the same encoding, started again,
goes on with those that are missing and ends with the same bytes. One process at a time holds the folder.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from latlas.base.artifacts import CONFIG, check_free, check_place, read_json
from latlas.base.errors import ArtifactError, ImageFormatError, OutputExistsError, SettingError
from latlas.base.locking import LOCK, FolderLock
from latlas.base.placing import FINISHED, clear_leftovers, is_beside, sync_folder
from latlas.base.provenance import UNSTATED, Provenance, file_hash, package_versions
from latlas.base.work_folders import discard, is_finished, work_folder_of
from latlas.data.images import ImageSet, ImageSource
from latlas.encodings.arrays import PARTIAL, write_bytes
from latlas.encodings.encoding import Encoding, read_record
from latlas.encodings.jobs import STAGED, EncodingJob
from latlas.encodings.origins import differences, encoding_batch, encoding_precision, reading_of
from latlas.encodings.shards import ShardPlan
from latlas.models.protocols import LatentModel, check_images, require_encoder, scaling_of
from latlas.training.precision import Precision

SHARD_ROWS = 8192
# An opened encoding maps up to 7 times as many files, a map is fitted to two of them, and the system maps 65,530 at once.
MOST_SHARDS = 4_000

_JOB = "job.json"


def open_job(
    model: LatentModel,
    source: ImageSource,
    out: str | Path,
    *,
    replace: bool = False,
    append: bool = False,
    dtype: str = "float32",
    shard_rows: int | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    threads: int | None = None,
) -> EncodingJob:
    """Return the job of encoding a source into a folder: begun, or found where an earlier process left it.

    Args:
        model: anything with `encode`.
        source: of the model's image shape.
        out: where the encoding shall lie.
        replace: whether an earlier artifact there may be replaced, once the new one is whole.
        append: whether the codes are added to those of an encoding that lies there, if one does.
        dtype: of the codes, "float32" or "float16".
        shard_rows: images of a shard, a multiple of 4096; None for 8192, or those of the encoding that is appended to.
        batch_size: images encoded at once; None for `encoding_batch`. A job that is gone on with keeps its own.
        precision: what the model computes in: "float32", "bfloat16" (autocast), or "auto" (`choose_precision`).
        threads: that shards are computed with; None for this process's. A job that is gone on with keeps its own, since
            convolutions sum in another order on another number of them.

    Raises:
        CapabilityError: the model has no encoder.
        ImageFormatError: images of another shape, or none.
        OutputExistsError: `out` holds something, and neither replacing nor appending can be done.
        SettingError: an unfinished encoding of another model, of other images or with other settings lies there, or a whole one
            that cannot be appended to; settings out of their range.
        ArtifactError: another process is writing there, or nobody can.
    """
    encoder = require_encoder(model, "Encoding")
    check_images(source.image_shape, encoder, name=source.name)
    if not len(source):
        raise ImageFormatError(f"{source.name} holds no images.")
    if replace and append:
        raise SettingError("Codes are either appended to an encoding or replace it. Leave one of the two out.")
    target = Path(out)
    work = work_folder(target)
    asked = {
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "images": source.listing_hash,
        "images name": source.name,
        "scaling": scaling_of(encoder),
        "dtype": dtype,
        "precision asked for": precision,
        "versions": package_versions(),
    }
    if not work.exists():
        _check_target(target, replace=replace, append=append)
    lock = FolderLock(work)
    try:
        found = _found(work, target, asked)
        finished = found is not None and is_finished(work, target)
        earlier = None
        if not finished:
            _check_target(target, replace=replace, append=append)
            earlier = _earlier(target, asked, shard_rows) if append and (target / CONFIG).is_file() else None
        plan = _plan_of(source, work, earlier, target, dtype=dtype, shard_rows=shard_rows)
        asked |= {"shard rows": plan["shard_rows"], "appended to": None if earlier is None else file_hash(target / CONFIG)}
        if found is not None:
            _check_same(work, found, asked, leave_out=("appended to", "shard rows") if finished else ())
            chosen = Precision(**found["precision"])
            plan["batch_size"], plan["threads"] = found["batch size"], found.get("threads")
        else:
            chosen = encoding_precision(precision, encoder)
            plan["batch_size"] = batch_size if batch_size is not None else encoding_batch(encoder)
            plan["threads"] = torch.get_num_threads() if threads is None else threads
            chosen_here = {"precision": chosen.to_json(), "batch size": plan["batch_size"], "threads": plan["threads"]}
            record = asked | chosen_here
            write_bytes(work / _JOB, [(json.dumps(record, indent=1, sort_keys=True) + "\n").encode()])
            sync_folder(work)
        return EncodingJob(
            **plan,
            dtype=dtype,
            precision=chosen,
            hashed=True,
            out=target,
            replace=replace,
            record=asked,
            earlier=earlier,
            source_name=source.name,
            content_hash=source.content_hash if isinstance(source, ImageSet) else None,
            reading=reading_of(source),
            lock=lock,
            finished=finished,
        )
    except BaseException as failure:
        if not (work / _JOB).is_file():
            discard(work, target)
        lock.release()
        if isinstance(failure, OSError):
            raise ArtifactError(f"Could not write {work}: {failure.strerror or failure}. Name another place.") from failure
        raise


def work_folder(out: str | Path) -> Path:
    """Return the folder beside `out` where shards live until the encoding is whole."""
    return work_folder_of(Path(out), "encoding")


def _check_target(target: Path, *, replace: bool, append: bool) -> None:
    if append and (target / CONFIG).is_file():
        check_place(target)
        return
    check_free(target, replace=replace)


def _found(work: Path, target: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of the job that lies in a work folder; clear the folder of what nobody can go on with."""
    with contextlib.suppress(OSError):
        staged = os.fsdecode((work / STAGED).read_bytes())
        if is_beside(staged, target):
            shutil.rmtree(target.parent / staged, ignore_errors=True)
    clear_leftovers(target, CONFIG, file_hash)  # and puts back what had made room for the new encoding
    for left in work.glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)
    try:
        found = read_json(work / _JOB)
    except ArtifactError:
        found = None
    done = is_finished(work, target)
    # A fingerprint that is not stated tells no model from another: what it made may not be mixed with what this one makes.
    if not isinstance(found, dict) or not _is_whole(found) or UNSTATED in (found.get("fingerprint"), asked["fingerprint"]):
        _empty(work)
        return None
    if not done:  # it may have died between saying so and doing so
        (work / FINISHED).unlink(missing_ok=True)
    if done and differences(found, asked):  # another encoding, which was whole: only its work folder is left of it
        _empty(work)
        return None
    return found


def _is_whole(job: Mapping[str, Any]) -> bool:
    """Tell whether a job's record has what a job that is gone on with takes from it."""
    precision, batch_size, threads = job.get("precision"), job.get("batch size"), job.get("threads")
    return (
        isinstance(job.get("versions", {}), dict)
        and isinstance(precision, dict)
        and precision.keys() == {each.name for each in fields(Precision)}
        and precision["autocast"] in ("float32", "bfloat16")
        and all(isinstance(count, int) and 0 < count < 2**31 for count in (batch_size, 1 if threads is None else threads))
    )


def _earlier(target: Path, asked: Mapping[str, Any], shard_rows: int | None) -> Encoding:
    record = read_record(target, verify=False)
    try:
        return _fitting(target, record, asked, shard_rows)
    except (LookupError, TypeError, ValueError, AttributeError) as failure:  # of a config that latlas never wrote
        raise ArtifactError(
            f"{target} is not a readable encoding ({type(failure).__name__}: {failure}). Encode again."
        ) from failure


def _fitting(target: Path, record: Mapping[str, Any], asked: Mapping[str, Any], shard_rows: int | None) -> Encoding:
    settings, provenance = record["settings"], Provenance.from_json(record["provenance"])
    if "images_tree" not in settings or "sources" not in settings:
        raise SettingError(
            f"{target} keeps no hashes of its images, so nothing can be appended to it. Encode them into a folder: encode(…, out=…)."
        )
    there = {
        "model": settings["model"],
        "fingerprint": provenance.made_from.get("model"),
        "scaling": provenance.settings.get("scaling"),
        "dtype": settings["dtype"],
        "shard rows": settings["shard_rows"],
    }
    here = {**asked, "shard rows": settings["shard_rows"] if shard_rows is None else shard_rows}
    found = differences(there, here)
    if UNSTATED in (there["fingerprint"], here["fingerprint"]):
        found = ["a model that states no fingerprint"]
    if found:
        raise SettingError(f"The codes in {target} cannot be appended to: they differ in {', '.join(found)}.")
    if not all(isinstance(each["count"], int) and each["count"] >= 0 for each in settings["sources"]):
        raise ValueError("its sources do not count their images")
    if asked["images"] in {each["listing_hash"] for each in settings["sources"]}:
        raise OutputExistsError(f"{target} already holds the codes of these images: nothing is to be appended.")
    return Encoding.from_pretrained(target, verify=False)


def _plan_of(
    source: ImageSource, work: Path, earlier: Encoding | None, target: Path, *, dtype: str, shard_rows: int | None
) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "folder": work,
        "count": len(source),
        "shard_rows": SHARD_ROWS if shard_rows is None else shard_rows,
    }
    if earlier is not None:
        settings = read_record(target, verify=False)["settings"]
        plan["shard_rows"] = settings["shard_rows"]
        plan["lead"] = settings["shard_rows"] - len(earlier) % settings["shard_rows"]
        plan["offset"] = sum(each["count"] for each in settings["sources"])
    # The plan's own checks, before any shard is counted.
    shards = ShardPlan(
        **plan, batch_size=1, dtype=dtype, precision=Precision(autocast="float32", channels_last=False, why=""), hashed=True
    ).shards
    images = len(source) + plan.get("offset", 0)
    if max(shards, images // plan["shard_rows"]) > MOST_SHARDS:
        least = -(-images // (MOST_SHARDS * SHARD_ROWS)) * SHARD_ROWS
        raise SettingError(
            f"{images:,} images in shards of {plan['shard_rows']:,} are {-(-images // plan['shard_rows']):,} files of each kind, "
            f"and {MOST_SHARDS:,} are the most. Give shards of {least} rows (--shard-rows)."
        )
    return plan


def _check_same(work: Path, found: Mapping[str, Any], asked: Mapping[str, Any], *, leave_out: Sequence[str]) -> None:
    told = differences(found, {key: value for key, value in asked.items() if key not in leave_out})
    if told:
        raise SettingError(
            f"{work} holds an unfinished encoding that differs in {', '.join(told)}. "
            "Start again with what it was begun with to go on with it, or delete it."
        )


def _empty(work: Path) -> None:
    """Remove all but the lock, the job's own record first: without it nobody takes the rest for shards to go on with."""
    (work / _JOB).unlink(missing_ok=True)
    for path in work.iterdir():
        if path.name != LOCK:
            path.unlink(missing_ok=True)
