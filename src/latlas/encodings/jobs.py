"""An encoding in the making: its plan, the folder of its shards, and how they become one encoding in its place."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from latlas.base.artifacts import CONFIG, FORMAT, config_text, writing
from latlas.base.errors import ArtifactError, ImageFormatError, LatlasError
from latlas.base.locking import FolderLock
from latlas.base.npy import open_npy
from latlas.base.placing import FINISHED, sync_folder
from latlas.base.provenance import Provenance, file_hash
from latlas.base.work_folders import discard
from latlas.encodings.arrays import write_bytes
from latlas.encodings.assembling import Piece, assemble
from latlas.encodings.encoding import KIND, Encoding, pieces_of, read_record
from latlas.encodings.left_out import keep_left_out
from latlas.encodings.origins import provenance_of
from latlas.encodings.shards import ShardPlan, ShardRecord, read_shard_record, tree_hash

STAGED = "staged"  # in the work folder: the name of the folder in which the whole encoding is being put together


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
        discard(self.work, self.out)
        return Encoding.from_pretrained(self.out, verify=False)

    def close(self) -> None:
        """Give the lock back; a work folder without one whole shard is removed."""
        with contextlib.suppress(OSError):
            if self.lock.held and not self.finished and len(self.missing()) == self.shards:
                discard(self.work, self.out)
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
        with _told_of_shards(self.work), writing(self.out, replace=self.replace or self.earlier is not None) as beside:
            # Should the process die in here, whoever comes next removes what it leaves.
            write_bytes(self.work / STAGED, [os.fsencode(beside.name)])
            hashes = assemble(pieces, beside, shard_rows=self.shard_rows)
            earlier = () if self.earlier is None else self.earlier.skipped
            skipped = [*earlier, *(each for record in whole for each in record.skipped())]
            listed, more = keep_left_out(skipped, beside)
            settings = self._settings(pieces) | {"skipped": listed}
            record = {
                "kind": KIND,
                "format": FORMAT,
                "settings": settings,
                "provenance": self._provenance(settings).to_json(),
                "files": hashes | {name: written.sha256 for name, written in more.items()},
            }
            (beside / CONFIG).write_text(config_text(record), encoding="utf-8")
            write_bytes(self.work / FINISHED, [file_hash(beside / CONFIG).encode()])
            sync_folder(self.work)

    def _settings(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        earlier = {} if self.earlier is None else read_record(self.out, verify=False)["settings"]
        tree = tree_hash(open_npy(piece.files["image_hashes"]) for piece in pieces)
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


@contextlib.contextmanager
def _told_of_shards(work: Path) -> Iterator[None]:
    """Take what cannot be put together for the fault of the shards, which are looked at by their sizes alone when they are found."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as failure:
        raise ArtifactError(f"A shard in {work} is damaged ({failure}). Delete that folder, and encode again.") from failure


def _piece(folder: Path, number: int, record: ShardRecord) -> Piece:
    end = f"-{number:05d}.npy"
    return Piece(
        rows=record.rows,
        files={name.removesuffix(end): folder / name for name in record.files},
        hashes={name.removesuffix(end): written.sha256 for name, written in record.files.items()},
    )


def _first_reason(records: Sequence[ShardRecord]) -> str:
    first = next((each for record in records for each in record.skipped()), None)
    return "none was given" if first is None else f"{first.name} ({first.reason})"


def _plan(values: dict[str, Any]) -> ShardPlan:
    return ShardPlan(**values)
