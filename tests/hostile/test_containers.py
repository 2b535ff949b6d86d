"""Files that lie about themselves: refused in one line, with no memory taken and nothing read outside their folder."""

import gzip
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latlas.base import artifacts
from latlas.base.artifacts import CONFIG, load_tensors, peek, read_config, read_json, save_tensors, write_config, writing
from latlas.base.errors import ArtifactError, ImageFormatError, LatlasError, SettingError
from latlas.base.hub import hub_id
from latlas.base.provenance import Provenance
from latlas.data import idx
from latlas.data.array_files import open_array
from latlas.data.files import load_array
from latlas.data.loading import load_images
from latlas.data.tables import read_table
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.draw import Draw
from latlas.models.loading import load_model
from latlas.models.vae import VAE


def line(failure: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which is one printable line of bounded length."""
    message = str(failure.value)
    assert message.isprintable()
    assert 0 < len(message) <= 4_000
    return message


def unsigned(folder: Path) -> dict[str, Any]:
    """The config without its checksum, as before there were any: whoever means harm would make a new one."""
    record: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    record.pop("checksum", None)
    return record


# safetensors


def safetensors(header: object, data: bytes = b"\0" * 8, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "content",
    {
        "a header of 2^63 bytes": safetensors({"a": entry()}, length=2**63),
        "a header of 2^64 - 1 bytes": safetensors({"a": entry()}, length=2**64 - 1),
        "a header longer than the file": safetensors({"a": entry()}, length=10_000),
        "a header of nothing": safetensors(b""),
        "a header that is no object": safetensors([1, 2]),
        "a header that nests": safetensors(b"[" * 100_000),
        "offsets out of the file": safetensors({"a": entry(shape=(4,), offsets=(0, 16))}),
        "offsets beyond 2^62": safetensors({"a": entry(shape=(2**60,), offsets=(0, 2**62))}),
        "a negative offset": safetensors({"a": entry(offsets=(-8, 0))}),
        "offsets backwards": safetensors({"a": entry(offsets=(8, 0))}),
        "offsets that overlap": safetensors({"a": entry(), "b": entry()}),
        "a gap between tensors": safetensors({"a": entry(shape=(1,), offsets=(0, 4)), "b": entry(shape=(1,), offsets=(8, 12))}, b"\0" * 12),
        "a shape whose product leaves 64 bits": safetensors({"a": entry(shape=(2**40, 2**40))}),
        "a shape that wraps to the right size": safetensors({"a": entry(shape=(2**63 + 1, 2))}),
        "a negative shape": safetensors({"a": entry(shape=(-1, -2))}),
        "a shape of text": safetensors({"a": entry(shape="2")}),
        "another type than its bytes": safetensors({"a": entry(dtype="F64")}),
        "a type that is none": safetensors({"a": entry(dtype="O")}),
        "a type that is no text": safetensors({"a": {**entry(), "dtype": 7}}),
        "a name twice": safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
        "data behind the end": safetensors({"a": entry()}, b"\0" * 64),
        "names that are no UTF-8": safetensors(b'{"\xff\xfe":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "metadata that is no text": safetensors({"__metadata__": {"a": [1]}, "a": entry()}),
        "nothing": b"",
        "seven bytes": b"\0" * 7,
        "a pickle": b"\x80\x04cos\nsystem\n\x8c\x04true\x85R.",
    }.items(),
    ids=lambda pair: pair[0],
)  # fmt: skip
def test_safetensors_that_lie_are_refused(content: tuple[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content[1])
    with pytest.raises(ArtifactError) as failure:
        load_tensors(path)
    assert "is not a readable safetensors file" in line(failure)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0", "C64", "F8_E4M3", "U16", "BOOL"])
def test_types_that_this_torch_may_not_have_are_read_or_refused(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for count in (1, 2, 4, 8, 16):
        path.write_bytes(safetensors({"a": entry(dtype=dtype, shape=(count,))}))
        with suppress(ArtifactError):
            assert set(load_tensors(path)) == {"a"}


def test_a_pipe_in_place_of_a_file_does_not_keep_one_waiting(tmp_path: Path) -> None:
    for name in (CONFIG, "a.safetensors"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(ArtifactError, match="is no file"):
        load_tensors(tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match="is not readable JSON"):
        read_json(tmp_path / CONFIG)
    assert peek(tmp_path) is None


# JSON


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 50_000, '{"a": NaN}', "[Infinity]", "[-Infinity]", "[1e999]", "[-1e999]", '{"a": 1, "a": 2}', '{"x": {"a": 1, "a": 1}}',
        "9" * 5_000, '"\\ud800', "{", "", "nul", "\ufeff{}", "{'a': 1}", '{"a": 1} x', "[1,]", "// x\n{}",
    ],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
def test_json_that_no_reader_need_take_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / CONFIG
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError) as failure:
        read_json(path)
    assert "is not readable JSON" in line(failure)
    assert peek(tmp_path) is None


def test_json_beyond_the_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / CONFIG
    monkeypatch.setattr(artifacts, "MOST_JSON", 1_000)
    path.write_text(json.dumps("x" * 998))
    assert read_json(path) == "x" * 998
    path.write_text(json.dumps("x" * 999))
    with pytest.raises(ArtifactError, match="at most 1,000 bytes"):
        read_json(path)


def test_a_sparse_config_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / CONFIG).open("wb") as stream:
        stream.truncate(2**40)
    assert peek(tmp_path) is None


def test_a_text_of_50_megabytes_becomes_no_message(tmp_path: Path) -> None:
    record = {"kind": "x" * 50_000_000, "format": 1, "files": {}, "settings": {}, "provenance": {}}
    (tmp_path / CONFIG).write_text(json.dumps(record))
    for read in (lambda: read_config(tmp_path, kind="vae"), lambda: load_model(tmp_path)):
        with pytest.raises(ArtifactError) as failure:
            read()
        line(failure)


def test_numbers_and_texts_come_through_the_stricter_reader_as_json_has_them(tmp_path: Path) -> None:
    record = {"a": [1, -2.5, 1e308, 5e-324, 10**30, True, None, "é\u2028\n"], "b": {"": {}, "a": []}}
    artifacts.write_json(tmp_path / CONFIG, record)
    assert read_json(tmp_path / CONFIG) == record == json.loads((tmp_path / CONFIG).read_text(encoding="utf-8"))


# What a config says of sizes


def small(folder: Path) -> Path:
    VAE(Dense(widths=(4,), latent=2), (1, 4, 4)).save_pretrained(folder)
    return folder


def with_settings(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    record = unsigned(folder)
    change(record["settings"])
    (folder / CONFIG).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "dense", "widths": [4], "latent": 10**9},
        {"name": "dense", "widths": [10**5, 10**5], "latent": 2},
        {"name": "dense", "widths": [1] * 200_000, "latent": 2},
        {"name": "conv", "channels": [10**6], "latent": 2},
        {"name": "draw", "steps": 10**9, "latent": 1},
        {"name": "draw", "steps": 10, "latent": 10**9},
        {"name": "resnet", "latent": 2, "scales": 10**9},
        {"name": "resnet", "latent": 2, "base_dim": 10**8},
        {"name": "split", "latent": 10**9},
        {"name": "autoencoder-kl", "latent": 2, "channels": [32], "layers": 10**9},
    ],
    ids=lambda settings: " ".join(f"{key}={value!s:.20}" for key, value in settings.items()),
)
def test_a_config_cannot_ask_for_more_than_its_weights(architecture: dict[str, Any], tmp_path: Path) -> None:
    """Gigabytes of memory or an hour of building for a file of a kilobyte: the shapes are compared before anything is made."""
    folder = with_settings(small(tmp_path / "model"), lambda settings: settings.update(architecture=architecture))
    with pytest.raises(ArtifactError) as failure:
        load_model(folder)
    assert "this latlas can rebuild" in line(failure)


def test_steps_of_the_published_size_are_served() -> None:
    assert Draw(steps=64, latent=100).places[63] == list(range(100))
    with pytest.raises(SettingError, match="1,000,000 at most"):
        Draw(steps=1_000_001, latent=1)


# Names that lead out of the folder


def listing(folder: Path, name: str) -> Path:
    with writing(folder) as beside:
        save_tensors(beside / "a.safetensors", {"a": torch.zeros(1)})
        write_config(beside, kind="thing", settings={}, provenance=Provenance(made_by="test"))
    record = unsigned(folder)
    record["files"][name] = hashlib.sha256(b"secret").hexdigest()
    (folder / CONFIG).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../secret", "..", "a\0b", "x" * 300, "\ud800", "..\\secret", "", ".", "a\nb", "\x1b[2J"],
)
def test_no_listed_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = listing(tmp_path / "artifact", name)
    with pytest.raises(ArtifactError) as failure:
        read_config(folder, kind="thing")
    assert "lies outside" in line(failure) or "is incomplete" in line(failure)


def test_a_link_out_of_the_folder_is_read_as_the_file_it_stands_for_and_nothing_else(tmp_path: Path) -> None:
    """Links are followed, since the Hub's own cache is made of them; what is behind one has to have the hash, and to be tensors."""
    folder = listing(tmp_path / "artifact", "more.txt")
    (folder / "more.txt").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="is damaged") as failure:
        read_config(folder, kind="thing")
    assert "root:" not in line(failure)
    with pytest.raises(ArtifactError) as failure:
        load_tensors(folder / "more.txt")
    assert "root:" not in line(failure)


