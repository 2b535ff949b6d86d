"""Shards of one encoding computed by the workers of an engine: each is written whole by whoever computed it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from latlas.base.errors import EngineError, LatlasError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.threads import using_threads
from latlas.data.images import ImageSource
from latlas.data.picture_files import PictureFiles
from latlas.encodings.encoding import Encoding
from latlas.encodings.engines.engine import Engine
from latlas.encodings.jobs import EncodingJob
from latlas.encodings.shards import ShardPlan, encode_shard, write_shard
from latlas.encodings.store import open_job
from latlas.models.protocols import LatentModel, device_of
from latlas.training.precision import choose_device

Network = TypeVar("Network")


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
                job = held.enter_context(open_job(model, images, out, threads=engine.threads, **settings))
            except LatlasError as mistake:
                failure = mistake
        begun = _shared(engine, None if job is None else (_plan_of(job), job.missing()), failure)
        plan, missing = begun
        task, left = f"encoding {images.name}", plan.shards - len(missing)
        note = f"{left} of {plan.shards} shards kept" if left else ""
        done = plan.count - sum(stop - start for start, stop in map(plan.bounds, missing))
        tell = progress if engine.leads else silent
        tell(task, done, plan.count, note)
        make = _ShardsOf(model, decoded_by(engine, images, device_of(model)), plan, moved=engine.several)
        for number, _ in engine.map(make, missing):
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


def decoded_by(engine: Engine, images: ImageSource, device: torch.device) -> ImageSource:
    """Return a source as each worker of an engine is to read it: with decoders of its share of the cores, not of a whole machine.

    Args:
        engine: whose workers read.
        images: the source.
        device: that a worker computes on.
    """
    if not engine.several or not isinstance(images, PictureFiles):
        return images
    # On a CPU the network wants the same cores; beside a GPU they have nothing else to do.
    most = engine.threads - 1 if device.type == "cpu" else engine.cores
    return replace(images, workers=min(images.workers, most))


def on_own_device(network: Network) -> Network:
    """Return a network that came to a worker, on the worker's own GPU where it was on one."""
    if isinstance(network, nn.Module) and device_of(network).type == "cuda":
        return network.to(choose_device("auto"))
    return network


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
    moved: bool  # to the worker's own GPU, off that of whoever sent it

    def __call__(self) -> Callable[[int], None]:
        return partial(_write, on_own_device(self.model) if self.moved else self.model, self.images, self.plan)


def _write(model: LatentModel, images: ImageSource, plan: ShardPlan, number: int) -> None:
    assert plan.folder is not None
    with using_threads(plan.threads):
        shard = encode_shard(model, images, number, plan)
    write_shard(plan.folder, shard)
