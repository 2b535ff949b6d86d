"""Mini-batches cut from one tensor in memory: no per-image Python, reshuffled every epoch, shared out over processes."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from latlas.base.seeds import generator


class TensorRows(Dataset[Tensor]):
    """A tensor that is indexed by a whole batch of rows at once."""

    def __init__(self, storage: Tensor) -> None:
        self.storage = storage

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.storage[rows]

    def __len__(self) -> int:
        return self.storage.shape[0]


class ShuffledRows(Sampler[Tensor]):
    """Yields the rows of each step: a permutation that depends on seed and epoch alone.

    A step holds the rows of several mini-batches (`per_step` of them): one call of the training loop then runs several
    optimiser steps, which spreads the loop's overhead over them. The last, incomplete mini-batch is left out; a
    different one each epoch, since the order changes. Each process takes its own share of every mini-batch.

    Args:
        count: rows in all.
        batch: rows of a mini-batch, over all processes.
        per_step: mini-batches yielded together.
        seed: decides every permutation.
        rank: this process.
        world: number of processes; must divide `batch`.
    """

    def __init__(self, count: int, batch: int, *, per_step: int = 1, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.count, self.batch, self.per_step = count, min(batch, count), per_step
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    @property
    def mini_batches(self) -> int:
        """Optimiser steps in an epoch."""
        return self.count // self.batch

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(self.count, generator=generator(self.seed, "epoch", self.epoch))
        shares = order[: self.mini_batches * self.batch].view(self.mini_batches, self.batch)[:, self.rank :: self.world]
        for start in range(0, self.mini_batches, self.per_step):
            yield shares[start : start + self.per_step].flatten()

    def __len__(self) -> int:
        return -(-self.mini_batches // self.per_step)


def training_loader(storage: Tensor, rows: ShuffledRows, *, pin: bool = False) -> DataLoader[Tensor]:
    """Return the loader of a training: each item holds the pixels of one step."""
    # Without a generator of its own a loader draws from the caller's, though nothing here uses what it draws.
    own = generator(rows.seed, "loader")
    return DataLoader(TensorRows(storage), batch_size=None, sampler=rows, pin_memory=pin, generator=own)
