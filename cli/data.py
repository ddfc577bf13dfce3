"""``facekd data``: make, look at, verify and convert sets of images."""

from __future__ import annotations

import click

from .data_align import align
from .data_inspect import check, inspect
from .data_pack import convert, pack
from .data_synth import synth


@click.group("data", short_help="Make, inspect, check and convert data sets.")
def command() -> None:
    """Make, inspect, check and convert data sets.

    \b
    Example:
      facekd data synth faces/ --identities 200 --samples 20
      facekd data align photos/ faces/ --detector yunet.onnx
      facekd data inspect faces/
      facekd data check faces/
      facekd data pack faces/ -o packed/train.rec
      facekd data convert lfw.bin lfw/
    """


for member in (synth, align, inspect, check, pack, convert):
    command.add_command(member)
