"""``facekd recipe``: what ships, what is in a recipe, and whether it is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from facekd.errors import FacekdError, RecipeError, UsageError
from facekd.files import disk_errors, write_text
from facekd.recipe import Recipe, load_recipe, recipe_yaml, required_keys

from .common import console, json_option, write_json
from .shipped import find_recipe, shipped_recipes

set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key first; repeatable."
)


@click.group("recipe")
def command() -> None:
    """List, show, copy and check recipes.

    \b
    Example:
      facekd recipe list
      facekd recipe copy baseline/mobilefacenet mine.yaml
      facekd recipe check mine.yaml
    """


@command.command("list")
@json_option
def list_command(json_path: str | None) -> None:
    """List the shipped recipes and what each still needs from you.

    \b
    Example:
      facekd recipe list
    """
    from rich.table import Column, Table

    rows = []
    for called, path in shipped_recipes().items():
        recipe = load_recipe(path, allow_required=True)
        rows.append({"name": called, "description": recipe.description, "needs": required_keys(recipe)})
    if json_path is not None:
        write_json(rows, json_path)
    if json_path == "-":
        return
    name = Column("recipe", no_wrap=True, min_width=max(len(str(row["name"])) for row in rows))
    table = Table(name, "what it does", "needs", box=None, pad_edge=False)
    for row in rows:
        table.add_row(str(row["name"]), str(row["description"]), " ".join(row["needs"]))
    console().print(table, markup=False)


@command.command("show")
@click.argument("recipe")
@set_option
@click.option("--resolved", is_flag=True, help="Every value, defaults included, as a run stores it; --set implies it.")
def show_command(recipe: str, overrides: Sequence[str], resolved: bool) -> None:
    """Print RECIPE, a file or the name of a shipped recipe.

    \b
    Example:
      facekd recipe show quickstart/l2
      facekd recipe show quickstart/l2 --set train.epochs=3
    """
    path = find_recipe(recipe)
    loaded = load_recipe(path, overrides, allow_required=True)
    click.echo(recipe_yaml(loaded) if resolved or overrides else path.read_text(encoding="utf-8"), nl=False)


@command.command("copy")
@click.argument("name")
@click.argument("destination", type=click.Path(path_type=Path), required=False)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def copy_command(name: str, destination: Path | None, force: bool) -> None:
    """Copy the shipped recipe NAME to DESTINATION, to be changed.

    DESTINATION is a file or a folder; without it, the copy lands in the working directory.

    \b
    Example:
      facekd recipe copy proxylesskd/iresnet50_mobilefacenet mine.yaml
    """
    source = find_recipe(name)
    text = source.read_text(encoding="utf-8")
    target = destination or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if not target.parent.is_dir():
        raise UsageError(str(target), f"{target.parent} is not a folder", "make it first")
    if force:
        write_text(target, text)
    else:
        _write_new(target, text)
    click.echo(f"wrote {target}")


def _write_new(target: Path, text: str) -> None:
    """Write a file that must not exist yet."""
    try:
        with disk_errors(target), open(target, "x", encoding="utf-8") as stream:
            stream.write(text)
    except FacekdError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise UsageError(str(target), "is there already", "choose another name, or --force") from None
        raise


def _unknown_backbones(recipe: Recipe) -> list[str]:
    """What is wrong with the names of the student's backbones; the registry is the one slow part of checking."""
    from facekd.models.backbone import BACKBONES, TIMM_PREFIX

    found = []
    student = recipe.student
    for key, part in (("student", student), ("student.assistant", student.assistant)):
        if part is None or part.backbone.startswith(TIMM_PREFIX):
            continue
        try:
            BACKBONES[part.backbone]
        except FacekdError as error:
            found.append(f"{key}.backbone: {error}")
    return found


@command.command("check")
@click.argument("recipes", nargs=-1, required=True)
@set_option
def check_command(recipes: Sequence[str], overrides: Sequence[str]) -> None:
    """Check each of RECIPES and report every problem in all of them.

    Values left as REQUIRED are no problem; they are listed as what the recipe needs.

    \b
    Example:
      facekd recipe check mine.yaml
      facekd recipe check quickstart/l2 --set teacher.weights=runs/teacher
    """
    problems: list[str] = []
    for name in recipes:
        try:
            path = find_recipe(name)
            recipe = load_recipe(path, overrides, allow_required=True)
        except FacekdError as error:
            problems += error.lines
            continue
        wrong = _unknown_backbones(recipe)
        if wrong:
            problems += [f"{path}: {problem}" for problem in wrong]
            continue
        needs = required_keys(recipe)
        click.echo(f"{name}: ok" + (f", needs: {', '.join(needs)}" if needs else ""))
    if problems:
        raise RecipeError(problems)


@command.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a recipe, for editors.

    \b
    Example:
      facekd recipe schema > recipe.schema.json
    """
    click.echo(json.dumps(Recipe.model_json_schema(), indent=2))
