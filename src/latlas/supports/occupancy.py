"""How many codes lie in each sector, of more codes than one process counts."""

from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from latlas.base.progress import Progress, silent
from latlas.encodings.engines.engine import Engine
from latlas.encodings.statistics import CodesLike, measure_rows, rows_of
from latlas.supports.sectors import Sectors


def count_occupancy(
    sectors: Sectors, codes: CodesLike, *, engine: Engine | None = None, progress: Progress = silent
) -> Int[Tensor, " sectors"]:
    """Return how many codes lie in each sector: what `Sectors.occupancy` says, counted in parts.

    Args:
        sectors: whose members are counted.
        codes: in memory, an encoding, or the folder of one.
        engine: who counts; None: this process.
        progress: told after each part.

    Raises:
        CodeShapeError: codes that lack a variable, or are no matrix.
        IllPosedError: no codes.
    """
    count = partial(_count, sectors)
    return measure_rows([rows_of(codes)], count, torch.add, engine=engine, task="sectors", progress=progress)


def _count(sectors: Sectors, codes: Tensor) -> Tensor:
    return sectors.occupancy(codes)
