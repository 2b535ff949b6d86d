"""Engines: the same digits and bytes whoever computes, and a worker that is killed costs what it was at."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latlas.base.errors import LatlasError, MissingExtraError, SettingError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.encodings.engines.engine import Engine, LocalEngine
from latlas.encodings.engines.named import ENGINES, engine_named
from latlas.encodings.engines.processes import TorchEngine

# Workers import the file that started them, so it must be one; and it does all at once, since they are slow to start.
SCRIPT = """
import json, os, signal, sys
from functools import partial
from pathlib import Path

import torch

from latlas.base.errors import LatlasError
from latlas.base.launch import launched
from latlas.data.images import ImageSet
from latlas.encodings.distributed import encode_with
from latlas.encodings.encode import encode
from latlas.encodings.engines.named import engine_named
from latlas.encodings.statistics import moments, paired_moments, posterior_moments
from latlas.maps.fit import fit_map
from latlas.measurements.feature_moments import feature_moments
from latlas.measurements.features import RawPixels
from latlas.measurements.gain import reconstruction_gain
from latlas.models.architectures.dense import Dense
from latlas.models.protocols import Posterior
from latlas.models.vae import VAE
from latlas.numerics.moments import Moments
from latlas.supports.occupancy import count_occupancy
from latlas.supports.sectors import Sectors


def logging_squares(folder):
    return partial(square, folder)


def square(folder, item):
    with (folder / "log").open("a") as log:
        log.write(f"{item}\\n")
    if item == 4 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def refusing():
    return refuse


def refuse(item):
    raise LatlasError(f"Item {item} is refused.")


def doomed():
    return lambda item: os.kill(os.getpid(), signal.SIGKILL)


class Fragile:
    # Encodes as a network does, and dies once, in the middle of a shard.
    def __init__(self, network, folder):
        self.network, self.folder = network, folder
        self.name, self.fingerprint = network.name, network.fingerprint
        self.image_shape, self.latent_shape = network.image_shape, network.latent_shape
        self.calls = 0

    def encode(self, images):
        self.calls += 1
        with (self.folder / "log").open("a") as log:
            log.write(f"{len(images)}\\n")
        if self.calls == 2:
            try:  # of two workers that come here together one dies
                (self.folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.network.encode(images)


def numbers(folder, engine):
    rows = {} if engine is None else {"rows": 900}
    found = moments(folder / "a", engine=engine, **rows)
    paired = paired_moments(folder / "a", folder / "b", engine=engine, **rows)
    posteriors = posterior_moments(folder / "a", engine=engine, **rows)
    fitted = fit_map(folder / "a", folder / "b", engine=engine)
    occupied = count_occupancy(Sectors(variables=(0, 2, 4), threshold=0.2, centre=(3.0,) * 3), folder / "a", engine=engine)
    features = feature_moments(RawPixels((1, 8, 8)), images, engine=engine)
    with torch.no_grad():
        codes = network.encode(images.tensor()[:2500]).mean
    gain = reconstruction_gain(network, codes, images.slice(0, 2500), engine=engine)
    return {
        "moments": found.scatter, "mean": found.mean, "paired": paired.joint.scatter, "posteriors": posteriors.as_rows(),
        "map": fitted.weight, "occupancy": occupied, "features": features.scatter, "feature means": features.mean,
        "gain": gain.mean, "gain's error": gain.standard_error,
    }


folder = Path(sys.argv[1])
images = ImageSet("noise", torch.load(folder / "pixels.pt", weights_only=True))
torch.manual_seed(0)
network = VAE(Dense(widths=(16,), latent=3), (1, 8, 8), name="small")

if __name__ == "__main__":
    which = sys.argv[2]
    launch = launched()
    own = folder / (which if launch is None else f"{which}-{launch.rank}")
    own.mkdir()
    engine = None if which == "local" else engine_named("torch" if which == "ranks" else which, devices=2)
    record = {}
    if which in ("torch", "ray"):
        (own / "killing").mkdir()
        found = engine.map(partial(logging_squares, own / "killing"), range(12))
        record["squares"] = sorted(found)
    if which != "local":
        try:
            list(engine.map(refusing, [7, 8]))
        except LatlasError as refusal:
            record["refusal"] = str(refusal)
    if which == "torch":
        for make, name in ((doomed, "doomed"), (lambda: refuse, "unnamed")):
            try:
                list(engine.map(make, [1]))
            except LatlasError as failure:
                record[name] = [type(failure).__name__, str(failure)]
    torch.save(numbers(folder, engine), own / "numbers.pt")
    if which == "local":
        encode(network, images, out=folder / "codes-local", shard_rows=4096)
    else:
        encode_with(engine, network, images, folder / f"codes-{which}", shard_rows=4096)
        try:
            encode_with(engine, network, images, folder / f"codes-{which}", shard_rows=4096)
        except LatlasError as refusal:
            record["again"] = str(refusal)
    if which in ("torch", "ray"):
        (own / "fragile").mkdir()
        encode_with(engine, Fragile(network, own / "fragile"), images, folder / f"codes-fragile-{which}", shard_rows=4096)
    (own / "record.json").write_text(json.dumps(record))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encodings of 5,300 images, 9,000 pictures, and what the local engine makes of them."""
    place = tmp_path_factory.mktemp("engines")
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5300, 6, generator=generator) + 3
    b = a @ torch.randn(6, 4, generator=generator) + torch.randn(5300, 4, generator=generator)
    for name, codes in (("a", a), ("b", b)):
        encoding = Encoding(
            mean=codes,
            log_variance=-1 - 0.1 * codes.abs(),
            model=name,
            images="noise",
            images_hash="0",
            provenance=Provenance(made_by="encode"),
        )
        encoding.save_pretrained(place / name)
    torch.save((256 * torch.rand(9000, 1, 8, 8, generator=generator)).to(torch.uint8), place / "pixels.pt")
    (place / "work.py").write_text(SCRIPT)
    run([{}], place, "local")
    return place


def run(processes: list[dict[str, str]], folder: Path, which: str) -> None:
    """Run the script to its end, in as many processes as there are environments."""
    command = [sys.executable, str(folder / "work.py"), str(folder), which]
    plain = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(command, env=plain | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for own in processes
    ]
    try:
        for process in started:
            told, _ = process.communicate(timeout=400)
            assert process.returncode == 0, told.decode()
            if which != "ray":  # which tells of actors that it starts again
                assert told.decode() == ""
    finally:
        for process in started:
            process.kill()


@pytest.fixture(scope="module")
def pool(folder: Path) -> Path:
    """The folder, after the engine torch has started two processes of its own."""
    run([{}], folder, "torch")
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> Path:
    """The folder, after two processes as torchrun starts them."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29621", "WORLD_SIZE": "2"}
    run([place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)], folder, "ranks")
    return folder


