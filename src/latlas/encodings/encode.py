"""Encoder x images -> Encoding."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from latlas.base.errors import ImageFormatError
from latlas.base.progress import Progress, silent
from latlas.base.threads import using_threads
from latlas.data.images import ImageSet, ImageSource
from latlas.encodings.distributed import encode_with
from latlas.encodings.encoding import Encoding
from latlas.encodings.engines.engine import Engine
from latlas.encodings.jobs import EncodingJob
from latlas.encodings.origins import encoding_batch, encoding_precision, provenance_of, reading_of
from latlas.encodings.shards import Shard, ShardPlan, encode_shards, tree_hash, write_shard
from latlas.encodings.store import SHARD_ROWS, open_job
from latlas.models.given import check_image_source
from latlas.models.protocols import Encoder, LatentModel, check_images, require_encoder, scaling_of

_WRITTEN_MEANWHILE = 1 << 22  # bytes of means: of larger shards two at a time would be a tenth of the process


def encode(
    model: LatentModel,
    images: ImageSource,
    *,
    out: str | Path | None = None,
    replace: bool = False,
    append: bool = False,
    dtype: str = "float32",
    shard_rows: int | None = None,
    precision: str = "float32",
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Encoding:
    """Return the codes of every image that can be read, in order.

    With `out` they are written shard by shard, and no more than one shard is in memory, however many images there are. A run
    that is cut off keeps its whole shards: the same call goes on with the others, and ends with the same bytes.

    Args:
        model: anything with `encode`.
        images: of the model's image shape; in memory or not.
        out: folder to store the encoding in.
        replace: whether an earlier artifact there may be replaced.
        append: whether the codes are added to those of an encoding that lies there, if one does.
        dtype: of the codes, "float32" or "float16".
        shard_rows: images of a shard, a multiple of 4096; None for 8192, or those of the encoding that is appended to.
        precision: what the model computes in: "float32", "bfloat16" (autocast), or "auto" (`choose_precision`).
        engine: who computes; needs `out`, and model and images travel to its workers. None: this process.
        progress: told in images, after each batch; of an engine, after each shard.

    Raises:
        CapabilityError: the model has no encoder.
        ImageFormatError: images of another shape; not one that can be read; a bad one, where the source's policy is to stop.
        NonFiniteError: the encoder returned NaN or infinity; names the first image.
        OutputExistsError: `out` already holds something.
        SettingError: an unfinished encoding of something else lies at `out`, or one that cannot be appended to; a setting out
            of its range; codes that float16 cannot hold.
        ArtifactError: `out` cannot be written to, or another process is writing there.
        EngineError: workers that keep ending.
    """
    require_encoder(model, "Encoding")
    check_image_source(images, "Encoding")
    if engine is not None:
        return encode_with(
            engine,
            model,
            images,
            out,
            replace=replace,
            append=append,
            dtype=dtype,
            shard_rows=shard_rows,
            precision=precision,
            progress=progress,
        )
    task = f"encoding {images.name}"
    if out is not None:
        with open_job(
            model,
            images,
            out,
            replace=replace,
            append=append,
            dtype=dtype,
            shard_rows=shard_rows,
            precision=precision,
        ) as job:
            _write_missing(job, model, images, task, progress)
            return job.finish()
    encoder = require_encoder(model, "Encoding")
    check_images(images.image_shape, encoder, name=images.name)
    plan = ShardPlan(
        folder=None,
        count=len(images),
        shard_rows=SHARD_ROWS if shard_rows is None else shard_rows,
        batch_size=encoding_batch(encoder),
        dtype=dtype,
        precision=encoding_precision(precision, encoder),
        hashed=not isinstance(images, ImageSet),  # which has a hash of its own
    )
    if not plan.count:
        raise ImageFormatError(f"{images.name} holds no images.")
    told = _Told(progress, task, plan.count, 0)
    shards = list(encode_shards(encoder, images, range(plan.shards), plan, told=told))
    return _in_memory([shard for shard in shards if len(shard)], shards, encoder, images, plan)


def _write_missing(job: EncodingJob, model: LatentModel, images: ImageSource, task: str, progress: Progress) -> None:
    missing = job.missing()
    kept = job.shards - len(missing)
    done = job.count - sum(stop - start for start, stop in map(job.bounds, missing))
    told = _Told(progress, task, job.count, done, f"{kept} of {job.shards} shards kept" if kept else "")
    # Half of the time of writing is waiting for the disk: meanwhile the next shard is computed, where two take little memory.
    with using_threads(job.threads), ThreadPoolExecutor(max_workers=1) as writer:
        writing: Future[None] | None = None
        for shard in encode_shards(model, images, missing, job, told=told):
            if writing is not None:
                writing.result()
            writing = writer.submit(write_shard, job.work, shard)
            if shard.mean.nbytes > _WRITTEN_MEANWHILE:
                writing.result()
            del shard
        if writing is not None:
            writing.result()


def _in_memory(
    filled: Sequence[Shard], shards: Sequence[Shard], encoder: Encoder, images: ImageSource, plan: ShardPlan
) -> Encoding:
    skipped = tuple(each for shard in shards for each in shard.skipped)
    if not filled:
        raise ImageFormatError(f"Not one image of {images.name} could be read.")
    tree = tree_hash(shard.image_hashes for shard in filled if shard.image_hashes is not None) if plan.hashed else ""
    content = images.content_hash if isinstance(images, ImageSet) else tree
    log_variances = [shard.log_variance for shard in filled if shard.log_variance is not None]
    labels = [shard.labels for shard in filled if shard.labels is not None]
    return Encoding(
        mean=torch.cat([shard.mean for shard in filled]),
        log_variance=torch.cat(log_variances) if log_variances else None,
        model=encoder.name,
        images=images.name,
        images_hash=content,
        provenance=provenance_of(
            plan,
            fingerprint=encoder.fingerprint,
            images_hash=content,
            scaling=scaling_of(encoder),
            reading=reading_of(images),
        ),
        indices=torch.cat([shard.indices for shard in filled]),
        names=tuple(name for shard in filled for name in shard.names),
        labels=torch.cat(labels) if labels else None,
        skipped=skipped,
        images_tree=tree,
    )


class _Told:
    """Adds up images for a `Progress`, from those that are kept."""

    def __init__(self, progress: Progress, task: str, total: int, done: int, note: str = "") -> None:
        self.progress, self.task, self.total, self.done, self.note = progress, task, total, done, note
        progress(task, done, total, note)

    def __call__(self, images: int) -> None:
        self.done += images
        self.progress(self.task, self.done, self.total, self.note)
