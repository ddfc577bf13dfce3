"""What to write into a recipe for a set of images, by fixed rules.

- ``student.input_size`` is 112, the side of the template faces are aligned to, if the most common size has it; else
  its smaller side, rounded down to a multiple of 16, and never below 32.
- ``train.batch_size`` is the largest power of two that leaves 100 steps in an epoch, but at least 32 and at most 512,
  and never more than there are images.
- Below `SMALL_SET` images a student sees each of them often enough to learn it by heart: keep ``data.versions`` and,
  with a teacher that sees them too, blends of two people.
- Where the identity with most images has at least `UNEVEN` times the median, a few people dominate every epoch:
  ``train.images_per_identity`` evens that out.
"""

from __future__ import annotations

import json
from pathlib import Path

from facekd.engine.sets.inspection import Inspection

SMALL_SET = 20_000
UNEVEN = 10
TEMPLATE_SIDE = 112


def suggest(found: Inspection, path: Path, images: Path | None = None) -> str:
    """YAML to start a recipe from: ``data``, ``student`` and ``train``, or ``evaluate`` for a verification set.

    Args:
        found: What the set holds.
        path: Where it is.
        images: Root of the paths in a list, if it was given.
    """
    if found.format in ("bin", "lfw-pairs", "pairs"):
        root = f", images: {_quoted(images)}" if images is not None else ""
        return f"evaluate:\n  sets:\n    - {{path: {_quoted(path)}{root}}}\n"
    lines = ["data:", f"  source: {found.format}", f"  path: {_quoted(path)}"]
    if images is not None:
        lines.append(f"  images: {_quoted(images)}")
    if found.images < SMALL_SET:
        lines += [
            f"  versions: 8  # {found.images:,} images are few",
            "  augment: {flip: 0.5, shift: 0.04, scale: 0.04, rotate: 4, color: 0.2}",
            "  # and mix: 0.5 in augment, where teacher.view is same and a loss like l2 asks the teacher about blends",
        ]
    lines += ["student:", f"  input_size: {input_size(found)}", "train:", f"  batch_size: {batch_size(found.images)}"]
    return "\n".join([*lines, f"  # {sampling(found)}", ""])


def input_size(found: Inspection) -> int:
    """Height and width for the student, from the most common size of the images."""
    side = min(found.sizes.most_common(1)[0][0]) if found.sizes else TEMPLATE_SIDE
    return TEMPLATE_SIDE if side >= TEMPLATE_SIDE else max(32, side // 16 * 16)


def batch_size(images: int) -> int:
    """Images in a step.

    Example:
        >>> [batch_size(images) for images in (6, 200, 7007, 5_822_653)]
        [4, 32, 64, 512]
    """
    most = 2 ** (max(2, images).bit_length() - 1)
    wanted = 2 ** (max(1, images // 100).bit_length() - 1)
    return min(most, max(32, min(512, wanted)))


def sampling(found: Inspection) -> str:
    """Whether drawing identities instead of images would change much."""
    _, median, most = found.spread() or (0, 0.0, 0)
    spread = f"the identity with most images has {most:,}, the median {median:g}"
    if most >= UNEVEN * median:
        return f"uneven, {spread}: images_per_identity: 4 would show every identity as often"
    return f"even, {spread}: images_per_identity would change little"


def _quoted(path: Path | None) -> str:
    return json.dumps(str(path), ensure_ascii=False)
