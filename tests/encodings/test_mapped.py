"""Codes on disk: the same numbers as in memory, and no more of them in memory than are in use."""

import copy
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.artifacts import CONFIG
from latlas.base.errors import ArtifactError
from latlas.base.provenance import Provenance, file_hash
from latlas.encodings.encoding import Encoding
from latlas.encodings.mapped import batches, map_rows


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


def saved(rows: Tensor, folder: Path) -> Path:
    np.save(folder / "rows.npy", rows.numpy(), allow_pickle=False)
    return folder / "rows.npy"


SHAPES = [(23, 3), (1, 1), (0, 4), (23, 2, 4, 4), (7,), (5000, 700)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_on_disk_are_those_that_were_saved_whole_and_in_batches(
    shape: tuple[int, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    rows = randn(*shape).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that may not be written to
        found = map_rows(saved(rows, tmp_path))
        assert found.equal(rows)
        assert found.dtype == dtype
        for size in (1, 7, 1000) if len(rows) < 100 else (999,):
            assert torch.cat([batch.clone() for batch in batches(found, size)] or [rows[:0]]).equal(rows)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("shape", [(1024,), (16, 8, 8)], ids=["vectors", "spatial codes taken as vectors"])
def test_a_pass_over_the_rows_holds_one_batch_of_them(shape: tuple[int, ...], tmp_path: Path) -> None:
    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssFile")).split()[1])

    rows = map_rows(saved(torch.ones(8192, *shape), tmp_path)).flatten(1)  # 32 MiB
    before = held()
    most = 0
    for batch in batches(rows, 512):  # 2 MiB
        assert float(batch.sum()) == 512 * 1024
        most = max(most, held() - before)
    assert most < 6 * 2**20
    assert float(rows.sum()) == 8192 * 1024
    assert held() - before > 24 * 2**20, "the measure would have seen it"


def test_writing_into_the_tensor_leaves_the_file_alone_and_is_seen_by_the_next_pass(tmp_path: Path) -> None:
    path = saved(randn(20, 3), tmp_path)
    before = path.read_bytes()
    rows = map_rows(path)
    rows.mul_(2)
    assert path.read_bytes() == before
    assert torch.cat(list(batches(rows, 6))).equal(2 * randn(20, 3))


def test_what_is_made_from_mapped_rows_is_read_as_it_is(tmp_path: Path) -> None:
    rows = map_rows(saved(randn(20, 3), tmp_path))
    ones = (
        rows[3:],
        rows.double(),
        2 * rows,
        rows.flip(0),
        rows.clone(),
        rows.T,
        rows.view(10, 6),
        rows.view(torch.int32),
        rows[:],
    )
    for made in ones:
        assert torch.cat(list(batches(made, 6))).equal(made)


def test_a_file_that_is_replaced_later_changes_nothing(tmp_path: Path) -> None:
    path = saved(randn(20, 3), tmp_path)
    rows = map_rows(path)
    np.save(tmp_path / "other.npy", np.zeros((20, 3), dtype=np.float32))
    (tmp_path / "other.npy").rename(path)
    assert torch.cat([batch.clone() for batch in batches(rows, 6)]).equal(randn(20, 3))


def test_a_mapped_encoding_can_be_copied_and_saved_onto_itself(tmp_path: Path) -> None:
    encoding = Encoding(
        mean=randn(20, 3),
        log_variance=randn(20, 3),
        model="A",
        images="noise",
        images_hash="i",
        provenance=Provenance(made_by="test"),
    )
    encoding.save_pretrained(tmp_path / "codes")
    mapped = Encoding.from_pretrained(tmp_path / "codes")
    for one in (mapped, copy.deepcopy(mapped)):
        assert one.mean.equal(encoding.mean)
        assert one.log_variance is not None
        assert one.log_variance.equal(randn(20, 3))
    mapped.save_pretrained(tmp_path / "codes", replace=True)  # onto the files that it reads from
    assert Encoding.from_pretrained(tmp_path / "codes").mean.equal(encoding.mean)


def test_columns_first_are_read_as_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.asfortranarray(randn(20, 3).numpy()))
    rows = map_rows(tmp_path / "rows.npy")
    assert rows.equal(randn(20, 3))
    assert torch.cat(list(batches(rows, 6))).equal(rows)


@pytest.mark.parametrize(
    "content",
    [np.array(["a", "b"]), np.zeros((3, 2), dtype=">f4"), np.array([{"a": 1}], dtype=object)],
    ids=["text", "another byte order", "objects"],
)
def test_what_no_tensor_holds_is_a_value_error(content: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", content)
    with pytest.raises(ValueError, match=r"which is no tensor's type|byte order|can't be memory-mapped"):
        map_rows(tmp_path / "rows.npy")


def test_an_encoding_with_such_a_file_is_not_readable(tmp_path: Path) -> None:
    encoding = Encoding(
        mean=randn(20, 3), log_variance=None, model="A", images="i", images_hash="i", provenance=Provenance(made_by="test")
    )
    encoding.save_pretrained(tmp_path / "codes")
    np.save(tmp_path / "codes" / "mean.npy", np.array(["a", "b"]))
    record = json.loads((tmp_path / "codes" / CONFIG).read_text())
    record["files"]["mean.npy"] = file_hash(tmp_path / "codes" / "mean.npy")
    record.pop("checksum", None)  # as a stranger would
    (tmp_path / "codes" / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=r"not a readable encoding .*no tensor's type.*Encode again"):
        Encoding.from_pretrained(tmp_path / "codes")
