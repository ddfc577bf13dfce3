"""What the README shows of the code itself: recipes, losses, backbones, and the help of every command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import torch
from click.testing import CliRunner
from facekd_cli.main import cli
from facekd_cli.shipped import shipped_recipes

from benchmarks.tables import markdown_table
from facekd.engine.training.objective import loss_inputs
from facekd.losses import LOSSES
from facekd.models.backbone import BACKBONES, build_backbone
from facekd.models.macs import count_parameters
from facekd.recipe import Recipe, load_recipe, required_keys
from facekd.recipe.loss_options import (
    Loss,
    MarginSoftmax,
    any_needs,
)

HELP_WIDTH = 100
SHOWCASES = ("quickstart", "recommended")
"""Folders of recipes that are no method of their own."""
CITED = re.compile(r"\(([^()]*arXiv \d{4}\.\d{4,5})")
EMBEDDING = 512


def recipes_table() -> str:
    """Every shipped recipe, what it does and the keys it leaves to its user."""
    rows = []
    for name, path in shipped_recipes().items():
        recipe = load_recipe(path, allow_required=True)
        rows.append([f"`{name}`", recipe.description, ", ".join(f"`{key}`" for key in required_keys(recipe))])
    return markdown_table(["recipe", "what it does", "needs `--set`"], rows)


def methods_table() -> str:
    """Every method a recipe is shipped for: its losses, what they ask of the teacher, and where it comes from."""
    rows = []
    for method, (path, recipe) in recipe_of_methods().items():
        shown = [
            f"`{loss.name}` on the teacher's classifier" if inherits(loss) else f"`{loss.name}`"
            for loss in recipe.losses
        ]
        asked = {
            "embeddings": any_needs(recipe.losses, "teacher_embeddings"),
            "classifier": any_needs(recipe.losses, "teacher_classifier"),
            "embeddings of mixtures, live": any_needs(recipe.losses, "virtual_samples"),
            "embeddings of subsets": any_needs(recipe.losses, "subset_teachers"),
            "classifiers of subsets": any_needs(recipe.losses, "subset_classifiers"),
        }
        needs = " and ".join(name for name, wanted in asked.items() if wanted)
        rows.append([f"`{method}`", ", ".join(shown), needs or "-", sources(path, recipe)])
    return markdown_table(["method", "losses of its recipe", "of the teacher", "source"], rows)


def recipe_of_methods() -> dict[str, tuple[Path, Recipe]]:
    """The shipped recipe that tells of each method, and where it lies; those that show several methods left out.

    It is one that has a teacher, where any has; a recipe without makes the teacher of the others.
    """
    found: dict[str, list[tuple[Path, Recipe]]] = {}
    for name, path in shipped_recipes().items():
        method = name.split("/")[0]
        if method not in SHOWCASES:
            found.setdefault(method, []).append((path, load_recipe(path, allow_required=True)))

    def preference(told: tuple[Path, Recipe]) -> tuple[bool, bool, str]:
        path, recipe = told
        return recipe.teacher is None and not recipe.subsets, not path.name.startswith("iresnet"), path.name

    return {method: min(recipes, key=preference) for method, recipes in found.items()}


def inherits(loss: Loss) -> bool:
    """Whether a loss is the margin softmax on the teacher's classifier.

    Example:
        >>> [inherits(MarginSoftmax(name="margin_softmax", class_weights=whose)) for whose in ("own", "teacher")]
        [False, True]
    """
    return isinstance(loss, MarginSoftmax) and loss.class_weights == "teacher"


def sources(path: Path, recipe: Recipe) -> str:
    """The papers of a recipe's losses, its classifier term left out, and those that its own comment names."""
    told = [
        papers(inspect.getdoc(LOSSES[loss.name]) or "") for loss in recipe.losses if not isinstance(loss, MarginSoftmax)
    ]
    comment = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    told += [f"{cited}." for cited in CITED.findall(comment) if cited[-10:] not in " ".join(told)]
    return " ".join(dict.fromkeys(text for text in told if text)) or "-"


def losses_table() -> str:
    """Every loss as its docstring describes it, with the step outputs it takes."""
    rows = []
    for name in LOSSES:
        docstring = inspect.getdoc(LOSSES[name]) or ""
        taken = ", ".join(f"`{given}`" for given in loss_inputs(name))
        rows.append([f"`{name}`", docstring.splitlines()[0], taken, papers(docstring)])
    return markdown_table(["loss", "what it computes", "takes", "paper"], rows)


def papers(docstring: str) -> str:
    """The sentences before the first section that cite an arXiv paper, each cut after its last number.

    Example:
        >>> papers('Match.\\n\\nDoe et al., "X", ICML 2020, arXiv 2001.00001, on\\ncosines. It is fast.')
        'Doe et al., "X", ICML 2020, arXiv 2001.00001.'
    """
    prose = " ".join(re.split(r"^[A-Z]\w+:$", docstring, maxsplit=1, flags=re.MULTILINE)[0].split())
    cited = [re.match(r".*arXiv \d{4}\.\d{4,5}", sentence) for sentence in re.split(r"(?<=\.) (?=[A-Z])", prose)]
    return " ".join(f"{found[0]}." for found in cited if found).replace("``", "`")


def backbones_table() -> str:
    """Every registered backbone with its own options and its size."""
    rows = []
    for name in BACKBONES:
        options = inspect.signature(BACKBONES[name]).parameters.values()
        shown = ", ".join(f"`{p.name}={p.default}`" for p in options if p.kind is p.KEYWORD_ONLY)
        with torch.device("meta"):
            parameters = count_parameters(build_backbone(name, embedding_size=EMBEDDING))
        rows.append([f"`{name}`", f"{parameters:,}", shown])
    return markdown_table(["backbone", f"parameters at {EMBEDDING}-d", "options"], rows)


def commands() -> dict[tuple[str, ...], click.Command]:
    """Every command by the words that call it, groups before what is in them."""

    def walk(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        yield words, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None:
                    yield from walk((*words, name), inner)

    return dict(walk(("facekd",), cli))


def help_text() -> str:
    """What ``-h`` prints for every command, 100 columns wide; click decides its form, so its release is told."""
    parts = []
    for words in commands():
        shown = CliRunner().invoke(cli, [*words[1:], "-h"], terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH)
        parts.append(f"```text\n$ {' '.join(words)} -h\n{shown.stdout.rstrip()}\n```")
    summary = f"{len(parts)} commands, as click {click_release()} prints their help"
    return f"<details>\n<summary>{summary}</summary>\n\n" + "\n\n".join(parts) + "\n\n</details>"


def click_release() -> str:
    """Major and minor release of click."""
    return ".".join(version("click").split(".")[:2])
