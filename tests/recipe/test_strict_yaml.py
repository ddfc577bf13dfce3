"""The strict reader: what it refuses, what it takes for a number, and that it cannot be exhausted."""

from __future__ import annotations

import math

import pytest

from facekd.recipe.strict_yaml import MOST_DEPTH, MOST_ENTRIES, YamlError, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e3", 1e3),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("<<", "<<"),
        ("'8'", "8"),
        ('"1e3"', "1e3"),
        ("null", None),
        ("~", None),
        ("", None),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_follow_the_core_schema(text, value):
    found = read_yaml(f"key: {text}\n")
    assert found.value == {"key": value}
    assert type(found.value["key"]) is type(value)
    assert not found.problems


def test_nan_is_read_as_nan():
    assert math.isnan(read_yaml("a: .nan").value["a"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: 010", "010 may mean 8 or 10"),
        ("a: !!python/object/apply:os.system ['id']", "tag !!python/object/apply:os.system is not allowed"),
        ("a: !foo 1", "tag !foo is not allowed"),
        ("a: &x 1", "anchor &x"),
        ("a: &x [*x]", "alias *x"),
        ("a: 1\nb: 2\na: 3", "given twice, on lines 1 and 3"),
        ("1: a", "key 1 is not text"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
    ],
)
def test_problems_that_do_not_end_the_reading(text, what):
    found = read_yaml("first: ok\n" + text if "twice" not in what else text)
    assert what in [problem.what for _, problem in found.problems]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a:\n\tb: 1", 2, "a tab at column 1"),
        ("ok: 1\na: [1,\nb: {c: 2\n", 3, "{ is not closed"),
        ("a: [1,\n2\n", 1, "[ is not closed"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("? [a]\n: 1", 1, "a key that is not text"),
        ("a: b: c", 1, "not YAML at column 5"),
        ("ok: 1\na: \x07", 2, "character U+0007"),
    ],
)
def test_text_that_cannot_be_read_names_its_line(text, line, what):
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert caught.value.line == line
    assert what in caught.value.what


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "{a: " * 50_000,
        "- " * 50_000,
        "\n".join(" " * depth + "a:" for depth in range(1000)),
        "a: [" + "1," * 400_000 + "]",
        "- a\n" * 200_000,
        "? " * 100_000,
    ],
)
def test_deep_and_long_documents_are_refused_before_they_are_read(text):
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert caught.value.line <= MOST_ENTRIES


def test_depth_limit_is_exact():
    assert read_yaml("[" * MOST_DEPTH + "]" * MOST_DEPTH).value
    with pytest.raises(YamlError, match="more than 50 levels"):
        read_yaml("[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2))


def test_an_alias_bomb_expands_nothing():
    text = "a: &a [x, x]\n" + "\n".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(20)
    )
    found = read_yaml(text)
    assert len(found.problems) == 21 + 40
    assert found.value["u"] == [None, None]


def test_keys_know_their_lines():
    found = read_yaml("a:\n  b: 1\n  c:\n    - x\n    - y: 2\n")
    assert {location: found.lines[location] for location in [("a", "b"), ("a", "c", 0), ("a", "c", 1, "y")]} == {
        ("a", "b"): 2,
        ("a", "c", 0): 4,
        ("a", "c", 1, "y"): 5,
    }
