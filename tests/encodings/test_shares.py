"""What workers that share a machine take of it, whoever carries the work: decoders, threads, a GPU of their own."""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from latlas.base.errors import SettingError
from latlas.base.launch import Launch
from latlas.base.threads import using_threads
from latlas.data.images import ImageSet
from latlas.data.listings import list_folder
from latlas.data.picture_files import PictureFiles, open_pictures
from latlas.encodings import distributed
from latlas.encodings.distributed import decoded_by, encode_with, on_own_device
from latlas.encodings.encode import encode
from latlas.encodings.engines import processes
from latlas.encodings.engines.engine import Engine, Item, LocalEngine, Result
from latlas.encodings.engines.named import engine_named
from latlas.encodings.engines.processes import TorchEngine
from latlas.encodings.shards import encode_shard, write_shard
from latlas.encodings.store import open_job
from latlas.measurements.feature_moments import feature_moments
from latlas.measurements.features import RawPixels
from latlas.models.adapters.callables import CallableModel

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@dataclass(frozen=True)
class Noting(Engine):
    """Works here, says that its workers share machines, and keeps what they would have been sent."""

    name: str = "noting"
    sent: list[Any] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    several: bool = True
    threads: int = 3
    cores: int = 5

    def results(
        self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        self.sent.append(make)
        function = make()
        try:
            for place in reversed(range(len(items))):
                yield place, function(items[place])
        finally:
            self.ended.append("ended")


@pytest.fixture
def pictures(tmp_path: Path) -> PictureFiles:
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(tmp_path / "pictures" / f"{number:02d}.png")
    return open_pictures(list_folder(tmp_path / "pictures"), workers=8)


def test_a_map_gives_each_item_with_its_result_and_tells_of_each() -> None:
    told: list[tuple[str, int, int | None]] = []
    engine = Noting()
    found = list(
        engine.map(
            lambda: str, [7, 8, 9], task="words", progress=lambda task, done, total, note="": told.append((task, done, total))
        )
    )
    assert found == [(9, "9"), (8, "8"), (7, "7")]
    assert told == [("words", done, 3) for done in range(4)]


def test_work_ends_when_nobody_wants_more_of_it() -> None:
    engine = Noting()
    begun = engine.map(lambda: str, [7, 8, 9])
    next(begun)
    assert engine.ended == []
    begun.close()  # type: ignore[attr-defined]
    assert engine.ended == ["ended"]


def test_decoders_are_a_workers_share_of_the_cores(pictures: PictureFiles) -> None:
    """Beside a network on the CPU one core fewer; a process that has the machine to itself decodes as the source says."""
    found = {device: decoded_by(Noting(), pictures, device) for device in (CPU, GPU)}
    assert [getattr(found[device], "workers", None) for device in (CPU, GPU)] == [2, 5]
    assert getattr(decoded_by(Noting(threads=1), pictures, CPU), "workers", None) == 0
    assert decoded_by(LocalEngine(), pictures, CPU) is pictures
    assert decoded_by(TorchEngine(1), pictures, GPU) is pictures
    images = ImageSet("held", torch.zeros(2, 1, 8, 8))
    assert decoded_by(Noting(), images, CPU) is images


def test_features_of_pictures_are_decoded_by_each_workers_share(pictures: PictureFiles) -> None:
    engine = Noting(threads=1)
    found = feature_moments(RawPixels((1, 8, 8)), pictures, engine=engine)
    (make,) = engine.sent
    assert make.images.workers == 0
    assert make.images.name == pictures.name
    assert found.mean.tolist() == pytest.approx([9.5 / 255] * 64)
    assert found.count == 20


def test_processes_share_out_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 12)
    with using_threads(8):
        assert [(each.several, each.threads, each.cores) for each in map(TorchEngine, (1, 3, 16))] == [
            (False, 8, 12),
            (True, 2, 4),
            (True, 1, 1),
        ]
        assert (LocalEngine().several, LocalEngine().threads) == (False, 8)
        launch = Launch(launcher="torchrun", rank=5, world=8, local_rank=1, local_world=4)
        monkeypatch.setattr(processes, "launched", lambda: launch)
        started = TorchEngine(8)
        assert (started.several, started.threads, started.cores) == (True, 8, 3), "a launcher has shared out the threads"