@pytest.fixture(scope="module")
def on_ray(folder: Path) -> Path:
    """The folder, after a Ray cluster that was started for it."""
    pytest.importorskip("ray")
    run([{}], folder, "ray")
    return folder


def record(folder: Path, which: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / which / "record.json").read_text())
    return found


def check_numbers(folder: Path, which: str) -> None:
    """Every statistic is the local one to 1e-10 of its size; counts are equal."""
    local = torch.load(folder / "local" / "numbers.pt", weights_only=True)
    found = torch.load(folder / which / "numbers.pt", weights_only=True)
    assert found.keys() == local.keys()
    for name, values in local.items():
        scale = float(values.abs().max())
        assert scale > 0
        assert float((found[name] - values).abs().max()) <= (0 if name == "occupancy" else 1e-10 * scale), name


def check_codes(folder: Path, name: str) -> None:
    """Every file of an encoding, its record included, holds the bytes of the local one."""
    local = {path.name: path.read_bytes() for path in (folder / "codes-local").iterdir()}
    found = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
    assert "mean-00002.npy" in local
    assert found.keys() == local.keys()
    assert [path for path in local if found[path] != local[path]] == []


def check_deaths(folder: Path, which: str) -> None:
    """Of 12 items the one that was interrupted was computed twice; of three shards, one was begun anew, after 2,000 images."""
    squares = record(folder, which)["squares"]
    assert squares == [[item, item * item] for item in range(12)]
    asked = (folder / which / "killing" / "log").read_text().split()
    assert sorted(map(int, asked)) == sorted([*range(12), 4])
    encoded = map(int, (folder / which / "fragile" / "log").read_text().split())
    assert sum(encoded) == 9000 + 2000
    check_codes(folder, f"codes-fragile-{which}")


def test_the_local_numbers_are_those_of_numpy(folder: Path) -> None:
    found = torch.load(folder / "local" / "numbers.pt", weights_only=True)
    codes = np.load(folder / "a" / "mean.npy").astype(np.float64)
    assert found["moments"].numpy() / len(codes) == pytest.approx(np.cov(codes.T, bias=True), rel=1e-10)
    both = np.concatenate([codes, np.load(folder / "b" / "mean.npy").astype(np.float64)], axis=1)
    assert found["paired"].numpy() / len(codes) == pytest.approx(np.cov(both.T, bias=True), rel=1e-9)
    pixels = torch.load(folder / "pixels.pt", weights_only=True).flatten(1).numpy() / np.float32(255)
    assert found["features"].numpy() / 9000 == pytest.approx(
        np.cov(pixels.T.astype(np.float64), bias=True), rel=1e-6, abs=1e-12
    )
    sides = np.abs(codes[:, [0, 2, 4]] - 3) > 0.2
    numbers = ((codes[:, [0, 2, 4]] > 3) * [1, 2, 4]).sum(axis=1)[sides.all(axis=1)]
    assert found["occupancy"].tolist() == np.bincount(numbers, minlength=8).tolist()