def test_a_model_within_itself_ends(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with writing(folder) as beside:
        save_tensors(beside / "relocation.safetensors", {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)})
        settings = {"relocation": {"kind": "affine", "target_shape": [2]}, "latent_shape": [2], "source": "a", "evidence": {}}
        write_config(beside, kind="relocated-model", settings=settings, provenance=Provenance(made_by="test"))
    (folder / "target").symlink_to(folder)
    with pytest.raises(LatlasError) as failure:
        load_model(folder)
    line(failure)


@pytest.mark.parametrize("name", ["../a", "a/../b", "/a/b", "a\\b/c", "a/b\0", "a/b/c", "a/b@../c", "https://a/b", "a/b\n"])
def test_no_hub_name_leads_out_of_the_cache(name: str) -> None:
    assert hub_id(name) is None


@pytest.mark.parametrize(
    "spec",
    ["x" * 300, "a/" * 3000, "pythae:" + "x" * 300, "diffusers:" + "x" * 300, "stylegan2:" + "x" * 300, "a\0b", "\ud800"],
)
def test_names_that_no_file_can_have_are_missing_ones(spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LatlasError) as failure:
        load_model(spec)
    line(failure)


# .npy and .npz


def npy(shape: str, descr: str = "'|u1'", *, data: bytes = b"\0" * 12, pad: int = 0) -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b" " * pad + b"\n"
    if len(head) > 0xFFFF:
        return b"\x93NUMPY\x02\x00" + len(head).to_bytes(4, "little") + head + data
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


