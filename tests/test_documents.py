"""The documents are in step with the code, and what they tell people to type exists."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from facekd_cli.main import cli
from facekd_cli.shipped import find_recipe
from house import ROOT

from benchmarks.documents import README, documents, load_results, origin, replace_blocks, results_page, shown
from benchmarks.real_faces import RECIPES
from benchmarks.reference import click_release, commands, recipe_of_methods
from benchmarks.tables import (
    ALONE,
    demo,
    methods_table,
    real_faces,
    real_faces_in_full,
    synthetic_hardness,
    synthetic_speed,
    tpr_cell,
)
from facekd.errors import InputError
from facekd.recipe import load_recipe, required_keys

GUIDES = (README, "CONTRIBUTING.md")
PROGRAMS = {"git", "python3", "pip", "pytest", "make", "facekd", "torchrun"}
HELP_BLOCK = re.compile(r"<!-- generated: help -->.*<!-- end: help -->", re.DOTALL)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_documents_are_in_step() -> None:
    """Help is compared where click is the release that printed it; another one words some of it otherwise."""
    same_click = f"as click {click_release()} prints" in read(README)
    for path, wanted in documents().items():
        found = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not same_click:
            wanted, found = HELP_BLOCK.sub("", wanted), HELP_BLOCK.sub("", found)
        assert found == wanted, f"{path.relative_to(ROOT)} is out of step: run make docs"


def test_the_help_in_the_readme_names_every_option() -> None:
    help_block = HELP_BLOCK.search(read(README))
    assert help_block is not None
    parts = help_block[0].split("```text\n$ ")
    for words, command in commands().items():
        (part,) = [part for part in parts if part.startswith(f"{' '.join(words)} -h\n")]
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(name in part for name in option.opts), f"{' '.join(words)}: run make docs"


def lines_to_type(guide: str) -> list[list[str]]:
    """The words of every line of every shell block, without redirections and the folder of the environment."""
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```$", read(guide), re.DOTALL | re.MULTILINE))
    lines = [shlex.split(line) for line in text.splitlines() if line.strip()]
    return [
        [line[0].removeprefix(".venv/bin/"), *itertools.takewhile(lambda word: word != ">", line[1:])] for line in lines
    ]


TYPED = [(guide, line) for guide in GUIDES for line in lines_to_type(guide)]
CALLS = [line[1:] for _, line in TYPED if line[0] == "facekd"]
COPIED = {call[3]: call[2] for call in CALLS if call[:2] == ["recipe", "copy"]}
"""Recipe file the README makes -> shipped recipe it copies."""


def called(arguments: list[str]) -> tuple[click.Command, list[str]]:
    """The command some words call, and the words left for it."""
    command: click.Command = cli
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(click.Context(command), rest.pop(0))
        assert inner is not None, f"no such command: {' '.join(arguments)}"
        command = inner
    return command, rest


@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
def test_a_command_line_parses(arguments: list[str]) -> None:
    command, rest = called(arguments)
    try:
        context = command.make_context("facekd", rest)
    except click.exceptions.Exit as ended:
        assert ended.exit_code == 0 and "-h" in arguments
        return
    for name in [context.params.get("recipe"), *context.params.get("recipes", ())]:
        if name is not None:
            recipe = load_recipe(find_recipe(COPIED.get(name, name)), context.params["overrides"], allow_required=True)
            assert arguments[0] != "train" or required_keys(recipe) == []


def test_the_guides_call_every_command_and_nothing_unknown() -> None:
    assert {line[0] for _, line in TYPED} <= PROGRAMS
    leaves = {command.callback for command in commands().values() if not isinstance(command, click.Group)}
    assert {called(call)[0].callback for call in CALLS} >= leaves


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for name in (*GUIDES, "CHANGELOG.md", "SECURITY.md", "benchmarks/RESULTS.md"):
        named = set(re.findall(r"`make ([a-z-]+)", read(name)))
        assert named <= targets, f"{name}: {named - targets}"
    assert all(line[-1] in targets for _, line in TYPED if line[0] == "make")


@pytest.mark.parametrize("guide", GUIDES)
def test_every_file_that_is_named_exists(guide: str) -> None:
    prose = HELP_BLOCK.sub("", read(guide))
    named = re.findall(r"`((?:facekd|cli|tests|benchmarks)/[\w/.-]*)`|\]\(([\w./-]+)\)", prose)
    missing = [path or link for path, link in named if not (ROOT / (path or link)).exists()]
    assert missing == []


def point(fpr: float, tpr: float, impostors: int = 100_000, ci95: list[float] | None = None) -> dict[str, Any]:
    return {"fpr": fpr, "tpr": tpr, "impostors": impostors, "ci95": ci95}


def row(method: str, seed: int | None, *tprs: float, impostors: int = 100_000) -> dict[str, Any]:
    """A row of the study with TPRs at 1e-2, 1e-3, ..."""
    return {
        "method": method,
        "seed": seed,
        "set": "unseen.csv",
        "protocol": "all-pairs",
        "parameters": 500_000,
        "macs": 60_000_000,
        "input_size": 112,
        "epochs": 40,
        "tpr_at_fpr": [point(10.0**-power, tpr, impostors) for power, tpr in enumerate(tprs, start=2)],
        "accuracy": None,
        "auc": 0.98,
    }


ORIGIN = {"command": "make it", "machine": "a machine", "versions": {"facekd": "0.1.0"}}
TEACHER = {**row("teacher", None, 0.99, 0.98), "parameters": 2_000_000}
del TEACHER["macs"]
STUDY: dict[str, Any] = {
    "benchmark": "real_faces",
    **ORIGIN,
    "seeds": [0, 1, 2],
    "recipes": {"student alone": "recipes/a.yaml"},
    "teacher": TEACHER,
    "rows": [
        *(row("student alone", seed, 0.6, tpr) for seed, tpr in enumerate((0.3, 0.5, 0.4))),
        *(row("better", seed, 0.8, tpr) for seed, tpr in enumerate((0.6, 0.45, 0.7))),
        *(row("worse", seed, 0.5, tpr) for seed, tpr in enumerate((0.1, 0.3, 0.2))),
    ],
}


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_method_is_told_by_a_recipe_that_uses_its_teacher() -> None:
    alone = {method for method, (_, recipe) in recipe_of_methods().items() if not (recipe.teacher or recipe.subsets)}
    assert alone == {"baseline", "pfe"}  # a frozen student needs no teacher for its variances


def test_the_study_shows_median_spread_seeds_and_losses_beside_wins() -> None:
    head, _, *body = cells(methods_table(STUDY["rows"], [TEACHER]))
    assert head[:4] == ["method", "parameters", "MACs", "seeds"]
    assert head[4:] == ["TPR @ 1e-2", "TPR @ 1e-3", "accuracy", "AUC", "against student alone @ 1e-3"]
    assert [line[0] for line in body] == ["teacher", "student alone", "better", "worse"]
    assert body[0][1:6] == ["2,000,000", "-", "-", "0.9900", "0.9800"]
    assert body[1][1:6] == ["500,000", "60.0 M", "3", "0.6000 (0.6000 to 0.6000)", "0.4000 (0.3000 to 0.5000)"]
    assert body[2][5] == "0.6000 (0.4500 to 0.7000)"
    assert [line[-1] for line in body] == ["-", "-", "+0.2000, better in 2 of 3", "-0.2000, better in 0 of 3"]


def test_the_study_trains_the_student_the_others_are_compared_with() -> None:
    assert ALONE in RECIPES


def test_seeds_are_compared_with_their_own() -> None:
    rows = [row("student alone", 0, 0.5), row("student alone", 1, 0.1), row("other", 0, 0.4)]
    assert cells(methods_table(rows, []))[-1][-1] == "-0.1000, better in 0 of 1"


def test_what_was_refused_or_rests_on_little_says_so() -> None:
    rows = [row("student alone", 0, 0.5, 0.25, impostors=3_000)]
    assert tpr_cell(rows, 1e-2) == "0.5000"
    assert tpr_cell(rows, 1e-3) == "0.2500\\*"
    assert tpr_cell(rows, 1e-4) == "refused"
    assert "fewer than 30 false accepts" in methods_table(rows, [])
    assert "fewer than 30 false accepts" not in methods_table(STUDY["rows"], [])
    rows[0]["tpr_at_fpr"][0]["ci95"] = [0.4, 0.6]
    assert tpr_cell(rows, 1e-2) == "0.5000 [0.4000, 0.6000]"


def test_sets_have_their_own_tables_and_teachers() -> None:
    study = copy.deepcopy(STUDY)
    study["rows"] += [{**row("student alone", 0, 0.9), "set": "pairs.txt", "protocol": "lfw"}]
    study["rows"][-1]["accuracy"] = {"mean": 0.95, "std": 0.01}
    study["teacher"] = [TEACHER, {**TEACHER, "set": "pairs.txt"}]
    text = real_faces(study)
    assert text.index("On `unseen.csv` (all-pairs):") < text.index("On `pairs.txt` (lfw):")
    assert text.count("| teacher |") == 2
    assert cells(text)[-1][6] == "0.9500"
    assert len(cells(real_faces_in_full(study))) == len(cells(text)) + 4 + len(study["rows"])
    assert "- student alone: `recipes/a.yaml`" in real_faces_in_full(study)


def test_the_demo_and_the_speed_of_drawing_have_tables() -> None:
    model = {
        "model": "runs/a",
        "parameters": 1234,
        "macs": 5_600_000,
        "tpr_at_fpr": [point(1e-2, 0.5, ci95=[0.4, 0.6])],
    }
    text = demo({"rows": [model], "seconds": {"teacher": 61.4, "student": 30.2}})
    assert cells(text)[-1] == ["runs/a", "1,234", "5.6 M", "0.5000 [0.4000, 0.6000]"]
    assert text.endswith("teacher 61 s, student 30 s; 92 s in all.")
    clock = {"median": 812.4, "iqr": [790.0, 820.6]}
    speed = {"unit": "images/s", "wall": clock, "cpu": clock, "repeats": 3, "images_per_repeat": 20, "threads": 1}
    assert cells(synthetic_speed(speed))[2] == ["wall clock", "812", "790 to 821"]


def test_hardness_shows_each_bound_with_what_was_found() -> None:
    faces = {"genuine": 5600, "impostor": 100_000, "identities": 2000, "samples": 20}
    pixels = {**row("raw pixels", None, 0.03), **faces, "parameters": None, "macs": None}
    del pixels["identities"], pixels["epochs"]
    data = {
        "bounds": [
            {"figure": "a", "low": None, "high": 0.15, "values": [0.03, 0.05]},
            {"figure": "b", "low": 0.3, "high": 0.9, "values": [0.4, 0.2]},
        ],
        "rows": [pixels, *({**row(ALONE, seed, 0.6, 0.4), **faces} for seed in (0, 1))],
        "recipes": {ALONE: "quickstart/student --set train.epochs=13"},
    }
    text = synthetic_hardness(data)
    assert ["a", "below 0.15", "0.0400 (0.0300 to 0.0500)", "yes"] in cells(text)
    assert ["b", "above 0.3, below 0.9", "0.3000 (0.2000 to 0.4000)", "no"] in cells(text)
    assert cells(text)[-2][:8] == ["raw pixels", "-", "-", "-", "-", "-", "0.0300", "refused"]
    assert cells(text)[-1][3:6] == ["2,000 x 20", "40", "2"]
    assert "On 5,600 genuine and 100,000 impostor pairs" in text and "`quickstart/student --set train" in text


def test_results_tell_where_they_come_from() -> None:
    page = results_page({"real_faces": STUDY})
    assert "- Command: `make it`\n- Machine: a machine\n- Versions: facekd 0.1.0\n- Seeds: 0, 1, 2" in page
    assert "Not recorded yet" in page
    recorded = {
        "benchmark": "demo",
        "machine": "m",
        "facekd": "1",
        "python": "3",
        "packages": {"timm": None, "torch": "2"},
    }
    wanted = "- Command: `python -m benchmarks.demo --record benchmarks/results/demo.json`\n- Machine: m\n"
    assert origin(recorded) == wanted + "- Versions: facekd 1, python 3, torch 2"


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_results_are_found_by_what_they_say_they_are(tmp_path: Path) -> None:
    assert load_results(tmp_path) == {}
    write(tmp_path, "study.json", STUDY)
    assert load_results(tmp_path) == {"real_faces": STUDY}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**ORIGIN, "benchmark": "other"}, "benchmarks/results/b.json: is of an unknown benchmark: other"),
        ([1], "b.json: is of an unknown benchmark: None"),
        ("{", "b.json: is no JSON"),
        (STUDY, "b.json: is a second result of real_faces"),
    ],
)
def test_a_file_of_results_that_cannot_be_used_is_named(content: object, message: str, tmp_path: Path) -> None:
    write(tmp_path, "a.json", STUDY)
    write(tmp_path, "b.json", content)
    with pytest.raises(InputError, match=re.escape(message)):
        load_results(tmp_path)


def test_figures_that_lack_something_are_named() -> None:
    study = copy.deepcopy(STUDY)
    del study["rows"][0]["tpr_at_fpr"]
    with pytest.raises(InputError, match="real_faces: lacks 'tpr_at_fpr'"):
        shown("real_faces", {"real_faces": study}, real_faces)
    with pytest.raises(InputError, match="demo: lacks 'machine'"):
        results_page({"demo": {"benchmark": "demo", "versions": {"facekd": "0.1.0"}}})


@pytest.mark.parametrize(
    "text",
    [
        "no block at all\n",
        "<!-- generated: x -->\nnever closed\n",
        "<!-- generated: x -->\n<!-- end: x -->\n" * 2,
        "<!-- generated: x -->\n<!-- end: x -->\n<!-- generated: y -->\n<!-- end: y -->\n",
    ],
)
def test_blocks_that_are_not_there_once_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="block [xy]"):
        replace_blocks(text, {"x": "new"})


def test_replacing_twice_changes_nothing() -> None:
    text = "a\n<!-- generated: x -->\nold\n<!-- end: x -->\nb\n"
    once = replace_blocks(text, {"x": r"new \1"})
    assert once == "a\n<!-- generated: x -->\nnew \\1\n<!-- end: x -->\nb\n"
    assert replace_blocks(once, {"x": r"new \1"}) == once


def test_every_promise_of_security_names_tests_that_exist() -> None:
    rows = [line for line in read("SECURITY.md").splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 8
    for row in rows:
        named = re.findall(r"`(tests/[\w/*.]+)`", row.split("|")[2])
        assert named and all(list(ROOT.glob(name)) for name in named), row