def test_a_pool_of_two_processes_gives_the_local_numbers_and_bytes(pool: Path) -> None:
    check_numbers(pool, "torch")
    check_codes(pool, "codes-torch")


def test_two_processes_of_one_launch_both_have_the_local_numbers_and_bytes(ranks: Path) -> None:
    check_numbers(ranks, "ranks-0")
    check_numbers(ranks, "ranks-1")
    check_codes(ranks, "codes-ranks")


def test_a_killed_worker_of_a_pool_costs_its_item_alone(pool: Path) -> None:
    check_deaths(pool, "torch")


def test_an_item_that_kills_every_worker_is_given_up(pool: Path) -> None:
    kind, message = record(pool, "torch")["doomed"]
    assert kind == "EngineError"
    assert message.startswith("A worker process ended 3 times while it worked on 1: out of memory, or killed.")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signals")
def test_ctrl_c_while_workers_start_is_no_word_of_theirs_and_ends_them(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "if __name__ != '__main__':\n"
        "    print('worker', os.getpid(), flush=True)\n"
        "    time.sleep(20)\n"  # it begins by importing the file that started it
        "from latlas.encodings.engines.named import engine_named\n"
        "def make():\n"
        "    return abs\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        list(engine_named('torch', devices=2).map(make, [1, 2]))\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', flush=True)\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    ) as started:
        assert started.stdout is not None
        workers = [int(started.stdout.readline().split()[1]) for _ in range(2)]
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does
        told, problems = started.communicate(timeout=15)  # less than the workers would sleep
    assert told == "interrupted\n"
    assert problems == ""
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_what_cannot_travel_is_told_from_what_fails(pool: Path) -> None:
    kind, message = record(pool, "torch")["unnamed"]
    assert kind == "CapabilityError"
    assert "cannot travel to another process" in message
    assert record(pool, "torch")["refusal"] in ("Item 7 is refused.", "Item 8 is refused.")


def test_what_one_process_refuses_is_told_by_all(ranks: Path) -> None:
    """The others wait for its results, and would for ever."""
    assert record(ranks, "ranks-0")["refusal"] == "Item 7 is refused."
    assert record(ranks, "ranks-1")["refusal"] == "Item 8 is refused."
    assert "already holds something" in record(ranks, "ranks-0")["again"]
    assert record(ranks, "ranks-1")["again"].startswith("The first process failed: ")


@pytest.mark.ray
def test_ray_gives_the_local_numbers_and_bytes(on_ray: Path) -> None:
    check_numbers(on_ray, "ray")
    check_codes(on_ray, "codes-ray")


@pytest.mark.ray
def test_a_killed_actor_costs_its_item_alone(on_ray: Path) -> None:
    check_deaths(on_ray, "ray")
    assert record(on_ray, "ray")["refusal"] in ("Item 7 is refused.", "Item 8 is refused.")


@pytest.mark.ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379"])
def test_an_address_where_nobody_answers_is_told_at_once(address: str) -> None:
    with pytest.raises(SettingError, match=rf"No Ray cluster answers at {address} \(.*\)\. Start one there"):
        engine_named("ray", address=address)


@pytest.mark.ray
@pytest.mark.parametrize("address", ["here", "here:", ":6379", "here:0", "here:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingError, match="--address takes HOST:PORT"):
        engine_named("ray", address=address)


def test_every_engine_is_one() -> None:
    assert isinstance(LocalEngine(), Engine)
    assert isinstance(TorchEngine(2), Engine)
    assert [engine_named(name).name for name in ENGINES[:2]] == ["local", "torch"]
    assert list(LocalEngine().map(lambda: str, [1, 2])) == [(1, "1"), (2, "2")]
    assert list(TorchEngine(1).map(lambda: str, [1, 2])) == [(1, "1"), (2, "2")]
    assert list(TorchEngine(2).map(lambda: str, [])) == []


def test_a_missing_ray_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'latlas\[ray\]'"):
        engine_named("ray")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"name": "spark"}, UnknownNameError, "Unknown engine 'spark'"),
        ({"name": "torch", "address": "here:1"}, SettingError, "The torch engine has no address"),
        ({"name": "local", "devices": 2}, SettingError, "take --engine torch"),
        ({"name": "torch", "devices": 0}, SettingError, "at least 1 device, got 0"),
    ],
)
def test_what_an_engine_has_no_use_for_is_refused(settings: dict[str, Any], error: type[LatlasError], words: str) -> None:
    with pytest.raises(error, match=words):
        engine_named(**settings)
