"""``facekd recipe``: list, show, copy, check, schema."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from facekd_cli.shipped import find_recipe, shipped_recipes

from facekd.recipe import load_recipe


def facekd(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_list_names_every_recipe_and_what_it_needs():
    result = facekd("recipe", "list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in shipped_recipes())
    rows = json.loads(facekd("recipe", "list", "--json", "-").stdout)
    assert [row["name"] for row in rows] == sorted(shipped_recipes())
    assert {row["name"]: row["needs"] for row in rows}["quickstart/l2"] == ["teacher.weights"]


def test_show_prints_the_file_and_resolved_prints_every_value(tmp_path):
    assert facekd("recipe", "show", "quickstart/l2").stdout == find_recipe("quickstart/l2").read_text(encoding="utf-8")
    shown = facekd("recipe", "show", "quickstart/l2", "--set", "teacher.weights=t.pt", "--set", "train.epochs=3")
    (tmp_path / "r.yaml").write_text(shown.stdout, encoding="utf-8")
    expected = load_recipe(find_recipe("quickstart/l2"), ["teacher.weights=t.pt", "train.epochs=3"])
    assert load_recipe(tmp_path / "r.yaml") == expected


def test_copy_never_replaces_a_file_unless_forced(tmp_path):
    target = tmp_path / "mine.yaml"
    assert facekd("recipe", "copy", "quickstart/l2", target).exit_code == 0
    target.write_text("mine", encoding="utf-8")
    again = facekd("recipe", "copy", "quickstart/l2", target)
    assert (again.exit_code, target.read_text(encoding="utf-8")) == (2, "mine")
    assert again.stderr == f"facekd: error: {target}: is there already (choose another name, or --force)\n"
    assert facekd("recipe", "copy", "quickstart/l2", target, "--force").exit_code == 0
    assert target.read_bytes() == find_recipe("quickstart/l2").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_copy_into_a_folder_keeps_the_name(tmp_path, monkeypatch):
    assert "l2.yaml" in facekd("recipe", "copy", "quickstart/l2", tmp_path).stdout
    monkeypatch.chdir(tmp_path)
    assert facekd("recipe", "copy", "quickstart/student").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l2.yaml", "student.yaml"]
    assert facekd("recipe", "copy", "quickstart/l2", tmp_path / "none" / "a.yaml").exit_code == 2


def test_check_accepts_all_shipped_recipes():
    result = facekd("recipe", "check", *shipped_recipes())
    assert (result.exit_code, result.stderr) == (0, "")
    assert "quickstart/l2: ok, needs: teacher.weights\n" in result.stdout
    assert "quickstart/teacher: ok\n" in result.stdout


def test_check_reports_all_problems_of_all_recipes(tmp_path):
    bad = tmp_path / "bad.yaml"
    text = find_recipe("quickstart/student").read_text(encoding="utf-8")
    endless = re.sub(r"\n  epochs: \d+", "\n  epochs: 0", text)
    bad.write_text(endless.replace("scale: 32", "scale: -1"), encoding="utf-8")
    odd = tmp_path / "odd.yaml"
    odd.write_text(text.replace("backbone: ", "backbone: x"), encoding="utf-8")
    result = facekd("recipe", "check", bad, "quickstart/teacher", odd, "quickstart/techer")
    assert result.exit_code == 2
    assert result.stdout == "quickstart/teacher: ok\n"
    lines = result.stderr.splitlines()
    assert all(line.startswith("facekd: error: ") for line in lines)
    assert [line.split(": ")[-1].split(" (")[0] for line in lines] == [
        "must be greater than 0, got -1",
        "must be at least 1, got 0",
        "unknown backbone",
        "no such recipe",
    ]
    assert lines[-1].endswith("(did you mean quickstart/teacher?)")


def test_check_takes_overrides():
    result = facekd("recipe", "check", "quickstart/l2", "--set", "teacher.weights=t.pt")
    assert result.stdout == "quickstart/l2: ok\n"
    result = facekd("recipe", "check", "quickstart/l2", "--set", "train.epoch=1")
    assert result.stderr == "facekd: error: --set train.epoch: unknown key (did you mean epochs?)\n"


def test_schema_is_json():
    schema = json.loads(facekd("recipe", "schema").stdout)
    assert schema["title"] == "Recipe"
    assert schema["properties"]["name"]["pattern"]


@pytest.mark.parametrize("name", ["nothing-like-it", "quickstart", "recipes", "../recipes/quickstart/l2"])
def test_a_name_that_is_no_recipe_is_told_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = facekd("recipe", "show", name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"facekd: error: {name}: ")
    assert result.stderr.count("\n") == 1


def test_a_file_wins_over_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    mine = tmp_path / "quickstart" / "l2"
    mine.write_text("name: 3\n", encoding="utf-8")
    assert "expected text, got number 3" in facekd("recipe", "show", "quickstart/l2").stderr
