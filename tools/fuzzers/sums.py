"""Chance behind a checksum: what is changed is summed again, else nearly every change would be refused for its sum alone."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from contextlib import suppress

from fuzzers.chance import LONGEST, mutated, mutated_json

_AS_BYTES = 0.25  # of changes: whoever sums again need not be asked

# A tar's header: where each field begins, and its length.
_BLOCK = 512
_NAME, _SIZE, _SUM, _KIND, _LINK, _MAGIC, _PREFIX = (0, 100), (124, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155)
_SIZES = (b"00000000000", b"00000000001", b"00000000777", b"77777777777", b"-1", b"", b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\x09", b"\x80" + b"\xff" * 11)  # fmt: skip
_KINDS = (b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"x", b"g", b"L", b"K", b"S", b"D", b"V", b"\xff")
_NAMES = (b"", b"/", b"../../x.png", b"/etc/passwd", b"\xff.jpg", b"a" * 100, b"x.cls", b".png", b"a.png.png", b"\n.jpg")
_PAX = (b"path=../../x.ppm", b"size=-1", b"size=99999999999999999999", b"GNU.sparse.major=1", b"GNU.sparse.map=0,1,2", b"path=\xff", b"size=0", b"GNU.sparse.size=3")  # fmt: skip


def mutated_tar(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a tar: the fields of a header, or the records of an extended one."""
    content = bytearray(data)
    heads = [start for start in range(0, len(content) - _BLOCK + 1, _BLOCK) if content[start + 257 : start + 262] == b"ustar"]
    if not heads or chance.random() < _AS_BYTES:
        return mutated(data, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        start = chance.choice(heads)
        if content[start + _KIND[0]] in b"xg" and chance.random() < 0.7:
            record = chance.choice(_PAX)
            length = next(size for size in range(len(record) + 3, len(record) + 9) if size == len(f"{size} ") + len(record) + 1)
            told = b"%d %s\n" % (length, record)
            content[start + _BLOCK : start + 2 * _BLOCK] = told.ljust(_BLOCK, b"\0")
            _put(content, start, _SIZE, b"%011o" % len(told))
        else:
            field, values = chance.choice(
                (
                    (_NAME, _NAMES),
                    (_SIZE, _SIZES),
                    (_KIND, _KINDS),
                    (_LINK, _NAMES),
                    (_MAGIC, (b"ustar  ", b"ustar")),
                    (_PREFIX, _NAMES),
                )
            )
            _put(content, start, field, chance.choice(values))
        _put(content, start, _SUM, b" " * 8)
        _put(content, start, _SUM, b"%06o\0 " % sum(content[start : start + _BLOCK]))
    return bytes(content[:LONGEST])


def _put(content: bytearray, start: int, field: tuple[int, int], value: bytes) -> None:
    place, size = field
    content[start + place : start + place + size] = value[:size].ljust(size, b"\0")


def mutated_picture(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a picture; of a PNG, one chunk of it, taken out of its compression where it is in one."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or chance.random() < _AS_BYTES:
        return mutated(data, chance)
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return mutated(data, chance)
    number = chance.randrange(len(chunks))
    kind, content = chunks[number]
    match chance.randrange(5):
        case 0:
            chunks.insert(number, chunks[chance.randrange(len(chunks))])
        case 1:
            del chunks[number]
        case 2:
            chunks[number] = (
                chance.choice((b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fdAT", b"gAMA")),
                content,
            )
        case 3 if kind == b"IDAT":
            with suppress(zlib.error):
                chunks[number] = (kind, zlib.compress(mutated(zlib.decompressobj().decompress(content, LONGEST), chance)))
        case _:
            chunks[number] = (kind, mutated(content, chance))
    summed = (struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in chunks)
    return (data[:8] + b"".join(summed))[:LONGEST]


def mutated_archive(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a zip: one member of it, or its name."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.open(name).read(LONGEST) for name in archive.namelist()}
    except Exception:  # what was changed as bytes before
        return mutated(data, chance)
    if not parts or chance.random() < _AS_BYTES:
        return mutated(data, chance)
    name = chance.choice(sorted(parts))
    if chance.random() < 0.15:
        parts[chance.choice(("../x.npy", "/x.npy", "images", "labels.npy", "x", "a" * 300))] = parts.pop(name)
    else:
        parts[name] = mutated(parts[name], chance)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, content in parts.items():
            archive.writestr(each, content)
    return stream.getvalue()[:LONGEST]


def mutated_zipped(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of what stands behind a first byte: of a gzip where that is a `z`, what it holds."""
    if data[:1] == b"z" and chance.random() > _AS_BYTES:
        with suppress(OSError, EOFError, zlib.error):
            with gzip.open(io.BytesIO(data[1:])) as stream:
                content = stream.read(LONGEST)
            return (b"z" + gzip.compress(mutated(content, chance), mtime=0))[:LONGEST]
    return data[:1] + mutated(data[1:], chance)


def mutated_safetensors(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a safetensors file: its header as JSON, with the length that it has then."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8 or chance.random() < _AS_BYTES:
        return mutated(data, chance)
    header = mutated_json(b"\n" + data[8 : 8 + length], chance)[1:]
    return (len(header).to_bytes(8, "little") + header + data[8 + length :])[:LONGEST]
