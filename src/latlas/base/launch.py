"""Whether a launcher (torchrun, SLURM's srun) started this process as one of several, and which one it is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from latlas.base.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The place of this process among those that a launcher started together."""

    launcher: str  # "torchrun" or "srun"
    rank: int  # of `world`, over all machines
    world: int
    local_rank: int  # on this machine: the number of its GPU
    local_world: int = 1  # processes on this machine, as far as the launcher tells


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return this process's place; None where nobody started several.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and MASTER_ADDR, and so does whoever starts processes by hand
    for `torch.distributed`; srun sets SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES, SLURM_PROCID and SLURM_LOCALID. A batch script
    that calls no srun is one process, whatever its job was allotted.

    Raises:
        SettingError: one of these variables is no number.
    """
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
        found = Launch(
            launcher="torchrun",
            rank=_number(environment, "RANK"),
            world=_number(environment, "WORLD_SIZE"),
            local_rank=_number(environment, "LOCAL_RANK"),
            local_world=max(1, _number(environment, "LOCAL_WORLD_SIZE")),
        )
    elif {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"} <= environment.keys():
        world, machines = _number(environment, "SLURM_STEP_NUM_TASKS"), _number(environment, "SLURM_STEP_NUM_NODES")
        found = Launch(
            launcher="srun",
            rank=_number(environment, "SLURM_PROCID"),
            world=world,
            local_rank=_number(environment, "SLURM_LOCALID"),
            local_world=max(1, -(-world // machines)) if machines > 0 else 1,
        )
    else:
        return None
    return found if found.world > 1 else None


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process is to speak for all: the only one, or the first of those started together.

    Lightning starts the other processes of one machine itself, and tells them their LOCAL_RANK and NODE_RANK.
    """
    found = launched(environment)
    if found is not None:
        return found.rank == 0
    return _number(environment, "LOCAL_RANK") == 0 and _number(environment, "NODE_RANK") == 0


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return which of this machine's devices is this process's: 0 unless several were started."""
    found = launched(environment)
    return _number(environment, "LOCAL_RANK") if found is None else found.local_rank


def check_processes(devices: int, nodes: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raise unless `devices` processes on each of `nodes` machines are what was started, or can be.

    Raises:
        SettingError: a launcher started another number; or several machines, and nothing that starts a process on each.
    """
    found, wanted = launched(environment), devices * nodes
    if found is not None and found.world != wanted:
        raise SettingError(
            f"{found.launcher} started {found.world} processes, and {wanted} were asked for (--devices {devices} on each of "
            f"--nodes {nodes}). Give numbers whose product is {found.world}."
        )
    if found is None and nodes > 1 and not {"MASTER_ADDR", "NODE_RANK"} <= environment.keys():
        raise SettingError(
            f"--nodes {nodes} needs the same command on each machine, started together: by srun, or by "
            f"torchrun --nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:29500."
        )


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment.get(name, "0"))
    except ValueError as failure:
        raise SettingError(f"The environment variable {name} should be a number, got {environment[name]!r}.") from failure
