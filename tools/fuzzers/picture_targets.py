"""Pictures, and what they come in: tars, Parquet, data sets of the Hub, CelebA, and a visitor's upload."""

import hashlib
import io
import random
import tarfile
from pathlib import Path
from typing import Any

from fuzzers.chance import behind_name, mutated, mutated_json, mutated_lines
from fuzzers.judging import Target, exchanged, named, replaced, written
from fuzzers.sums import mutated_picture, mutated_tar


def _pictures(_: Path) -> list[bytes]:
    from PIL import Image

    found = []
    picture = Image.effect_noise((9, 7), 60)
    for kind, mode in (("PNG", "P"), ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "L"), ("WEBP", "RGB"), ("PPM", "RGB")):  # fmt: skip
        stream = io.BytesIO()
        picture.convert(mode).save(stream, kind)
        found.append(stream.getvalue())
    return found


# Of the 89 million that Pillow allows a single picture takes, with its transparency, 1.0 GB and 1.6 s: what a bound of fewer says is
# kept is what can be tried here. The explorer's own bound is lower yet.
_MOST_PIXELS = 1 << 24


def _load_picture(data: bytes, _: Path) -> object:
    from PIL import Image

    from latlas.data.decoding import picture_shape, read_picture

    with replaced((Image, "MAX_IMAGE_PIXELS", _MOST_PIXELS)):
        shape = picture_shape(data)
        if len(data) % 2:
            return read_picture(data, channels=3, side=4)
        return shape, read_picture(data)


def _uploads(_: Path) -> list[bytes]:
    from PIL import Image

    found = []
    picture = Image.effect_noise((9, 8), 60)
    for kind, mode in (("PNG", "RGBA"), ("PNG", "I;16"), ("JPEG", "RGB"), ("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGBA")):
        stream = io.BytesIO()
        (picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)).save(stream, kind)
        found.append(stream.getvalue())
    return found


def _load_upload(data: bytes, _: Path) -> object:
    from latlas.app.uploads import read_upload

    return read_upload(data, (3 if len(data) % 2 else 1, 4, 4))


def _tars(_: Path) -> list[bytes]:
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
            for name, content in (("0.ppm", b"P6 1 1 255\n\0\1\2"), ("0.cls", b"7"), ("é" * 40 + "1.ppm", b"P5 1 1 255\n\0")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        found.append(stream.getvalue()[:8192])
    return found


def _load_tar(data: bytes, folder: Path) -> object:
    from latlas.data.tar_shards import list_tars

    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.tar"  # shards stay open under their names
    path.write_bytes(data)
    try:
        listing = list_tars(str(path), [path])
        return _some(listing)
    finally:
        path.unlink()


def _some(listing: Any) -> object:
    """Return the first pictures of a listing: to read one may fail as `Listing.read` says, and to list them in no such way."""
    from latlas.data.decoding import UnreadableError

    try:
        return [listing.read(index) for index in range(min(len(listing), 3))]
    except (ValueError, OSError) as failure:
        raise UnreadableError(str(failure)) from failure


# Tables of pictures

_PIXEL = b"P6 1 1 255\n\0\1\2"


def _parquets(folder: Path) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "a.ppm").write_bytes(_PIXEL)
    cells = [{"bytes": _PIXEL, "path": None}, {"bytes": None, "path": "a.ppm"}]
    pairs = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    found = []
    for table, compression in (
        (pa.table({"image": pairs, "label": pa.array([1, 2])}), "none"),
        (pa.table({"x": pa.array([_PIXEL, _PIXEL])}), "snappy"),
    ):
        stream = io.BytesIO()
        pq.write_table(table, stream, compression=compression, store_schema=False)
        found.append(stream.getvalue())
    return found


def _load_parquet(data: bytes, folder: Path) -> object:
    from latlas.data.parquet_files import list_parquet

    # Files stay open under their names.
    path = written(folder, f"{hashlib.sha256(data).hexdigest()[:16]}.parquet", data)
    try:
        listing = list_parquet(str(path), [path])
        return _some(listing)
    finally:
        path.unlink()


def _hub_sets(folder: Path) -> list[bytes]:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": _PIXEL, "path": None}] * 2, "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder / "set"))
    return [f"{path.name}\n".encode() + path.read_bytes() for path in sorted((folder / "set").iterdir())]


def _load_hub_set(data: bytes, folder: Path) -> object:
    from latlas.data.hub_sets import list_hub

    found = named(data, folder / "set")
    if found is None:
        return None
    with exchanged(*found):
        listing = list_hub(str(folder / "set"))
        return _some(listing)


def _mutated_set(data: bytes, chance: random.Random) -> bytes:
    return (mutated_json if data.partition(b"\n")[0].endswith(b".json") else behind_name(mutated))(data, chance)


# CelebA


def _celeba(folder: Path) -> list[bytes]:
    from PIL import Image

    place = folder / "celeba"
    place.mkdir()
    Image.new("RGB", (178, 218), "red").save(place / "0.jpg", quality=5)
    Image.new("RGB", (178, 218), "blue").save(place / "1.jpg", quality=5)
    (place / "list_eval_partition.txt").write_bytes(b"0.jpg 0\n1.jpg 0\n")
    (place / "list_attr_celeba.txt").write_bytes(b"2\nBald Smiling\n0.jpg 1 -1\n1.jpg -1 -1\n")
    return [f"{path.name}\n".encode() + path.read_bytes() for path in sorted(place.iterdir()) if path.name != "1.jpg"]


def _load_celeba(data: bytes, folder: Path) -> object:
    from latlas.data.celeba import list_celeba

    found = named(data, folder / "celeba")
    if found is None:
        return None
    with exchanged(*found):
        return list_celeba(f"celeba:{folder / 'celeba'}?size=4").load()


def _mutated_celeba(data: bytes, chance: random.Random) -> bytes:
    return behind_name(mutated if data.startswith(b"0.jpg\n") else mutated_lines)(data, chance)


def _unreadable() -> tuple[type[BaseException], ...]:
    from latlas.data.decoding import UnreadableError

    return (UnreadableError,)


PICTURE_TARGETS: dict[str, Target] = {
    "pictures": Target(seeds=_pictures, load=_load_picture, mutate=mutated_picture, allowed=_unreadable),
    "uploads": Target(seeds=_uploads, load=_load_upload, mutate=mutated_picture),
    "tars": Target(seeds=_tars, load=_load_tar, mutate=mutated_tar, allowed=_unreadable),
    "parquet": Target(seeds=_parquets, load=_load_parquet, allowed=_unreadable),
    "hub-sets": Target(seeds=_hub_sets, load=_load_hub_set, mutate=_mutated_set, allowed=_unreadable, named=True),
    "celeba": Target(seeds=_celeba, load=_load_celeba, mutate=_mutated_celeba, named=True),
}
