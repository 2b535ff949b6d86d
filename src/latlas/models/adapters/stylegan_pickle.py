"""A reader of StyleGAN network pickles that runs nothing: it notes what a pickle would call, and calls none of it.

The public files (`torch_utils.persistence`) carry the Python source of their classes, which the usual loader executes. Here
a small machine follows the pickle's opcodes, one by one as `pickletools` lists them, and builds numbers, texts, containers,
and records of the form "this name, with these arguments". A name is a text: it is never looked up. Names outside a short
list are refused, so that a file that wants something else is told apart from one whose layout is not understood.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from latlas.base.errors import ArtifactError

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
STORAGE = "torch.storage._load_from_bytes"
ORDERED = "collections.OrderedDict"
EASY = "dnnlib.util.EasyDict"

_NUMPY = {
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
}

# What the public files name.
NAMES = frozenset(
    {PERSISTENT, TENSOR, PARAMETER, STORAGE, ORDERED, EASY} | {*_NUMPY, "numpy.ndarray", "numpy.dtype", "builtins.set"}
)

_MOST_OPCODES = 5_000_000  # a network of 1024 x 1024 takes some 50,000
_MOST_MEMO = 1_000_000
_LONGEST_NAME = 120  # of a name in an error


class UnsafePickleError(ArtifactError):
    """A pickle that names what no network file needs, or whose opcodes are not those of one."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global that a pickle names."""

    text: str


@dataclass(slots=True, eq=False)
class Record:
    """What a pickle would have called: a name and its arguments, then what it would have set on the result."""

    name: str
    arguments: tuple[Any, ...]
    items: dict[Any, Any] = field(default_factory=dict)
    state: Any = None


class _Mark:
    pass


_MARK = _Mark()
_KEYS = (str, int, float, bool, bytes, type(None))
_PLAIN_OPS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "STRING", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


