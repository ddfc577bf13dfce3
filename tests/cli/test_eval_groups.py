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
    page, found = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "by.json").read_text())
    (summary,) = found["across_groups"]
    tprs = [one["tpr_at_fpr"][0]["tpr"] for one in found["results"][1:]]
    assert summary["groups"] == ["a", "b"] and summary["tpr_at_fpr"][0]["spread"] == abs(tprs[0] - tprs[1])
    assert "Across groups" in page and "EER on all.csv, kind a, b" in page
    for figure in ("mean", "std", "spread"):
        assert f'value="{json.dumps(summary["eer"][figure])}"' in page


def test_the_spread_of_groups_is_told_and_verified(files: Path, tmp_path: Path) -> None:
    words = ("eval", files / "net.safetensors", "--on", files / "pairs.csv", "--by", "quality", "--fpr", 1e-3)
    told = run(*words, *FIXED, "--json", tmp_path / "by.json")
    assert "net.safetensors on pairs.csv over 2 groups by quality, TPR @ 0.1" in told.output.replace("\n", "")
    report = json.loads((tmp_path / "by.json").read_text())
    assert report["across_groups"][0]["refused"] == [{"fpr": 1e-3, "groups": ["x", "y"]}]
    report["across_groups"][0]["eer"]["std"] += 1e-6
    (tmp_path / "by.json").write_text(json.dumps(report))
    changed = run("eval", "--verify", tmp_path / "by.json")
    assert changed.exit_code == 1 and "net.safetensors on pairs.csv by quality: eer.std is " in changed.stderr
    del report["across_groups"]
    (tmp_path / "by.json").write_text(json.dumps(report))
    assert run("eval", "--verify", tmp_path / "by.json").exit_code == 0  # written before there were any


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


def stored(files: Path) -> Path:
    """The embeddings of all images, in a file."""
    out = files / "all.npz"
    if not out.exists():
        words = (files / "net.safetensors", files / "all.csv", "--device", "cpu", "--allow-resize", "-o", out)
        assert run("embed", *words).exit_code == 0
    return out


def test_groups_of_stored_embeddings_are_those_of_the_model(files: Path, tmp_path: Path) -> None:
    by_model = results(files, "all.csv", tmp_path / "model.json", "--by", "kind")
    whose = tmp_path / "whose.csv"
    lines = (files / "all.csv").read_text().split("\n")
    lines = [line.replace("faces/", "./faces//") for line in reversed(lines[1:])]
    whose.write_text("\n".join(["PATH,identity,Kind", "gone.png,nobody,c", *lines]))
    words = ("eval", stored(files), "--on", whose, "--by", "KIND", "--json", tmp_path / "npz.json")
    told = run(*words, "--device", "cpu", "--bootstrap", 20, "--fpr", 0.1, "--report", tmp_path / "page.html")
    assert told.exit_code == 0, told.output
    found = json.loads((tmp_path / "npz.json").read_text())["results"]
    assert [one.get("group") for one in found] == [None, *({"column": "kind", "value": g} for g in "ab")]
    for one, other in zip(found, by_model, strict=True):
        differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        assert differing <= {"set", "set_digest", "seconds"}
    assert found[1]["auc"] != found[2]["auc"]
    verified = run("eval", "--verify", tmp_path / "npz.json")
    assert verified.exit_code == 0 and "3 results computed again" in verified.stdout
    whose.write_text(whose.read_text().replace(",b", ",a", 5))
    changed = run("eval", "--verify", tmp_path / "npz.json")
    assert changed.exit_code == 1 and "all.npz, kind a: pairs is " in changed.stderr


def test_a_model_and_stored_embeddings_share_a_list(files: Path, tmp_path: Path) -> None:
    words = ("eval", files / "net.safetensors", stored(files), "--on", files / "all.csv", "--by", "kind")
    told = run(*words, *FIXED, "--json", tmp_path / "both.json")
    assert told.exit_code == 0, told.output
    found = json.loads((tmp_path / "both.json").read_text())["results"]
    assert [one["set"] for one in found] == ["all.csv"] * 3 + ["all.npz"] * 3
    assert [one["auc"] for one in found[:3]] == [one["auc"] for one in found[3:]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--on", "all.csv"), "leave --on out, or name a column of the list with --by"),
        (("--by", "kind"), "--by: needs one list that names the images of .*all.npz"),
        (("--by", "kind", "--on", "all.csv", "--on", "a.csv"), "--by: needs one list"),
        (("--by", "kind", "--on", "a.csv"), r"a\.csv: lists 25 of 50 images, not faces/"),
        (("--by", "quality", "--on", "pairs.csv"), r"pairs\.csv:1: no column 'path'"),
        (("--by", "kind", "--on", "faces"), "faces is no list with columns"),
        (("--by", "path", "--on", "all.csv"), r"all\.npz, path .*: 0 (genuine|impostor) pairs"),
        (("--by", "kind", "--on", "twice.csv"), r"twice\.csv: says [ab] and c of faces/"),
    ],
)
def test_a_list_that_does_not_fit_stored_embeddings_is_refused(files: Path, options: tuple, message: str) -> None:
    lines = (files / "all.csv").read_text()
    (files / "twice.csv").write_text(lines + "\n" + lines.split("\n")[1].rsplit(",", 1)[0] + ",c")
    given = [files / word if at and options[at - 1] == "--on" else word for at, word in enumerate(options)]
    told = run("eval", stored(files), *given, "--device", "cpu", "--fpr", 0.1, "--bootstrap", 0)
    assert told.exit_code == 2 and re.search(message, told.output), told.output
