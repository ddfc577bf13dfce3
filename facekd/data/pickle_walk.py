"""A reader for the few pickle opcodes that image containers are made of; nothing in the file is ever called.

Running a pickle runs whatever its author wrote, and even a refusing unpickler can be made to allocate gigabytes by
eight bytes. Here opcodes come from a short table, globals are names compared with a list, calls build the value they
are known to build, and memory is charged against a budget set by the size of the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field

from facekd.data.pickle_values import GLOBALS, Global, Refused, as_text, call, fill
from facekd.errors import InputError

MAX_DEPTH = 64
OPCODE_CHARGE = 64
BASE_BUDGET = 32 * 2**20
_FIX = "only pickles of encoded images and booleans are read"
_OPCODE_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}


@dataclass
class _Walker:
    data: bytes
    budget: int
    at: int = 0
    stack: list = field(default_factory=list)
    marked: list[list] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def charge(self, amount: int) -> None:
        self.budget -= amount
        if self.budget < 0:
            raise Refused("more objects than a file of this size can hold")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise Refused(f"{count} bytes announced, {len(self.data) - self.at} left: the file is cut short or damaged")
        self.charge(count)
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 256)
        if end < 0:
            raise Refused("a line without an end")
        text = self.take(end + 1 - self.at)[:-1]
        return text.decode("latin-1")

    def pop(self) -> object:
        if not self.stack:
            raise Refused("takes a value where there is none")
        return self.stack.pop()

    def pop_marked(self) -> list:
        if not self.marked:
            raise Refused("closes a group that was not opened")
        items, self.stack = self.stack, self.marked.pop()
        return items


def walk(data: bytes, name: str) -> object:
    """The value a pickle describes: None, bool, int, str, bytes, tuple, list and ``Array``, nested.

    Python-2 ``str`` and ``bytearray`` come back as bytes, numpy booleans as bool.

    Args:
        data: The whole file.
        name: The file, for messages.

    Raises:
        InputError: Anything outside the allow-list, cut short, or larger than the file warrants; names the byte.

    Example:
        >>> walk(b"\\x80\\x04\\x88\\x89\\x86.", "x")
        (True, False)
        >>> walk(b"cos\\nsystem\\n(S'ls'\\ntR.", "x.bin")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facekd.errors.InputError: x.bin: byte 0: GLOBAL 'os system' is refused (only ...
    """
    walker = _Walker(data, BASE_BUDGET + 3 * len(data))
    while True:
        start = walker.at
        code = data[start] if start < len(data) else None
        try:
            if code is None:
                raise Refused("the file ends without STOP: cut short or not a pickle")
            walker.at += 1
            walker.charge(OPCODE_CHARGE)
            if code == ord("."):
                return _finish(walker)
            handler = _HANDLERS.get(code)
            if handler is None:
                raise Refused(f"opcode {_OPCODE_NAMES.get(code, hex(code))} is refused")
            handler(walker)
        except Refused as refused:
            raise InputError(name, f"byte {start}: {refused}", _FIX) from None


def _finish(walker: _Walker) -> object:
    result = walker.pop()
    if walker.stack or walker.marked:
        raise Refused("STOP with values left over")
    if walker.at != len(walker.data):
        raise Refused(f"{len(walker.data) - walker.at} bytes follow the end of the pickle")
    return result


def _constant(value: object) -> Callable[[_Walker], None]:
    return lambda walker: walker.stack.append(value)


def _integer(width: int, signed: bool) -> Callable[[_Walker], None]:
    return lambda walker: walker.stack.append(walker.number(width, signed))


def _sized_bytes(width: int) -> Callable[[_Walker], None]:
    return lambda walker: walker.stack.append(walker.take(walker.number(width)))


def _sized_text(width: int) -> Callable[[_Walker], None]:
    def push(walker: _Walker) -> None:
        try:
            walker.stack.append(walker.take(walker.number(width)).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            raise Refused("text that is not UTF-8") from None

    return push


def _marked_tuple(walker: _Walker) -> None:
    items = walker.pop_marked()
    walker.stack.append(tuple(items))


def _small_tuple(count: int) -> Callable[[_Walker], None]:
    def push(walker: _Walker) -> None:
        items = [walker.pop() for _ in range(count)]
        walker.stack.append(tuple(reversed(items)))

    return push


def _put(width: int) -> Callable[[_Walker], None]:
    def store(walker: _Walker) -> None:
        index = walker.number(width) if width else len(walker.memo)
        if not walker.stack:
            raise Refused("remembers a value where there is none")
        walker.memo[index] = walker.stack[-1]

    return store


def _get(width: int) -> Callable[[_Walker], None]:
    def recall(walker: _Walker) -> None:
        index = walker.number(width)
        if index not in walker.memo:
            raise Refused(f"recalls value {index}, which was not remembered")
        walker.stack.append(walker.memo[index])

    return recall


def _protocol(walker: _Walker) -> None:
    if walker.number(1) > 5:
        raise Refused("a pickle protocol above 5")


def _long(walker: _Walker) -> None:
    width = walker.number(1)
    if width > 8:
        raise Refused(f"an integer of {width} bytes")
    walker.stack.append(walker.number(width, signed=True))


def _int_line(walker: _Walker) -> None:
    text = walker.line()
    if text not in ("00", "01"):
        raise Refused("a number written as text")
    walker.stack.append(text == "01")


def _mark(walker: _Walker) -> None:
    if len(walker.marked) >= MAX_DEPTH:
        raise Refused(f"groups nested deeper than {MAX_DEPTH}")
    walker.marked.append(walker.stack)
    walker.stack = []


def _append(walker: _Walker, items: list) -> None:
    if not walker.stack or not isinstance(walker.stack[-1], list):
        raise Refused("appends to something that is no list")
    walker.stack[-1].extend(items)


def _global(walker: _Walker) -> None:
    _push_global(walker, walker.line(), walker.line(), "GLOBAL")


def _stack_global(walker: _Walker) -> None:
    name, module = walker.pop(), walker.pop()
    _push_global(walker, as_text(module), as_text(name), "STACK_GLOBAL")


def _push_global(walker: _Walker, module: str, name: str, opcode: str) -> None:
    known = GLOBALS.get(f"{module} {name}")
    if known is None:
        raise Refused(f"{opcode} {ascii(f'{module} {name}'[:80])} is refused")
    walker.stack.append(Global(known))


def _reduce(walker: _Walker) -> None:
    arguments, function = walker.pop(), walker.pop()
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise Refused("REDUCE of something that is no known function")
    value = call(function.name, arguments)
    if isinstance(value, bytes):
        walker.charge(len(value))
    walker.stack.append(value)


def _build(walker: _Walker) -> None:
    state, target = walker.pop(), walker.pop()
    fill(target, state)
    walker.stack.append(target)


_HANDLERS: dict[int, Callable[[_Walker], object]] = {
    0x80: _protocol,
    0x95: lambda walker: walker.take(8),
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("J"): _integer(4, True),
    ord("K"): _integer(1, False),
    ord("M"): _integer(2, False),
    0x8A: _long,
    ord("I"): _int_line,
    ord("U"): _sized_bytes(1),
    ord("T"): _sized_bytes(4),
    ord("C"): _sized_bytes(1),
    ord("B"): _sized_bytes(4),
    0x8E: _sized_bytes(8),
    0x96: _sized_bytes(8),
    0x8C: _sized_text(1),
    ord("X"): _sized_text(4),
    0x8D: _sized_text(8),
    ord("("): _mark,
    ord(")"): _constant(()),
    0x85: _small_tuple(1),
    0x86: _small_tuple(2),
    0x87: _small_tuple(3),
    ord("t"): _marked_tuple,
    ord("]"): lambda walker: walker.stack.append([]),
    ord("a"): lambda walker: _append(walker, [walker.pop()]),
    ord("e"): lambda walker: _append(walker, walker.pop_marked()),
    ord("q"): _put(1),
    ord("r"): _put(4),
    0x94: _put(0),
    ord("h"): _get(1),
    ord("j"): _get(4),
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    ord("b"): _build,
}
