"""An encoding that grows shard by shard in a folder beside its place, and takes its place when it is whole.

The work folder of NAME is `.NAME.encoding`. A process that dies leaves whole shards there; the same encoding, started again,
goes on with those that are missing and ends with the same bytes. One process at a time holds the folder.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from latlas.base.artifacts import CONFIG, FORMAT, check_free, check_place, config_text, read_json, writing
from latlas.base.errors import ArtifactError, ImageFormatError, LatlasError, OutputExistsError, SettingError
from latlas.base.locking import FolderLock
from latlas.base.placing import clear_leftovers
from latlas.base.provenance import UNSTATED, Provenance, file_hash, package_versions
from latlas.data.images import ImageSet, ImageSource
from latlas.encodings.arrays import sync_folder, write_bytes
from latlas.encodings.assembling import Piece, assemble
from latlas.encodings.encoding import KIND, Encoding, pieces_of, read_record
from latlas.encodings.left_out import keep_left_out
from latlas.encodings.origins import differences, encoding_precision, provenance_of, reading_of
from latlas.encodings.shards import ShardPlan, ShardRecord, read_shard_record, tree_hash
from latlas.models.protocols import LatentModel, check_images, images_at_once, require_encoder, scaling_of
from latlas.training.precision import Precision

SHARD_ROWS = 8192
# An opened encoding maps up to 7 times as many files, a map is fitted to two of them, and the system maps 65,530 at once.
MOST_SHARDS = 4_000

_JOB = "job.json"
_FINISHED = "finished"  # the hash of the config that takes its place next
_STAGED = "staged"  # where the whole encoding is being put together


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodingJob(ShardPlan):
    """An encoding in the making: its plan, the folder of its shards, and the lock on it; a context, which gives the lock back.

    Sent to another process it is the plan alone: whoever computes shards needs no lock.
    """

    out: Path
    replace: bool
    record: Mapping[str, Any]  # what the job was opened with
    earlier: Encoding | None  # what is appended to
    source_name: str
    content_hash: str | None  # of images that are in memory
    reading: Mapping[str, str]  # how pixels came from files
    lock: FolderLock
    finished: bool  # the encoding has taken its place, and the process died before it had cleared up

    @property
    def work(self) -> Path:
        """The folder of the shards."""
        assert self.folder is not None
        return self.folder

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there."""
        if self.finished:
            return []
        return [number for number in range(self.shards) if read_shard_record(self.work, number) is None]

    def finish(self) -> Encoding:
        """Put the encoding into its place, remove the work folder, and return it, its codes on disk.

        Raises:
            ValueError: shards are missing.
            ImageFormatError: not one image could be read.
            ArtifactError: it could not be written; the shards are kept.
        """
        if not self.finished:
            self._put_in_place()
        _clear(self.work)
        return Encoding.from_pretrained(self.out, verify=False)

    def close(self) -> None:
        """Give the lock back; a work folder without one whole shard is removed."""
        with contextlib.suppress(OSError):
            if self.lock.held and not self.finished and len(self.missing()) == self.shards:
                _clear(self.work)
        self.lock.release()

    def __enter__(self) -> "EncodingJob":
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        kept = self.shards - len(self.missing()) if raised is not None else 0
        self.close()
        told = f"{kept} of {self.shards} shards"
        if kept and isinstance(raised, LatlasError):
            goes_on = ": the same command goes on with the others" if isinstance(raised, ArtifactError) else ""
            raise type(raised)(f"{raised} {told} are kept{goes_on}.") from raised
        if kept and isinstance(raised, KeyboardInterrupt):
            raise KeyboardInterrupt(f"{told} are kept: the same command goes on with the others") from raised

    def __reduce__(self) -> tuple[Any, ...]:
        return _plan, ({each.name: getattr(self, each.name) for each in fields(ShardPlan)},)

    def _put_in_place(self) -> None:
        records = [read_shard_record(self.work, number) for number in range(self.shards)]
        whole = [record for record in records if record is not None]
        if len(whole) < len(records):
            raise ValueError(f"{len(records) - len(whole)} shards are missing")
        if self.earlier is not None and file_hash(self.out / CONFIG) != self.record["appended to"]:
            raise ArtifactError(
                f"{self.out} was changed while codes were being made to append to it: nothing was written there."
            )
        own = [_piece(self.work, number, record) for number, record in enumerate(whole) if record.rows]
        pieces = [*([] if self.earlier is None else pieces_of(self.out)), *own]
        if not own:
            raise ImageFormatError(f"Not one image of {self.source_name} could be read; the first: {_first_reason(whole)}.")
        with writing(self.out, replace=self.replace or self.earlier is not None) as beside:
            # Should the process die in here, whoever comes next removes what it leaves.
            write_bytes(self.work / _STAGED, [beside.name.encode()])
            hashes = assemble(pieces, beside, shard_rows=self.shard_rows)
            earlier = () if self.earlier is None else self.earlier.skipped
            skipped = [*earlier, *(each for record in whole for each in record.skipped)]
            listed, more = keep_left_out(skipped, beside)
            settings = self._settings(pieces) | {"skipped": listed}
            record = {
                "kind": KIND,
                "format": FORMAT,
                "settings": settings,
                "provenance": self._provenance(settings).to_json(),
                "files": hashes | more,
            }
            (beside / CONFIG).write_text(config_text(record), encoding="utf-8")
            write_bytes(self.work / _FINISHED, [file_hash(beside / CONFIG).encode()])
            sync_folder(self.work)

    def _settings(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        earlier = {} if self.earlier is None else read_record(self.out, verify=False)["settings"]
        tree = tree_hash(np.load(piece.files["image_hashes"], mmap_mode="r", allow_pickle=False) for piece in pieces)
        listed = {
            "name": self.source_name,
            "count": self.count,
            "listing_hash": self.record["images"],
            "reading": dict(self.reading),
        }
        return {
            "model": self.record["model"],
            "images": f"{earlier['images']} + {self.source_name}" if earlier else self.source_name,
            "images_hash": tree if self.content_hash is None or earlier else self.content_hash,
            "images_tree": tree,
            "rows": sum(piece.rows for piece in pieces),
            "shard_rows": self.shard_rows,
            "dtype": self.dtype,
            "sources": [*earlier.get("sources", ()), listed],
        }

    def _provenance(self, settings: Mapping[str, Any]) -> Provenance:
        return provenance_of(
            self,
            fingerprint=self.record["fingerprint"],
            images_hash=settings["images_hash"],
            scaling=self.record["scaling"],
            reading=self.reading,
            appended_to=self.record["appended to"],
            versions=self.record["versions"],
        )


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
        batch_size: images encoded at once; None for what the model's image shape allows. A job that is gone on with keeps its own.
        precision: what the model computes in: "float32", "bfloat16" (autocast), or "auto" (`choose_precision`).

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
        finished = found is not None and (work / _FINISHED).is_file()
        earlier = None
        if not finished:
            _check_target(target, replace=replace, append=append)
            earlier = _earlier(target, asked, shard_rows) if append and (target / CONFIG).is_file() else None
        plan = _plan_of(source, work, earlier, target, dtype=dtype, shard_rows=shard_rows)
        asked |= {"shard rows": plan["shard_rows"], "appended to": None if earlier is None else file_hash(target / CONFIG)}
        if found is not None:
            _check_same(work, found, asked, leave_out=("appended to", "shard rows") if finished else ())
            chosen = Precision(**found["precision"])
            plan["batch_size"] = found["batch size"]
        else:
            chosen = encoding_precision(precision, encoder)
            plan["batch_size"] = batch_size if batch_size is not None else images_at_once(source.image_shape)
            record = {**asked, "precision": chosen.to_json(), "batch size": plan["batch_size"]}
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
            _clear(work)
        lock.release()
        if isinstance(failure, OSError):
            raise ArtifactError(f"Could not write {work}: {failure.strerror or failure}. Name another place.") from failure
        raise


def work_folder(out: str | Path) -> Path:
    """Return the folder beside `out` where shards live until the encoding is whole."""
    return Path(out).parent / f".{Path(out).name}.encoding"


def _check_target(target: Path, *, replace: bool, append: bool) -> None:
    if append and (target / CONFIG).is_file():
        check_place(target)
        return
    check_free(target, replace=replace)


def _found(work: Path, target: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of the job that lies in a work folder; clear the folder of what nobody can go on with."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        staged = (work / _STAGED).read_text(encoding="utf-8")
        if staged.startswith(f".{target.name}.") and "/" not in staged:
            shutil.rmtree(target.parent / staged, ignore_errors=True)
    clear_leftovers(target, CONFIG, file_hash)  # and puts back what had made room for the new encoding
    try:
        found = read_json(work / _JOB)
    except ArtifactError:
        found = None
    marked = (work / _FINISHED).is_file()
    done = marked and (target / CONFIG).is_file() and file_hash(target / CONFIG) == (work / _FINISHED).read_text("utf-8")
    # A fingerprint that is not stated tells no model from another: what it made may not be mixed with what this one makes.
    if not isinstance(found, dict) or UNSTATED in (found.get("fingerprint"), asked["fingerprint"]):
        _empty(work)
        return None
    if marked and not done:  # it died between saying so and doing so
        (work / _FINISHED).unlink()
    if done and differences(found, asked):  # another encoding, which was whole: only its work folder is left of it
        _empty(work)
        return None
    return found


def _earlier(target: Path, asked: Mapping[str, Any], shard_rows: int | None) -> Encoding:
    record = read_record(target, verify=False)
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


def _piece(folder: Path, number: int, record: ShardRecord) -> Piece:
    end = f"-{number:05d}.npy"
    return Piece(
        rows=record.rows,
        files={name.removesuffix(end): folder / name for name in record.files},
        hashes={name.removesuffix(end): written.sha256 for name, written in record.files.items()},
    )


def _first_reason(records: Sequence[ShardRecord]) -> str:
    first = next((each for record in records for each in record.skipped), None)
    return "none was given" if first is None else f"{first.name} ({first.reason})"


def _empty(work: Path) -> None:
    """Remove all but the lock, the job's own record first: without it nobody takes the rest for shards to go on with."""
    (work / _JOB).unlink(missing_ok=True)
    for path in work.iterdir():
        if path.name != "lock":
            path.unlink(missing_ok=True)


def _clear(work: Path) -> None:
    with contextlib.suppress(OSError):
        _empty(work)
    shutil.rmtree(work, ignore_errors=True)


def _plan(values: dict[str, Any]) -> ShardPlan:
    return ShardPlan(**values)
