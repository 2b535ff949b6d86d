"""Shards of one encoding computed by the workers of an engine: each is written whole by whoever computed it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latlas.base.errors import EngineError, LatlasError, SettingError
from latlas.base.progress import Progress, silent
from latlas.data.images import ImageSource
from latlas.data.picture_files import PictureFiles
from latlas.encodings.encoding import Encoding
from latlas.encodings.engines.engine import Engine
from latlas.encodings.shards import ShardPlan, encode_shard, write_shard
from latlas.encodings.store import EncodingJob, open_job
from latlas.models.protocols import LatentModel, device_of
from latlas.training.precision import choose_device


def encode_with(
    engine: Engine,
    model: LatentModel,
    images: ImageSource,
    out: str | Path | None,
    *,
    progress: Progress = silent,
    **settings: Any,
) -> Encoding:
    """Return the encoding that an engine's workers have written, the same bytes as one process writes.

    Workers write their shards themselves, so that all of them must see `out` under its absolute path.

    Args:
        engine: who computes; one shard is an item.
        model: anything with `encode` that can be pickled.
        images: that can be pickled.
        out: folder to store the encoding in.
        progress: told in images, after each shard.
        settings: as of `open_job`.

    Raises:
        SettingError: no folder; else as `encode`.
        EngineError: workers that keep ending; another process of the same launch failed.
    """
    if out is None:
        raise SettingError("The workers of an engine write what they compute: give a folder (out, or --out).")
    with ExitStack() as held:
        job: EncodingJob | None = None
        failure: LatlasError | None = None
        if engine.leads:
            try:
                job = held.enter_context(open_job(model, images, out, **settings))
            except LatlasError as mistake:
                failure = mistake
        begun = _shared(engine, None if job is None else (_plan_of(job), job.missing()), failure)
        plan, missing = begun
        task, left = f"encoding {images.name}", plan.shards - len(missing)
        note = f"{left} of {plan.shards} shards kept" if left else ""
        done = plan.count - sum(stop - start for start, stop in map(plan.bounds, missing))
        tell = progress if engine.leads else silent
        tell(task, done, plan.count, note)
        for number, _ in engine.map(_ShardsOf(model, images, plan), missing):
            start, stop = plan.bounds(number)
            done += stop - start
            tell(task, done, plan.count, note)
        if job is not None:
            try:
                job.finish()
            except LatlasError as mistake:
                failure = mistake
        _shared(engine, None, failure)
    return Encoding.from_pretrained(out, verify=False)


def _shared(engine: Engine, value: Any, failure: LatlasError | None) -> Any:
    """Return the leader's value in every process; or raise its failure, so that none waits for the others."""
    given, message = engine.share((value, None if failure is None else str(failure)))
    if failure is not None:
        raise failure
    if message is not None:
        raise EngineError(f"The first process failed: {message}")
    return given


def _plan_of(job: EncodingJob) -> ShardPlan:
    values = {each.name: getattr(job, each.name) for each in fields(ShardPlan)}
    return ShardPlan(**values | {"folder": job.work.absolute()})  # workers may have been started elsewhere


@dataclass(frozen=True, eq=False)
class _ShardsOf:
    """Makes, in a worker, the function that computes and writes the shard of a number."""

    model: LatentModel
    images: ImageSource
    plan: ShardPlan

    def __call__(self) -> Callable[[int], None]:
        model: Any = self.model
        if isinstance(model, nn.Module) and device_of(model).type == "cuda":
            model = model.to(choose_device("auto"))  # each worker has a GPU of its own
        images = self.images
        if isinstance(images, PictureFiles) and device_of(model).type == "cpu":
            # A worker decodes by itself, or with the cores that are its share: not each with those of the whole machine.
            images = replace(images, workers=min(images.workers, torch.get_num_threads() - 1))
        return partial(_write, model, images, self.plan)


def _write(model: LatentModel, images: ImageSource, plan: ShardPlan, number: int) -> None:
    assert plan.folder is not None
    write_shard(plan.folder, encode_shard(model, images, number, plan))