def test_a_network_that_travelled_from_a_gpu_computes_on_the_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(2, 3)
    assert on_own_device(network).weight.device == CPU
    monkeypatch.setattr(distributed, "device_of", lambda network: torch.device("cuda", 0))
    monkeypatch.setattr(distributed, "choose_device", lambda wanted: torch.device("meta"))  # stands for another GPU
    assert on_own_device(network).weight.device.type == "meta"
    assert on_own_device("no network") == "no network"


@pytest.mark.parametrize("moved", [True, False])
def test_a_network_that_stayed_at_home_keeps_its_device(moved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from latlas.measurements import feature_moments as module

    seen: list[object] = []

    def noted(network: Any) -> Any:
        seen.append(network)
        return network

    monkeypatch.setattr(module, "on_own_device", noted)
    engine = Noting() if moved else None
    feature_moments(RawPixels((1, 8, 8)), ImageSet("held", torch.rand(5, 1, 8, 8)), engine=engine)
    assert len(seen) == moved


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0"},
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
    ],
    ids=["torchrun", "srun"],
)
def test_each_of_several_processes_is_told_to_take_an_engine_that_knows_of_the_others(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=r"(torchrun|srun) started 4, .* take --engine torch, or start the command once"):
        engine_named("local")
    assert engine_named("torch").several


# As many threads as the codes that are there already were computed with


def counting(seen: list[int]) -> CallableModel:
    def noting(images: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return images.flatten(1)[:, :3]

    return CallableModel(image_shape=(1, 2, 2), latent_shape=(3,), name="plain", fingerprint="plain", encode_with=noting)


@pytest.mark.parametrize("engine", [None, LocalEngine()], ids=["no engine", "local engine"])
def test_an_encoding_that_is_gone_on_with_computes_with_as_many_threads_as_it_began_with(
    engine: Engine | None, tmp_path: Path
) -> None:
    """Convolutions sum in another order on another number of them: a tenth of the codes' last digit."""
    images, seen = ImageSet("many", torch.rand(2 * 4096, 1, 2, 2)), list[int]()
    with using_threads(3):
        with open_job(counting([]), images, tmp_path / "codes", shard_rows=4096) as job:
            write_shard(job.work, encode_shard(counting([]), images, 0, job))
            assert json.loads((job.work / "job.json").read_text())["threads"] == 3
        encode(counting(seen), images, out=tmp_path / "fresh", engine=engine, shard_rows=4096)
        assert set(seen) == {3}
    seen.clear()
    with using_threads(1):
        encode(counting(seen), images, out=tmp_path / "codes", engine=engine, shard_rows=4096)
        assert set(seen) == {3}
        assert torch.get_num_threads() == 1, "and leaves them as they were"
    assert (tmp_path / "codes" / "config.json").read_bytes() == (tmp_path / "fresh" / "config.json").read_bytes()


def test_a_job_that_says_nothing_of_threads_goes_on_with_those_there_are(tmp_path: Path) -> None:
    """As one does that was begun before threads were recorded."""
    images, seen = ImageSet("many", torch.rand(2 * 4096, 1, 2, 2)), list[int]()
    with open_job(counting([]), images, tmp_path / "codes", shard_rows=4096) as job:
        write_shard(job.work, encode_shard(counting([]), images, 0, job))
        record = json.loads((job.work / "job.json").read_text())
        del record["threads"]
        (job.work / "job.json").write_text(json.dumps(record))
    with using_threads(2):
        encode(counting(seen), images, out=tmp_path / "codes", shard_rows=4096)
    assert set(seen) == {2}


def test_workers_compute_shards_with_the_engines_threads(tmp_path: Path) -> None:
    seen = list[int]()
    encode_with(Noting(threads=2), counting(seen), ImageSet("many", torch.rand(4096, 1, 2, 2)), tmp_path / "codes")
    assert set(seen) == {2}
