"""``facekd data``: make data sets."""

from __future__ import annotations

import click

from .data_synth import synth


@click.group("data", short_help="Make data sets.")
def command() -> None:
    """Make data sets.

    \b
    Example:
      facekd data synth faces/ --identities 200 --samples 20
      facekd data synth --sheet faces.png --identities 8 --samples 10
    """


for member in (synth,):
    command.add_command(member)
