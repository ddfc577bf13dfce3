"""The learning rate as a pure function of the step."""

from __future__ import annotations

import bisect
import math

from facekd.recipe.sections import Schedule


def learning_rate_factor(step: int, *, steps_per_epoch: int, total_steps: int, schedule: Schedule) -> float:
    """The share of the recipe's learning rate to use at ``step``.

    Linear warm-up from ``1 / warmup_steps`` to 1, then the named decay over what remains:
    ``constant``; ``cosine``, half a wave down to ``final``; ``step``, times ``gamma`` at the start of each 0-based
    epoch in ``milestones``; ``poly``, ``(1 - progress) ** power`` down to ``final``.

    Args:
        step: 0-based step about to be taken.
        steps_per_epoch: Steps in one epoch.
        total_steps: Steps in the run.
        schedule: The recipe's schedule section.

    Returns:
        A factor in [0, 1].

    Example:
        >>> from facekd.recipe.sections import Schedule
        >>> cosine = Schedule(name="cosine", warmup_epochs=1)
        >>> [round(learning_rate_factor(s, steps_per_epoch=2, total_steps=6, schedule=cosine), 3) for s in range(6)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "step":
        return schedule.gamma ** bisect.bisect_right(schedule.milestones, step / steps_per_epoch)
    progress = (step - warmup) / max(1, total_steps - warmup)
    cosine = schedule.name == "cosine"
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if cosine else (1 - progress) ** schedule.power
    return schedule.final + (1 - schedule.final) * shape
