"""Chance: changed copies of well-formed files, as bytes, as JSON, as text, as tensors."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

LONGEST = 1 << 16  # bytes of an input

Mutate = Callable[[bytes, random.Random], bytes]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy: bits, bytes, numbers, pieces taken out, put twice or exchanged."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place = chance.randrange(len(content) + 1)
        end = min(len(content), place + chance.choice((1, 1, 2, 4, 8, 32)))
        match chance.randrange(7):
            case 0 if place < len(content):
                content[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(content):
                content[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2:
                del content[place:end]
            case 3:
                content[place:place] = content[place:end] * chance.choice((1, 2, 50))
            case 4:
                width = chance.choice((2, 4, 8))
                number = chance.choice((0, 1, -1, 1 << (8 * width - 1), (1 << (8 * width - 1)) - 1, 1 << (4 * width)))
                order = chance.choice(("little", "big"))
                content[place : place + width] = (number % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
            case 5:
                del content[place:]
            case _:
                content[place:place] = chance.choice(
                    (b"\0", b"\n", b"-1", b"999999999999", b"../", b"[", b"{", b'"', b"\xff\xfe")
                )
    return bytes(content[:LONGEST])


def mutated_json(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a JSON text behind a first line that is left alone; one in five is changed as mere bytes."""
    head, _, text = data.partition(b"\n")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict | list) or chance.random() < 0.2:
        return head + b"\n" + mutated(text, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder, key = chance.choice(list(_places(record)) or [({}, "x")])
        match chance.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(("", "x", "__class__", "name"))] = holder.pop(key)
            case _:
                holder[key] = chance.choice(_NASTY)()
    return head + b"\n" + json.dumps(record).encode()


_NASTY: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: 0,
    lambda: -1,
    lambda: 3,
    lambda: 10**9,
    lambda: 10**30,
    lambda: 0.5,
    lambda: 1e308,
    lambda: float("nan"),
    lambda: "",
    lambda: "x\n\x1b[2J",
    lambda: "../../etc/passwd",
    lambda: "\ud800",
    lambda: "9" * 5000,
    list,
    dict,
    lambda: [[]],
    lambda: [1, 2],
    lambda: [10**9, 10**9, 10**9],
    lambda: ["a"] * 1000,
    lambda: [[[[[[[[[[]]]]]]]]]],
    lambda: {"x": {"y": None}},
)


def _places(record: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each of its keys, all the way down."""
    for key, value in list(record.items() if isinstance(record, dict) else enumerate(record)):
        yield record, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutated_text(data: bytes, chance: random.Random) -> bytes:
    """Return a changed spec: its signs exchanged, put twice, made long."""
    text = data.decode(errors="surrogateescape")
    for _ in range(chance.choice((1, 2, 4))):
        place = chance.randrange(len(text) + 1)
        piece = chance.choice(("[0:", "]", ":", "?", "&", "=", "#", "+", "@", "{0..9}", "{a,b}", "*", "..", "/", "-1", "9" * 30, "9" * 5000,
                               "\0", "\ud800", "é", " ", "", "a" * 300, "{1..1}" * 1500, "0x10", "nan"))  # fmt: skip
        text = text[:place] + piece + text[place + chance.randrange(3) :]
    return text[:20_000].encode(errors="surrogatepass")


def behind_name(mutate: Mutate) -> Mutate:
    """Return what changes only what stands behind the first line, which names the file that the rest is put into."""

    def changed(data: bytes, chance: random.Random) -> bytes:
        head, _, rest = data.partition(b"\n")
        return head + b"\n" + mutate(rest, chance)

    return changed


def mutated_lines(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a text: lines and words taken out, put twice, exchanged; one in four is changed as mere bytes."""
    if chance.random() < 0.25:
        return mutated(data, chance)
    lines = [line.split(b" ") for line in data.split(b"\n")]
    for _ in range(chance.choice((1, 1, 2, 4))):
        words = chance.choice(lines)
        place = chance.randrange(len(words) + 1)
        match chance.randrange(5):
            case 0:
                lines.insert(chance.randrange(len(lines) + 1), list(words))
            case 1 if len(lines) > 1:
                lines.remove(words)
            case 2:
                del words[place : place + 1]
            case 3:
                words[place : place + 1] = [
                    chance.choice((b"", b"-1", b"2", b"9" * 400, b"../x.jpg", b"/etc/passwd", b"\xff", b"0.png", b"[" * 50_000))
                ]
            case _:
                words.insert(place, chance.choice(chance.choice(lines) or [b""]))
    return b"\n".join(b" ".join(words) for words in lines)[:LONGEST]


def mutated_tensors(data: bytes, chance: random.Random) -> bytes:
    """Return a changed copy of a safetensors file that can be read as one: other types, shapes, names, numbers; or one of mere bytes."""
    import torch
    from safetensors.torch import load, save

    try:
        tensors = load(data)
    except Exception:  # what was changed as bytes before
        return mutated(data, chance)
    if not tensors or chance.random() < 0.3:
        return mutated(data, chance)
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.float32, torch.int64, torch.uint8, torch.bool, torch.complex64)
    match chance.randrange(7):
        case 0:
            tensors[name] = tensor.to(chance.choice(kinds))
        case 1:
            tensors[name] = tensor.reshape(-1)
        case 2:
            tensors[name] = tensor.reshape(*tensor.shape, 1) if chance.random() < 0.5 else tensor[None].contiguous()
        case 3:
            tensors[name] = torch.full(
                tensor.shape, chance.choice((float("nan"), float("inf"), -1e308, 1e38, 0.0)), dtype=torch.float64
            )
        case 4:
            del tensors[name]
        case 5:
            tensors[chance.choice(("x", "", "weight", "mean", f"{name}.x", *tensors))] = tensor.clone()
        case _:
            tensors[name] = torch.zeros([chance.choice((0, 1, 2, 3, 7)) for _ in range(chance.randrange(6))])
    return save(tensors)[:LONGEST]
