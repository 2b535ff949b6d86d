"""`.npy` files whose headers are made to keep NumPy busy, or to break it: refused at once, wherever one is read."""

import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from latlas.base.errors import ImageFormatError
from latlas.base.npy import check_header, open_npy
from latlas.cli import main
from latlas.data.array_files import open_array
from latlas.data.files import load_array
from latlas.encodings.arrays import StoredNames, read_header
from latlas.encodings.mapped import map_joined, map_rows
from latlas.maps.linear import LinearMap

WHOLE = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2, 2), }"


def npy(header: str, data: bytes = bytes(48), version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes((version, 0)) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


HEADERS = {
    "blanks before a sign that is none": WHOLE + " " * 9_900 + "$",
    "a bracket that never closes": WHOLE[:-1] + "(",
    "a text that never ends": WHOLE[:-1] + "'''",
    "brackets within brackets": "(" * 4_000 + ")" * 4_000,
    "a list": "[1, 2]",
    "a table of something else": "{'descr': '<f4'}",
    "a key that is none": "{[]: 1}",
    "a number of a million digits": WHOLE.replace("3,", "9" * 9_000 + ","),
    "a call": "__import__('os').system('true')",
    "a null byte": WHOLE + "\0",
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", HEADERS)
def test_such_a_header_is_refused_at_once(kind: str, version: int, tmp_path: Path) -> None:
    path, archive = tmp_path / "a.npy", tmp_path / "a.npz"
    path.write_bytes(npy(HEADERS[kind], version=version))
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("images.npy", path.read_bytes())
    started = time.process_time()
    for read in (open_npy, map_rows, read_header, lambda each: map_joined([each, each]), lambda each: StoredNames([each])):
        with pytest.raises(ValueError):
            read(path)
    for file in (path, archive):
        for load in (load_array, open_array):
            with pytest.raises(ImageFormatError):
                load(file)
    assert time.process_time() - started < 2.0  # NumPy alone takes some twenty seconds for the first of these


@pytest.mark.parametrize(
    "array", [np.arange(12.0).reshape(3, 2, 2), np.array(["a", "b"]), np.zeros(3, "<f2"), np.asfortranarray(np.eye(4))]
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read_as_numpy_reads_it(array: np.ndarray, version: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, array, version=version)
    np.testing.assert_array_equal(open_npy(path), np.load(path))
    np.testing.assert_array_equal(open_npy(path, "c"), array)


def test_images_are_read_from_both_kinds_of_file(tmp_path: Path) -> None:
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    np.save(tmp_path / "a.npy", images)
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=np.arange(3))
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(load_array(tmp_path / name).storage[:, 0].numpy(), images)


def test_what_python_2_wrote_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L), }"))
    with pytest.warns(UserWarning, match="Python 2"):
        assert open_npy(tmp_path / "a.npy").shape == (3, 4)


def test_a_file_that_is_opened_to_be_written_to_does_not_grow(tmp_path: Path) -> None:
    """NumPy makes a file as long as its header says."""
    path = tmp_path / "a.npy"
    path.write_bytes(npy(WHOLE.replace("3, 2", "3000000, 2")))
    size = path.stat().st_size
    with pytest.raises(ValueError):
        open_npy(path, "r+")
    assert path.stat().st_size == size
    shutil.copyfile(path, tmp_path / "b.npy")
    np.load(tmp_path / "b.npy", mmap_mode="r+")
    assert (tmp_path / "b.npy").stat().st_size > size


def test_what_is_written_to_such_a_file_stays_there(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    found = open_npy(tmp_path / "a.npy", "r+")
    found[1] = 7
    found.flush()
    assert np.load(tmp_path / "a.npy").tolist() == [0, 7, 0]


def test_what_is_no_npy_is_not_judged_by_its_header(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04", b""):
        (tmp_path / "a").write_bytes(content)
        with (tmp_path / "a").open("rb") as stream:
            check_header(stream)


def test_codes_to_be_relocated_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    LinearMap(weight=torch.eye(2), bias=torch.zeros(2), kind="affine", source="a", target="b").save_pretrained(tmp_path / "map")
    for kind, header in HEADERS.items():
        (tmp_path / "codes.npy").write_bytes(npy(header))
        asked = ["latlas", "relocate", str(tmp_path / "map"), str(tmp_path / "codes.npy"), "--out", str(tmp_path / "out.npy")]
        monkeypatch.setattr(sys, "argv", asked)
        with pytest.raises(SystemExit) as end:
            main.run()
        assert end.value.code == 2, kind
        assert "is not a readable .npy of numbers" in capsys.readouterr().err
