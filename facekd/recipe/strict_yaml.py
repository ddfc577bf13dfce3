"""The part of YAML a recipe may use, read strictly and with the line of every key.

Scalars follow the YAML 1.2 core schema, so ``1e-3`` is a number and ``no`` is text. Refused: duplicate keys, tags,
anchors, aliases, ``010``, a second document, more than :data:`MOST_DEPTH` levels or :data:`MOST_ENTRIES` entries.
Nothing is ever constructed but mappings, lists, text, numbers, booleans and null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from facekd.recipe.base import Location, Problem

MOST_DEPTH = 50
MOST_ENTRIES = 10_000
MOST_DIGITS = 400

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_OCTAL_LIKE = re.compile(r"[-+]?0[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class YamlError(Exception):
    """Text that cannot be read any further.

    Args:
        line: 1-based line.
        what: What is wrong there.
        fix: What to do about it.
    """

    def __init__(self, line: int, what: str, fix: str = "") -> None:
        self.line, self.what, self.fix = line, what, fix
        super().__init__(what)


@dataclass
class Document:
    """A document and where its parts were written.

    Attributes:
        value: Mappings, lists and scalars.
        lines: 1-based line of each key or list item, by the keys leading to it.
        problems: What was refused without ending the reading, with its line.
    """

    value: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[tuple[int, Problem]] = field(default_factory=list)


def scalar_value(text: str) -> Any:
    """The value of an unquoted scalar.

    Raises:
        ValueError: The text reads as two different numbers, or is too long a number.

    Example:
        >>> [scalar_value(text) for text in ("1e-3", "8", "no", "true", "~", "12:30:45", ".5")]
        [0.001, 8, 'no', True, None, '12:30:45', 0.5]
        >>> scalar_value("010")
        Traceback (most recent call last):
        ValueError: 010 may mean 8 or 10
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text[0] in "tT"
    if _INTEGER.fullmatch(text):
        if len(text) > MOST_DIGITS:
            raise ValueError(f"a number of {len(text)} digits")
        if _OCTAL_LIKE.fullmatch(text):
            raise ValueError(f"{text} may mean {int(text, 8)} or {int(text)}")
        return int(text, 0) if text[1:2] in ("o", "x") else int(text)
    if _FLOAT.fullmatch(text) or _SPECIAL.fullmatch(text):
        return float(text.replace(".i", "i").replace(".I", "I").lower().replace(".n", "n"))
    return text


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _refuse_decoration(event: Any, location: Location, found: Document) -> None:
    line = _line(event)
    if isinstance(event, yaml.AliasEvent):
        found.problems.append((line, Problem(location, f"alias *{str(event.anchor)[:40]}", "write the value out")))
        return
    if event.anchor is not None:
        found.problems.append((line, Problem(location, f"anchor &{event.anchor[:40]}", "remove it")))
    if event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:80]
        found.problems.append((line, Problem(location, f"tag {tag} is not allowed", "write plain YAML")))


def _scalar(event: Any, location: Location, found: Document) -> Any:
    if not event.implicit[0]:
        return event.value
    try:
        return scalar_value(event.value)
    except ValueError as error:
        found.problems.append((_line(event), Problem(location, str(error), "write it without leading zeros")))
        return event.value


def _key(event: Any, events: Iterator[Any], location: Location, found: Document) -> str:
    line = _line(event)
    _refuse_decoration(event, location, found)
    if not isinstance(event, yaml.ScalarEvent):
        raise YamlError(line, "a key that is not text", "write key: value")
    key = _scalar(event, location, found)
    if not isinstance(key, str):
        found.problems.append((line, Problem(location, f"key {event.value[:40]} is not text", "quote it")))
    return event.value


def _mapping(events: Iterator[Any], location: Location, found: Document) -> dict[str, Any]:
    value: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _key(event, events, location, found)
        line = _line(event)
        here = (*location, key)
        if key in value:
            what = f"given twice, on lines {found.lines[here]} and {line}"
            found.problems.append((line, Problem(here, what, "keep one")))
        found.lines.setdefault(here, line)
        value[key] = _value(next(events), events, here, found)
    return value


def _value(event: Any, events: Iterator[Any], location: Location, found: Document) -> Any:
    _refuse_decoration(event, location, found)
    if len(location) > MOST_DEPTH:
        raise YamlError(_line(event), f"more than {MOST_DEPTH} levels of nesting", "flatten it")
    found.lines.setdefault(location, _line(event))
    if len(found.lines) > MOST_ENTRIES:
        raise YamlError(_line(event), f"more than {MOST_ENTRIES} entries", "a recipe has a few dozen")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, location, found)
    if isinstance(event, yaml.MappingStartEvent):
        return _mapping(events, location, found)
    items: list[Any] = []
    if isinstance(event, yaml.SequenceStartEvent):
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_value(event, events, (*location, len(items)), found))
        return items
    return None


def _explain(error: yaml.MarkedYAMLError) -> YamlError:
    mark = error.problem_mark or error.context_mark
    kind = {"while parsing a flow sequence": "[", "while parsing a flow mapping": "{"}.get(error.context or "")
    if kind and error.context_mark:
        return YamlError(error.context_mark.line + 1, f"{kind} is not closed, or a comma is missing after it")
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if "'\\t'" in str(error.problem):
        return YamlError(line, f"a tab at column {column}", "indent with spaces")
    return YamlError(line, f"not YAML at column {column}: {error.problem or error.context}", "check the indentation")


def read_yaml(text: str) -> Document:
    """Read one document.

    Raises:
        YamlError: The text is not YAML, nests too deep, or holds a second document.

    Example:
        >>> document = read_yaml("a: 1e-3\\nb: [x, no]\\na: 2\\n")
        >>> document.value["b"], document.lines[("b", 1)]
        (['x', 'no'], 2)
        >>> document.problems[0][1].what
        'given twice, on lines 1 and 3'
    """
    found = Document()
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if found.lines:
                    raise YamlError(_line(event), "a second document", "remove the --- line")
                found.value = _value(next(events), events, (), found)
    except yaml.MarkedYAMLError as error:
        raise _explain(error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, f"character U+{ord(text[error.position]):04X} is not allowed", "remove it") from error
    return found
