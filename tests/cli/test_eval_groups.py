"""``facekd eval --by``: each group of a list is measured as a list of its own would be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model

FIXED = ("--device", "cpu", "--allow-resize", "--bootstrap", 20, "--fpr", 0.1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, drawn faces, lists of images and of pairs with a column more, and of each group alone."""
    root = tmp_path_factory.mktemp("groups")
    save_random_model(root / "net.safetensors")
    assert run("data", "synth", root / "faces", "--identities", 10, "--samples", 5).exit_code == 0
    images = sorted((root / "faces").glob("*/*.*"))
    people = sorted({image.parent.name for image in images})
    told = [(i.relative_to(root), i.parent.name, "ab"[people.index(i.parent.name) % 2]) for i in images]
    write(root / "all.csv", "path,identity,Kind", told)
    pairs = [(a, b, int(a.parent == b.parent)) for at, a in enumerate(images) for b in images[at + 1 : at + 8]]
    listed = [(a.relative_to(root), b.relative_to(root), same, "xy"[at % 2]) for at, (a, b, same) in enumerate(pairs)]
    write(root / "pairs.csv", "path1,path2,label,quality", listed)
    for name in "ab":
        write(root / f"{name}.csv", "path,identity,kind", [row for row in told if row[2] == name])
    for name in "xy":
        write(root / f"{name}.csv", "path1,path2,label,quality", [row for row in listed if row[3] == name])
    return root


def write(path: Path, header: str, rows: list) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))


def results(files: Path, name: str, out: Path, *options: object) -> list[dict]:
    told = run("eval", files / "net.safetensors", "--on", files / name, "--json", out, *FIXED, *options)
    assert told.exit_code == 0, told.output
    return json.loads(out.read_text())["results"]


@pytest.mark.parametrize(
    ("name", "column", "groups", "protocol"),
    [("all.csv", "kind", "ab", "all-pairs"), ("pairs.csv", "Quality", "xy", "pairs")],
)
def test_groups_are_those_of_lists_of_their_own(
    files: Path, tmp_path: Path, name: str, column: str, groups: str, protocol: str
) -> None:
    found = results(files, name, tmp_path / "by.json", "--by", column)
    (whole,) = results(files, name, tmp_path / "whole.json")
    assert [one.get("group") for one in found] == [None, *({"column": column.lower(), "value": g} for g in groups)]
    alone = [results(files, f"{group}.csv", tmp_path / "one.json")[0] for group in groups]
    for one, other in zip(found, [whole, *alone], strict=True):
        for figure in ("pairs", "genuine", "impostor", "auc", "eer", "tpr_at_fpr"):
            assert one[figure] == other[figure], figure
        assert one["protocol"] == protocol
    assert sum(one["genuine"] for one in found[1:]) == found[0]["genuine"]
    assert run("eval", "--verify", tmp_path / "by.json").exit_code == 0


def test_pictures_and_report_name_the_groups(files: Path, tmp_path: Path) -> None:
    options = ("--by", "kind", "--plot", tmp_path / "curves.svg", "--report", tmp_path / "report.html")
    results(files, "all.csv", tmp_path / "by.json", *options)
    assert (tmp_path / "curves.svg").stat().st_size > 1000
    assert "kind" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("all.csv", ("--by", "kinds"), r"all\.csv:1: no column 'kinds' \(did you mean kind\)"),
        ("all.csv", ("--by", "path"), "0 genuine pairs|0 impostor pairs"),
        ("faces", ("--by", "kind"), "no list with columns"),
        ("pairs.csv", ("--by", "quality", "--drop-same"), "--by: cannot be had with --drop-same"),
        ("pairs.csv", ("--by", "label"), "holds genuine or impostor pairs only"),
    ],
)
def test_what_parts_nothing_is_refused(files: Path, name: str, options: tuple, message: str) -> None:
    told = run("eval", files / "net.safetensors", "--on", files / name, *FIXED, *options)
    assert told.exit_code == 2 and re.search(message, told.output), told.output


def test_an_empty_cell_is_named_with_its_line(files: Path) -> None:
    lines = (files / "all.csv").read_text().split("\n")
    lines[3] = lines[3].rsplit(",", 1)[0] + ","
    (files / "hole.csv").write_text("\n".join(lines))
    told = run("eval", files / "net.safetensors", "--on", files / "hole.csv", "--by", "kind", *FIXED)
    assert told.exit_code == 2 and "hole.csv:4: says nothing in the column kind" in told.output
