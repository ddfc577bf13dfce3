"""``facekd teacher``: look at models to learn from."""

from __future__ import annotations

import click

from .teacher_inspect import inspect


@click.group("teacher", short_help="Look at models to learn from.")
def command() -> None:
    """Look at models to learn from.

    \b
    Example:
      facekd teacher inspect r100.pth
      facekd teacher inspect adaface_ir50.ckpt --on lfw.bin
    """


for member in (inspect,):
    command.add_command(member)
