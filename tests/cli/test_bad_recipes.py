"""Bad inputs 1 to 34: recipes that cannot be run. Each is one line with file and line, in no time, without torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bad_inputs import RECIPE, TRAIN, Case, answer, recipe, write_faces, write_model
from click.testing import CliRunner
from facekd_cli.main import cli

from facekd.models.weights import save_classifier


def swapped(old: str, new: str) -> bytes:
    assert old in RECIPE
    return RECIPE.replace(old, new).encode()


def added(line: str) -> bytes:
    return (RECIPE + line + "\n").encode()


TEXTS: list[tuple[str, bytes, str]] = [
    ("1-empty", b"", r"r\.yaml: the recipe is empty"),
    ("2-list", b"- a\n- b\n", r"r\.yaml:1: expected a mapping, got a list"),
    ("2-text", b"name\n", r"r\.yaml:1: expected a mapping, got"),
    ("3-tab", swapped("  - {name: margin", "\t- {name: margin"), r"r\.yaml:5: a tab at column 1"),
    ("4-open-bracket", added("evaluate: {sets: [1, 2"), r"r\.yaml:8: \[ is not closed"),
    ("5-not-utf-8", RECIPE.encode() + b"# \xff\n", r"r\.yaml: byte \d+ \(0xFF\) is not UTF-8"),
    (
        "7-python-tag",
        swapped("name: tiny", "name: !!python/object/apply:os.system [touch owned]"),
        r"r\.yaml:1: .*os\.system",
    ),
    ("8-unknown-tag", swapped("name: tiny", "name: !foo tiny"), r"r\.yaml:1: name: tag !foo is not allowed"),
    (
        "9-twice",
        swapped("learning_rate: 0.05", "learning_rate: 0.05, learning_rate: 0.1"),
        r"given twice, on lines 6 and 6",
    ),
    ("11-octal", swapped("epochs: 1", "epochs: 010"), r"r\.yaml:7: train\.epochs: 010 may mean 8 or 10"),
    ("12-boolean-text", swapped("name: tiny", "name: true"), r"r\.yaml:1: name: .*text"),
    ("13-clock", swapped("epochs: 1", "epochs: 12:30:45"), r"train\.epochs: .*'12:30:45'"),
    ("14-nan", swapped("0.05", ".nan"), r"r\.yaml:6: optimizer\.learning_rate: .*nan"),
    ("14-inf", swapped("0.05", ".inf"), r"r\.yaml:6: optimizer\.learning_rate: .*inf"),
    ("14-negative", swapped("0.05", "-0.1"), r"r\.yaml:6: optimizer\.learning_rate: .*-0\.1"),
    ("14-zero", swapped("0.05", "0"), r"r\.yaml:6: optimizer\.learning_rate: .*0"),
    (
        "15-misspelt",
        swapped("learning_rate:", "learning_rte:"),
        r"learning_rte: unknown key \(did you mean learning_rate",
    ),
    ("16-other-section", swapped("epochs: 1", "epochs: 1, learning_rate: 0.1"), r"train\.learning_rate: .*optimizer"),
    ("17-text", swapped("batch_size: 6", 'batch_size: "32"'), r"train\.batch_size: "),
    ("17-list", swapped("batch_size: 6", "batch_size: [32]"), r"train\.batch_size: "),
    ("17-fraction", swapped("batch_size: 6", "batch_size: 32.5"), r"train\.batch_size: "),
    ("17-boolean", swapped("batch_size: 6", "batch_size: true"), r"train\.batch_size: "),
    ("18-one", swapped("batch_size: 6", "batch_size: 1"), r"train\.batch_size: "),
    ("19-zero", swapped("epochs: 1", "epochs: 0"), r"train\.epochs: must be at least 1, got 0"),
    ("19-negative", swapped("epochs: 1", "epochs: -1"), r"train\.epochs: must be at least 1, got -1"),
    ("19-huge", swapped("epochs: 1", "epochs: 1e12"), r"train\.epochs: "),
    ("23-weights-0", swapped("margin: 0.2", "margin: 0.2, weight: 0"), r"losses"),
    ("24-margin", swapped("margin: 0.2", "margin: 3"), r"losses\.0\.margin: "),
    ("24-scale", swapped("scale: 8.0", "scale: 0"), r"losses\.0\.scale: "),
    (
        "25-temperature",
        swapped("- {name: margin_softmax, scale: 8.0, margin: 0.2}", "- {name: logit_kd, temperature: 0}"),
        r"temperature: ",
    ),
    ("28-long", RECIPE.encode() + b"# " + b"x" * 1_000_000, r"r\.yaml: \d+ bytes \(a recipe has at most 1000000"),
    ("28-deep", b"a: " + b"[" * 50_000, r"r\.yaml:1: "),
    (
        "29-aliases",
        b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 110)),
        r"r\.yaml:1: a: anchor",
    ),
    ("30-recursive", added("evaluate: &x {sets: *x}"), r"r\.yaml:8: evaluate: anchor &x"),
]


MANY = {"15-misspelt": 2, "29-aliases": None, "30-recursive": 2}
"""Recipes with more than one problem; each is a line."""


def case_of(number: str, content: bytes, line: str) -> Case:
    def make(here: Path) -> list[str]:
        (here / "r.yaml").write_bytes(content)
        return TRAIN

    return Case(number, make, line, lines=MANY.get(number, 1))


def with_faces(*changes: tuple[str, str]) -> Callable[[Path], list[str]]:
    def make(here: Path) -> list[str]:
        write_faces(here / "faces")
        return recipe(here, *changes)

    return make


def with_teacher(here: Path) -> None:
    write_faces(here / "faces")
    write_model(here / "t.safetensors")


def teacher_of_8_for_a_student_of_16(here: Path) -> list[str]:
    with_teacher(here)
    learn = ("losses:", "teacher: {weights: t.safetensors}\nlosses:\n  - {name: l2}")
    return recipe(here, ("embedding_size: 8", "embedding_size: 16"), learn)


def classifier_of_other_people(here: Path) -> list[str]:
    with_teacher(here)
    save_classifier(here / "c.safetensors", torch.randn(2, 8), ["p0", "p1"], "trained")
    teacher = "teacher: {weights: t.safetensors, class_weights: c.safetensors}\nlosses:"
    return recipe(here, ("losses:", teacher), ("margin: 0.2", "margin: 0.2, class_weights: teacher"))


def no_teacher_file(here: Path) -> list[str]:
    write_faces(here / "faces")
    return recipe(here, ("losses:", "teacher: {weights: gone.pt}\nlosses:\n  - {name: l2}"))


def folder_for_a_recipe(here: Path) -> list[str]:
    (here / "r.yaml").mkdir()
    return TRAIN


def pipe_for_a_recipe(here: Path) -> list[str]:
    os.mkfifo(here / "r.yaml")
    return TRAIN


def output_is_the_data(here: Path) -> list[str]:
    write_faces(here / "faces")
    return [*recipe(here)[:2], "--out", "faces", "--device", "cpu"]


def output_is_the_teacher(here: Path) -> list[str]:
    write_faces(here / "faces")
    (here / "runs").mkdir()
    write_model(here / "runs" / "student.safetensors")
    words = recipe(here, ("losses:", "teacher: {weights: runs}\nlosses:\n  - {name: l2}"))
    return [*words[:2], "--out", "runs", "--device", "cpu"]


def trained(here: Path) -> None:
    write_faces(here / "faces")
    CliRunner().invoke(cli, recipe(here))
    assert (here / "out" / "student.safetensors").exists()


def another_recipe_in_the_folder(here: Path) -> list[str]:
    trained(here)
    return recipe(here, ("margin: 0.2", "margin: 0.3"))


def edited_before_resume(here: Path) -> list[str]:
    trained(here)
    return [*recipe(here, ("margin: 0.2", "margin: 0.3")), "--resume"]


def marked(here: Path) -> list[str]:
    write_faces(here / "faces")
    (here / "r.yaml").write_bytes(b"\xef\xbb\xbf" + RECIPE.encode())
    return [*TRAIN, "--dry-run"]


NOT_EXPANDED = r"r\.yaml:3: data\.path: ~ and \$\{\.\.\.\} are not expanded in a recipe"

FILES = [
    Case("6-byte-order-mark", marked, "training images", 0),
    Case("10-exponent", lambda here: [*with_faces(("0.05", "1e-3"))(here), "--dry-run"], "training images", 0),
    Case(
        "18-batch-larger-than-the-data",
        with_faces(("batch_size: 6", "batch_size: 60")),
        "train.batch_size: 60, but there are 12",
    ),
    Case(
        "20-student",
        with_faces(("resnet_tiny", "resnet_tin")),
        "resnet_tin: unknown backbone .did you mean resnet_tiny or iresnet50 or iresnet34",
    ),
    Case("21-embedding-sizes", teacher_of_8_for_a_student_of_16, "embedding_size: 16, the teacher's is 8"),
    Case("22-classes", classifier_of_other_people, "c.safetensors: lacks 1 of the data's 3 identities: p2"),
    Case("26-no-teacher", no_teacher_file, "gone.pt: no such file"),
    Case("27-folder", folder_for_a_recipe, r"r\.yaml: a folder"),
    Case("27-pipe", pipe_for_a_recipe, r"r\.yaml: not a regular file"),
    Case("31-variable", with_faces(("path: faces", 'path: "${HOME}/faces"')), NOT_EXPANDED),
    Case("31-tilde", with_faces(("path: faces", "path: ~/faces")), NOT_EXPANDED),
    Case("32-output-is-the-data", output_is_the_data, "faces: is or holds what the run reads: data.path: faces"),
    Case(
        "32-output-is-the-teacher", output_is_the_teacher, "runs: is or holds what the run reads: teacher.weights: runs"
    ),
    Case(
        "33-another-run",
        another_recipe_in_the_folder,
        "out: already holds a run .go on with --resume, or replace it with --overwrite",
    ),
    Case("34-edited", edited_before_resume, "the recipe changed since this run began: losses.0.margin"),
]

CASES = [*(case_of(*text) for text in TEXTS), *FILES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_a_bad_recipe_is_told(case: Case, tmp_path: Path) -> None:
    assert answer(case, tmp_path).exit_code == case.code
