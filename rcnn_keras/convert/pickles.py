"""Pickles read as data: their opcodes run on a stack that can call nothing but given builders.

Python's own unpickler imports and calls what the file names. Refusing names there is not enough
for a file from elsewhere: memo indices, declared lengths and nested keys can still take the
memory or the process. Here `pickletools` splits the bytes, checks every length against them, and
only lists, dictionaries, tuples, numbers and strings come into being.
"""

import io
import pickletools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

MOST_BYTES = 8 << 20  # the pickle of 10,000 tensors and their optimizer takes a third of it

LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Global(str):
    """The dotted name of a class or function that a pickle asks for; nothing is imported."""


def read_pickle(
    data: bytes | memoryview,
    builders: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
    names: frozenset[str] = frozenset(),
    load_reference: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Read the pickle that `data` begins with.

    Args:
        data: bytes; more may follow the pickle's end.
        builders: what stands in for each class or function that the pickle may call.
        names: further names that it may mention but not call; they become `Global`.
        load_reference: what stands in for a persistent id, given the id.

    Returns:
        The object, and the number of bytes that its pickle takes.

    Raises:
        ValueError: for bytes that are no whole pickle, or longer than `MOST_BYTES`; for a name
            that is not listed, by that name; for an opcode that no state dict needs.
    """
    stream = io.BytesIO(data[:MOST_BYTES])
    machine = _Machine(builders, names, load_reference)
    try:
        for opcode, argument in _opcodes(stream):
            machine.step(opcode.name, argument)
        return machine.pop(), stream.tell()
    except (IndexError, KeyError, TypeError) as error:  # of the stack, the memo, a builder's call
        raise ValueError(f"the pickle is malformed ({type(error).__name__}: {error})") from error


def _opcodes(stream):
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode, argument
    except ValueError as error:
        raise ValueError(f"the pickle is damaged or cut off ({error})") from error


def fill(target: dict, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Put pairs of key and value into a dictionary.

    Raises:
        ValueError: for a key that is no string and no number; the hash of a nested tuple, or its
            text in a message, may never end.
    """
    for key, value in pairs:
        if not isinstance(key, (str, int, float)):
            raise ValueError(f"the pickle has a {type(key).__name__} as a dictionary's key")
        target[key] = value


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, builders, names, load_reference):
        self.builders = builders
        self.names = names
        self.load_reference = load_reference
        self.stack, self.marks, self.memo = [], [], {}

    def step(self, name, argument):
        if name in LITERALS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in TUPLES:
            self.stack.append(tuple(self.pop_many(len(self.stack) - TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            method = getattr(self, f"_{name.lower()}", None)
            if method is None:
                raise ValueError(f"the pickle has the opcode {name}, which no state dict needs")
            method(argument)

    def pop(self):
        if self.marks and self.marks[-1] == len(self.stack):
            raise ValueError("the pickle is malformed (its stack is empty)")
        return self.stack.pop()

    def pop_many(self, start):
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("the pickle is malformed (its stack is too short)")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_to_mark(self):
        start = self.marks.pop()
        return self.pop_many(start)

    def top(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise ValueError(
                f"the pickle is malformed (it fills a {type(self.stack[-1]).__name__})"
            )
        return self.stack[-1]

    def look_up(self, name):
        if name not in self.builders and name not in self.names:
            raise ValueError(f"the pickle asks for {name}, which no tensor needs; it is refused")
        return Global(name)

    def _mark(self, _):
        self.marks.append(len(self.stack))

    def _tuple(self, _):
        self.stack.append(tuple(self.pop_to_mark()))

    def _list(self, _):
        self.stack.append(self.pop_to_mark())

    def _dict(self, _):
        items = self.pop_to_mark()
        self.stack.append({})
        self._set(items)

    def _append(self, _):
        value = self.pop()
        self.top(list).append(value)

    def _appends(self, _):
        values = self.pop_to_mark()
        self.top(list).extend(values)

    def _setitem(self, _):
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def _setitems(self, _):
        self._set(self.pop_to_mark())

    def _set(self, items):
        fill(self.top(dict), zip(items[::2], items[1::2], strict=True))

    def _global(self, name):
        self.stack.append(self.look_up(name.replace(" ", ".", 1)))

    def _stack_global(self, _):
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("the pickle asks for something without a name")
        self.stack.append(self.look_up(f"{module}.{name}"))

    def _reduce(self, _):
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Global) or name not in self.builders:
            raise ValueError("the pickle calls what is no function")
        self.stack.append(self.builders[name](*arguments))

    _newobj = _reduce

    def _build(self, _):
        self.pop()  # attributes, as the _metadata of torch's state dicts: no tensors
        self.top(dict)

    def _binpersid(self, _):
        if self.load_reference is None:
            raise ValueError("the pickle has a persistent id where none is known")
        self.stack.append(self.load_reference(self.pop()))
