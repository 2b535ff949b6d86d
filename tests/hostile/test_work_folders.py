"""What an encoding that died has left, damaged since: it is begun again, or refused in one line, and never taken for whole."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from latlas.base.errors import ArtifactError, LatlasError
from latlas.data.images import ImageSet
from latlas.encodings.encoding import Encoding
from latlas.encodings.jobs import EncodingJob
from latlas.encodings.shards import encode_shards, write_shard
from latlas.encodings.store import open_job, work_folder
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE

IMAGES = ImageSet(name="i", storage=torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4), names=("a.png", "b.png", "c.png"))


@pytest.fixture
def model() -> VAE:
    torch.manual_seed(0)
    return VAE(Dense(widths=(4,), latent=2), (1, 4, 4))


@pytest.fixture
def work(model: VAE, tmp_path: Path) -> Path:
    """The folder of an encoding whose shards are whole, and which died before they were put together."""
    compute(open_job(model, IMAGES, tmp_path / "out")).lock.release()
    return work_folder(tmp_path / "out")


def compute(job: EncodingJob) -> EncodingJob:
    for shard in encode_shards(VAE(Dense(widths=(4,), latent=2), (1, 4, 4)), IMAGES, job.missing(), job):
        write_shard(job.work, shard)
    return job


def finished(model: VAE, work: Path) -> Encoding:
    with open_job(model, IMAGES, work.parent / "out") as job:
        return compute(job).finish()


def test_a_folder_that_is_not_damaged_is_gone_on_with(model: VAE, work: Path) -> None:
    assert len(finished(model, work)) == 3
    assert [path.name for path in work.parent.iterdir()] == ["out"]


ODD: tuple[Any, ...] = (None, -1, 0, 2**40, 0.5, "x", [], {}, {"autocast": "float8", "channels_last": 1, "why": 2})


@pytest.mark.parametrize("key", ["precision", "batch size", "threads", "fingerprint", "shard rows", "versions", "images"])
def test_a_job_whose_record_lacks_something_or_has_something_else_there(key: str, model: VAE, work: Path) -> None:
    kept = shutil.copytree(work, work.parent / "kept")
    whole = json.loads((kept / "job.json").read_text())
    damaged = [{name: value for name, value in whole.items() if name != key}, *({**whole, key: odd} for odd in ODD)]
    for record in damaged:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(work.parent / "out", ignore_errors=True)
        shutil.copytree(kept, work)
        (work / "job.json").write_text(json.dumps(record))
        told = ""
        with suppress(LatlasError):
            assert len(finished(model, work)) == 3
            told = "whole"
        assert (work.parent / "out").exists() == (told == "whole")


@pytest.mark.parametrize("part", ["mean", "image_hashes", "names"])
def test_a_shard_of_the_right_size_and_other_bytes_is_refused(part: str, model: VAE, work: Path) -> None:
    path = work / f"{part}-00000.npy"
    content = bytearray(path.read_bytes())
    content[8:120] = b"\0" * 112  # of the header
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"shard|readable"):
        finished(model, work)


@pytest.mark.parametrize("name", ["../secret.npy", "/etc/passwd", "mean-00000.npy/../../secret.npy", "secret.npy"])
def test_a_record_takes_no_other_file_into_the_encoding(name: str, model: VAE, work: Path) -> None:
    secret = work.parent / "secret.npy"
    shutil.copyfile(work / "mean-00000.npy", secret)
    shutil.copyfile(work / "mean-00000.npy", work / "secret.npy")
    record = json.loads((work / "shard-00000.json").read_text())
    size = Path("/etc/passwd").stat().st_size if name == "/etc/passwd" else secret.stat().st_size
    record["files"][name] = ["0" * 64, size]
    (work / "shard-00000.json").write_text(json.dumps(record))
    try:
        finished(model, work)
        found = {path.name for path in (work.parent / "out").iterdir()}
        assert not found & {"secret.npy", "passwd"}
    except LatlasError:
        assert not (work.parent / "out").exists()
