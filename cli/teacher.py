"""``facekd teacher``: look at models to learn from."""

from __future__ import annotations

import click

from .teacher_classifier import classifier
from .teacher_inspect import inspect


@click.group("teacher", short_help="Look at models to learn from, gather their classifiers.")
def command() -> None:
    """Look at models to learn from, gather their classifiers.

    \b
    Example:
      facekd teacher inspect r100.pth
      facekd teacher inspect adaface_ir50.ckpt --on lfw.bin
      facekd teacher classifier r50.pt --data ms1m/train.rec --class-weights ms1m_r50/ -o classes.safetensors
    """


for member in (inspect, classifier):
    command.add_command(member)
