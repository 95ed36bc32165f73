"""Pickles, read without running code from them.

Python's own unpickler imports and calls what the file names. Refusing names is not enough for an
untrusted file: memo indices, declared lengths and nested keys can still exhaust the memory or crash
the process. Here `pickletools` splits the bytes and checks every length against them; only lists,
dictionaries, tuples, numbers and strings are built, and only the given builders can be called.
Long byte strings, which arrays are stored in, can stay in the file.
"""

import io
import mmap
import pickletools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable

MAX_BYTES = 8 << 20  # the pickle of 10,000 tensors and their optimizer takes a third of it


LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}

TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


LONG = 1 << 12  # bytes of a string from which on it can stay in the file

LENGTH_BYTES = {  # of the opcodes whose strings may be long
    "BINBYTES": 4,
    "BINBYTES8": 8,
    "BYTEARRAY8": 8,
    "BINSTRING": 4,
    "BINUNICODE": 4,
    "BINUNICODE8": 8,
}


class Global(str):
    """The dotted name of a class or function that a pickle asks for; nothing is imported."""


class Span(NamedTuple):
    """A long byte string that stays in the file, from byte `start` to `stop`."""

    start: int
    stop: int


class LongText(bytes):
    """A long text in Latin-1, as which Python 3 writes bytes for Python 2."""


def read_pickle(
    data: bytes | memoryview | mmap.mmap,
    builders: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
    names: frozenset[str] = frozenset(),
    load_reference: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Read the pickle that `data` begins with.

    Args:
        data: bytes; more may follow the pickle's end. Of a mapped file, byte strings of `LONG`
            bytes and more become a `Span` of it, texts a `LongText`; neither counts towards
            `MAX_BYTES`.
        builders: replacement for each class or function that the pickle may call.
        names: further names that it may mention but not call; they become `Global`.
        load_reference: returns the object of a persistent id.

    Returns:
        The object, and the number of bytes that its pickle takes.

    Raises:
        ValueError: for bytes that are not a complete pickle, or longer than `MAX_BYTES`; for a name
            that is not listed, with that name; for an opcode that no state dict needs.
    """
    stays = isinstance(data, mmap.mmap)
    stream = data if isinstance(data, mmap.mmap) else io.BytesIO(data[:MAX_BYTES])
    stream.seek(0)
    reader = _PickleReader(builders, names, load_reference)
    try:
        for opcode, argument in _opcodes(stream, stays):
            reader.step(opcode.name, argument)
        return reader.pop(), stream.tell()
    except (IndexError, KeyError, TypeError) as error:  # of the stack, the memo, a builder's call
        raise ValueError(f"the pickle is malformed ({type(error).__name__}: {error})") from error


def _opcodes(
    stream: IO[bytes] | mmap.mmap, stays: bool
) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Yield opcodes and their arguments; with `stays`, long strings as `Span` and `LongText`."""
    long = 0
    try:
        for opcode, argument, position in pickletools.genops(stream):  # type: ignore[arg-type]
            if stays and opcode.name in LENGTH_BYTES and len(argument or ()) >= LONG:
                start, stop = (position or 0) + 1 + LENGTH_BYTES[opcode.name], stream.tell()
                is_text = "UNICODE" in opcode.name
                argument = LongText(str(argument), "latin1") if is_text else Span(start, stop)
                long += stop - start
            if stream.tell() - long > MAX_BYTES:
                raise _TooLong(f"the pickle has more than {MAX_BYTES} bytes beside its arrays")
            yield opcode, argument
    except _TooLong:
        raise
    except ValueError as error:
        raise ValueError(f"the pickle is damaged or cut off ({error})") from error


class _TooLong(ValueError):
    """More bytes than a state dict needs."""


def fill(target: dict, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Put pairs of key and value into a dictionary.

    Raises:
        ValueError: for a key that is neither a string nor a number; the hash of a nested tuple, or
            its text in a message, may take forever.
    """
    for key, value in pairs:
        if not isinstance(key, (str, int, float)):
            raise ValueError(f"the pickle has a {type(key).__name__} as a dictionary's key")
        target[key] = value


@runtime_checkable
class Buildable(Protocol):
    """What a builder returns whose attributes follow."""

    def build(self, state: Any) -> None:
        """Take the attributes.

        Raises:
            ValueError: if they are of another form.
        """


class _PickleReader:
    """The stack and the memo of a pickle."""

    def __init__(
        self,
        builders: Mapping[str, Callable[..., Any]],
        names: Collection[str],
        load_reference: Callable[[Any], Any] | None,
    ) -> None:
        self.builders = builders
        self.names = names
        self.load_reference = load_reference
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
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

    def pop(self) -> Any:
        if self.marks and self.marks[-1] == len(self.stack):
            raise ValueError("the pickle is malformed (its stack is empty)")
        return self.stack.pop()

    def pop_many(self, start: int) -> list[Any]:
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("the pickle is malformed (its stack is too short)")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        return self.pop_many(start)

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(
                f"the pickle is malformed (it fills a {type(self.stack[-1]).__name__})"
            )
        return self.stack[-1]

    def look_up(self, name: str) -> "Global":
        if name not in self.builders and name not in self.names:
            raise ValueError(f"the pickle asks for {name}, which no tensor needs; it is refused")
        return Global(name)

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def _list(self, _: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def _dict(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        value = self.pop()
        self.top(list).append(value)

    def _appends(self, _: Any) -> None:
        values = self.pop_to_mark()
        self.top(list).extend(values)

    def _setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def _setitems(self, _: Any) -> None:
        self._set(self.pop_to_mark())

    def _set(self, items: list[Any]) -> None:
        fill(self.top(dict), zip(items[::2], items[1::2], strict=True))

    def _global(self, name: str) -> None:
        self.stack.append(self.look_up(name.replace(" ", ".", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("the pickle asks for something without a name")
        self.stack.append(self.look_up(f"{module}.{name}"))

    def _reduce(self, _: Any) -> None:
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Global) or name not in self.builders:
            raise ValueError("the pickle calls something that is not a function")
        self.stack.append(self.builders[name](*arguments))

    _newobj = _reduce

    def _build(self, _: Any) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Buildable):
            self.stack[-1].build(state)
            return
        # Attributes such as the _metadata of torch's state dicts; they are not tensors.
        self.top(dict)

    def _binpersid(self, _: Any) -> None:
        if self.load_reference is None:
            raise ValueError("the pickle has a persistent id where none is known")
        self.stack.append(self.load_reference(self.pop()))
