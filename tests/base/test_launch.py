"""Who started this process: the variables that torchrun, srun and Lightning set, and what does not fit them."""

import pytest

from latlas.base.errors import SettingError
from latlas.base.launch import Launch, check_processes, is_first, launched, local_rank

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
SRUN = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
# As Lightning's launcher tells the second process that it starts itself.
LIGHTNING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "WORLD_SIZE": "2", "NODE_RANK": "0", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(("environment", "launcher"), [(TORCHRUN, "torchrun"), (SRUN, "srun")])
def test_a_launcher_tells_each_process_its_place(environment: dict[str, str], launcher: str) -> None:
    assert launched(environment) == Launch(launcher=launcher, rank=5, world=8, local_rank=1)
    told = launched({**environment, "LOCAL_WORLD_SIZE": "3", "SLURM_STEP_NUM_NODES": "3"})
    assert told is not None
    assert told.local_world == 3, "of 8 on 3 machines, one has 3 at least"
    assert not is_first(environment)
    assert local_rank(environment) == 1


@pytest.mark.parametrize(
    "environment",
    [
        {},
        LIGHTNING,
        {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script, before it calls srun
    ],
)
def test_one_process_alone_was_not_launched(environment: dict[str, str]) -> None:
    assert launched(environment) is None


def test_one_of_several_speaks() -> None:
    assert is_first({})
    assert is_first({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"})
    assert not is_first({**TORCHRUN, "RANK": "4", "LOCAL_RANK": "0"})  # the first of the second machine
    assert is_first({**LIGHTNING, "LOCAL_RANK": "0"})
    assert not is_first(LIGHTNING)
    assert not is_first({**LIGHTNING, "LOCAL_RANK": "0", "NODE_RANK": "1"})


def test_processes_are_those_that_were_started() -> None:
    check_processes(1, 1, {})
    check_processes(4, 1, {})  # Lightning starts them
    check_processes(4, 2, TORCHRUN)
    check_processes(4, 2, SRUN)
    check_processes(1, 2, {"MASTER_ADDR": "node0", "NODE_RANK": "1"})  # by hand, on each machine
    with pytest.raises(
        SettingError, match=r"torchrun started 8 processes, and 1 were asked for \(--devices 1 on each of --nodes 1\)"
    ):
        check_processes(1, 1, TORCHRUN)
    with pytest.raises(SettingError, match="srun started 8 processes, and 4 were asked for"):
        check_processes(4, 1, SRUN)
    with pytest.raises(SettingError, match="--nodes 2 needs the same command on each machine"):
        check_processes(1, 2, {})


def test_a_variable_that_is_no_number_is_told() -> None:
    with pytest.raises(SettingError, match="RANK should be a number, got 'first'"):
        launched({**TORCHRUN, "RANK": "first"})