BAD_ARRAYS = {
    "objects": npy("(1, 2, 2)", "'|O'"),
    "terabytes": npy("(1099511627776, 2, 2)"),
    "more than 64 bits": npy("(9223372036854775807, 9223372036854775807, 2)"),
    "beyond any integer": npy(f"({'9' * 100}, 2, 2)"),
    "negative": npy("(-3, 2, 2)"),
    "negative twice": npy("(-3, -2, 2)"),
    "true as a size": npy("(True, 2, 2)"),
    "cut off": npy("(3, 2, 2)", data=b"\0" * 5),
    "a header of code": npy("__import__('os').system('true')"),
    "a header that nests": npy("(" * 3000 + ")" * 3000),
    "a header of a megabyte": npy("(3, 2, 2)", pad=1_000_000),
    "a type of objects within": npy("(3, 2, 2)", "[('a', '|O')]"),
    "a type with a shape": npy("(1, 1, 2)", "('|u1', (1000000000,))"),
    "a type of 2 GiB": npy("(1, 2, 2)", "'|V2147483647'"),
    "dates": npy("(1, 2, 2)", "'<M8[s]'"),
    "version 9": b"\x93NUMPY\x09\x00" + npy("(3, 2, 2)")[8:],
    "a header length of 4 GiB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + npy("(3, 2, 2)")[10:],
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_that_lie_are_refused(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(BAD_ARRAYS[kind])
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", BAD_ARRAYS[kind])
    for read in (load_array, open_array):
        with pytest.raises(ImageFormatError) as failure:
            read(path)
        assert "allow_pickle" not in line(failure)


def test_members_of_an_npz_are_never_written_anywhere(tmp_path: Path) -> None:
    good = io.BytesIO()
    np.save(good, np.zeros((1, 2, 2), np.uint8))
    folder = tmp_path / "within"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name in ("../evil.npy", "/tmp/evil-of-latlas.npy", "images.npy"):
            archive.writestr(name, good.getvalue())
    assert len(load_array(folder / "a.npz")) == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.npz"]
    assert not Path("/tmp/evil-of-latlas.npy").exists()


# tar


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


PIXEL = b"P6 1 1 255\n\0\1\2"


@pytest.mark.parametrize("name", ["../../evil.ppm", "/tmp/evil-of-latlas.ppm", "a/../../evil.ppm", "C:\\evil.ppm"])
def test_members_of_a_tar_are_never_written_anywhere(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "within"
    folder.mkdir()
    path = tar(folder / "a.tar", (tarfile.TarInfo(name), PIXEL))
    assert load_images(path).names == (f"a.tar/{name}",)
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == ["a.tar"]
    assert not Path("/tmp/evil-of-latlas.ppm").exists()


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    members = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        member = tarfile.TarInfo(f"{kind.decode()}.png")
        member.type, member.linkname = kind, "/etc/passwd"
        members.append((member, b""))
    with pytest.raises(ImageFormatError, match="holds no pictures"):
        load_images(tar(tmp_path / "a.tar", *members))
    assert len(load_images(tar(tmp_path / "b.tar", *members, (tarfile.TarInfo("a.ppm"), PIXEL)))) == 1


@pytest.mark.parametrize(
    "size",
    [b"\x80" + b"\0" * 3 + b"\x10" + b"\0" * 7, b"\xff" * 11 + b"\x00", b"77777777777\0"],
    ids=["2^60", "negative", "8 GiB"],
)
def test_a_tar_that_lies_about_a_size_is_refused(size: bytes, tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", (tarfile.TarInfo("a.ppm"), PIXEL), (tarfile.TarInfo("b.ppm"), PIXEL))
    content = bytearray(path.read_bytes())
    header = content[1024:1536]
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    content[1024:1536] = header
    path.write_bytes(content)
    with pytest.raises(ImageFormatError) as failure:
        load_images(path)
    assert "cannot be read" in line(failure)


# What would take gigabytes, in a process that watches how much it takes

MOST = 600 * 2**20  # bytes by which refusing a bomb may make the process grow

_BOMBS = """
import gzip, json, os, resource, sys, zipfile
from pathlib import Path
import torch
from latlas.base.errors import LatlasError
from latlas.data.loading import load_images, open_images
from latlas.models.loading import load_model
folder = Path(sys.argv[1])
zeros = bytes(1 << 24)
head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1280, 1024, 1024), }"
with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    with archive.open("images.npy", "w", force_zip64=True) as member:
        member.write(b"\\x93NUMPY\\x01\\x00" + (len(head) + 1).to_bytes(2, "little") + head + b"\\n")
        for _ in range(80):
            member.write(zeros)
(folder / "pictures").mkdir()
with (folder / "pictures" / "a.png").open("wb") as stream:
    stream.truncate(1 << 30)
settings = {"name": "VAEConfig", "input_dim": [3, 64, 64], "latent_dim": 1_000_000}
for name in ("wide", "deflated"):
    (folder / name).mkdir()
    (folder / name / "model_config.json").write_text(json.dumps(settings))
weights = {"encoder.embedding.weight": torch.zeros(1).expand(1_000_000, 512), "encoder.embedding.bias": torch.zeros(9)}
torch.save({"model_state_dict": weights}, folder / "wide" / "model.pt")
with zipfile.ZipFile(folder / "wide" / "model.pt") as stored:
    with zipfile.ZipFile(folder / "deflated" / "model.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
ways = {
    "npz": lambda: load_images(folder / "bomb.npz"),
    "npz, opened": lambda: open_images(folder / "bomb.npz"),
    "sparse picture": lambda: load_images(folder / "pictures"),
    "wide config": lambda: load_model(f"pythae:{folder / 'wide'}"),
    "deflated weights": lambda: load_model(f"pythae:{folder / 'deflated'}"),
}
def now():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
def peak():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
told = {}
for name, way in ways.items():
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = now()
    try:
        way()
        told[name] = ["read", ""]
    except LatlasError as failure:
        told[name] = ["refused", str(failure)]
    except BaseException as failure:
        told[name] = [type(failure).__name__, str(failure)[:300]]
    told[name].append(peak() - before)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, int]]:
    """What came of each: how it ended, its message, and by how much the process grew."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("only Linux tells how much memory was taken")
    folder = str(tmp_path_factory.mktemp("bombs"))
    ended = subprocess.run([sys.executable, "-c", _BOMBS, folder], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, tuple[str, str, int]] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("kind", ["npz", "npz, opened", "sparse picture", "wide config", "deflated weights"])
def test_a_bomb_is_refused_before_it_takes_memory(kind: str, bombs: dict[str, tuple[str, str, int]]) -> None:
    how, message, grown = bombs[kind]
    assert how == "refused", message
    assert message.isprintable()
    assert grown < MOST


def test_a_gzip_that_expands_is_read_to_its_bound_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "_LARGEST", 1_000)
    head = b"\0\0\x08\x01" + (100_000).to_bytes(4, "big")
    (tmp_path / "a.gz").write_bytes(gzip.compress(head + bytes(100_000)))
    with pytest.raises(ImageFormatError, match=r"promises 100000 values and holds 10[0-9]{2}\."):
        idx.read_idx(tmp_path / "a.gz")


def test_a_table_that_makes_its_reader_panic_is_refused(tmp_path: Path) -> None:
    """A panic of the Rust side is no Exception of Python's."""
    pytest.importorskip("arro3.io")
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 20 + b"PAR1")
    with pytest.raises(ArtifactError, match="is not a readable parquet file") as failure:
        read_table(path)
    line(failure)