class PickleMachine:
    """Follows the opcodes of one pickle.

    Args:
        stream: at the start of the pickle; afterwards at its end.
        names: the globals that it may name.
        persistent: makes a value of a persistent id, for pickles that may have any; None: refused.

    Raises:
        UnsafePickleError: another global, or an opcode that no network file has; the message names it.
        ArtifactError: it is no whole pickle.
    """

    def __init__(
        self, stream: BytesIO, *, names: frozenset[str] = NAMES, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.stream = stream

    def run(self) -> Any:
        """Return the value of the pickle."""
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
                if count >= _MOST_OPCODES or len(self.memo) > _MOST_MEMO:
                    raise UnsafePickleError(f"The pickle has more than {_MOST_OPCODES:,} opcodes or {_MOST_MEMO:,} memos.")
                if opcode.name == "STOP":
                    value = self.pop()
                    if self.stack:
                        raise _damaged("values are left at its end")
                    return value
                self.step(opcode.name, argument)
        except (ValueError, KeyError, IndexError, UnicodeError, OverflowError, EOFError, MemoryError) as failure:
            raise _damaged(str(failure)) from failure
        raise _damaged("it has no end")

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one opcode."""
        stack = self.stack
        if opcode in _LITERALS:
            stack.append(argument)
        elif opcode in _PLAIN_OPS:
            stack.append(_PLAIN_OPS[opcode])
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self)
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.top()
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode in ("GLOBAL", "INST"):
            module, _, name = argument.partition(" ")
            stack.append(self.name(module, name))
            if opcode == "INST":  # after the check, so that the message names the class
                raise UnsafePickleError(
                    "The pickle builds an object by INST, which no network file does. Nothing in it was run."
                )
        elif opcode in ("BINPERSID", "PERSID") and self.persistent is not None:
            stack.append(self.persistent(self.pop() if opcode == "BINPERSID" else argument))
        elif opcode not in ("PROTO", "FRAME"):
            given = "" if argument is None else f" {str(argument)[:40]!r}"
            raise UnsafePickleError(
                f"The pickle has the opcode {opcode}{given}, which no network file has. Nothing in it was run."
            )

    def name(self, module: Any, name: Any) -> Name:
        """Return a global, if it is one of those allowed.

        Raises:
            UnsafePickleError: it is not.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnsafePickleError(
                "The pickle computes the name of a global, which no network file does. Nothing in it was run."
            )
        text = f"{module}.{name}"
        if text not in self.names:
            hint = (
                " It was written by TensorFlow: convert it with the legacy.py of StyleGAN2-ADA."
                if text.startswith("dnnlib.tflib")
                else ""
            )
            raise UnsafePickleError(
                f"The pickle names {ascii(text[:_LONGEST_NAME])[1:-1]}, which no network file needs. It was refused, and nothing in it "
                f"was run.{hint}"
            )
        return Name(text)

    def pop(self) -> Any:
        """Take the last value."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def top(self) -> Any:
        """Return the last value, and leave it."""
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self.stack[-1]

    def pop_marked(self) -> list[Any]:
        """Take all values since the last mark, and the mark."""
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def call(self) -> None:
        """Note a call: a name and its arguments."""
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise UnsafePickleError("The pickle calls what is no global, which no network file does. Nothing in it was run.")
        self.stack.append(Record(name.text, arguments))

    def set_state(self) -> None:
        """Note what would be set on an object."""
        state, record = self.pop(), self.top()
        if not isinstance(record, Record) or record.state is not None:
            kind = record.text if isinstance(record, Name) else type(record).__name__
            raise UnsafePickleError(f"The pickle sets the state of {kind}, which no network file does. Nothing in it was run.")
        record.state = state

    def set_items(self, values: list[Any]) -> None:
        """Put pairs into a dictionary."""
        target = self.top()
        pairs = target.items if isinstance(target, Record) and target.name in (ORDERED, EASY) else target
        if not isinstance(pairs, dict) or len(values) % 2:
            raise ValueError(f"items for a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            pairs[_key(key)] = value

    def append(self, values: list[Any]) -> None:
        """Append to a list."""
        target = self.top()
        if not isinstance(target, list):
            raise ValueError(f"elements for a {type(target).__name__}")
        target.extend(values)

    def add(self, values: list[Any]) -> None:
        """Add to a set."""
        target = self.top()
        if not isinstance(target, set):
            raise ValueError(f"elements for a {type(target).__name__}")
        target.update(_key(value) for value in values)

    def put_tuple(self, values: list[Any]) -> None:
        """Push a tuple of values."""
        self.stack.append(tuple(values))

    def put_last(self, count: int) -> None:
        """Replace the last few values by a tuple of them."""
        self.put_tuple([self.pop() for _ in range(count)][::-1])

    def put_dict(self, values: list[Any]) -> None:
        """Push a dictionary of pairs."""
        self.stack.append({})
        self.set_items(values)

    def put_global(self) -> None:
        """Push a global whose name was pushed in two parts."""
        name, module = self.pop(), self.pop()
        self.stack.append(self.name(module, name))

    def memoize(self) -> None:
        """Remember the last value under the next free number."""
        self.memo[len(self.memo)] = self.top()


_ACTIONS: dict[str, Callable[[PickleMachine], object]] = {
    "MARK": lambda machine: machine.stack.append(_MARK),
    "POP": lambda machine: machine.stack.pop(),
    "POP_MARK": lambda machine: machine.pop_marked(),
    "DUP": lambda machine: machine.stack.append(machine.top()),
    "MEMOIZE": PickleMachine.memoize,
    "EMPTY_TUPLE": lambda machine: machine.stack.append(()),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "EMPTY_SET": lambda machine: machine.stack.append(set()),
    "TUPLE": lambda machine: machine.put_tuple(machine.pop_marked()),
    "TUPLE1": lambda machine: machine.put_last(1),
    "TUPLE2": lambda machine: machine.put_last(2),
    "TUPLE3": lambda machine: machine.put_last(3),
    "LIST": lambda machine: machine.stack.append(machine.pop_marked()),
    "DICT": lambda machine: machine.put_dict(machine.pop_marked()),
    "FROZENSET": lambda machine: machine.stack.append(frozenset(map(_key, machine.pop_marked()))),
    "APPEND": lambda machine: machine.append([machine.pop()]),
    "APPENDS": lambda machine: machine.append(machine.pop_marked()),
    "SETITEM": lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine: machine.set_items(machine.pop_marked()),
    "ADDITEMS": lambda machine: machine.add(machine.pop_marked()),
    "STACK_GLOBAL": PickleMachine.put_global,
    "REDUCE": PickleMachine.call,
    "NEWOBJ": PickleMachine.call,
    "BUILD": PickleMachine.set_state,
}


def read_pickle(content: bytes) -> Any:
    """Return the value of a pickle, with a `Record` for all that it would have called.

    Raises:
        UnsafePickleError: it names another global than those of `NAMES`, or has an opcode that no network file has.
        ArtifactError: it is no whole pickle, or more follows it.
    """
    stream = BytesIO(content)
    value = PickleMachine(stream).run()
    if stream.read(1):
        raise _damaged("more follows its end")
    return value


def _key(value: Any) -> Any:
    # Tuples are left out: a few dozen opcodes make one whose hash takes years to compute.
    if not isinstance(value, _KEYS):
        raise ValueError(f"a {type(value).__name__} as a key")
    return value


def _damaged(reason: str) -> ArtifactError:
    return ArtifactError(f"This is not a whole pickle ({reason.strip()[:120]}). Fetch the file again.")
