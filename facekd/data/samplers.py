"""Which images make up which step, as a function of the seed alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ORDER_STREAM = 1  # first word of the seed: keeps the draws of an order apart from those of an augmentation


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch ``epoch`` visits ``count`` images.

    Example:
        >>> sorted(epoch_order(4, seed=0, epoch=1).tolist())
        [0, 1, 2, 3]
    """
    return np.random.default_rng([ORDER_STREAM, seed, epoch]).permutation(count)


class StepBatches:
    """Batches of ``(epoch, index)`` keys for steps ``first_step`` to ``last_step``.

    The batch of a step depends on ``(seed, step)`` only, so a run that resumes at any step goes on with the batches
    the unbroken run would have seen. The last, ragged batch of an epoch is left out: BatchNorm is given full batches.

    Args:
        count: Images in the data set, at least ``batch_size``.
        batch_size: Images in a step.
        seed: The run's seed.
        first_step: 0-based step to begin with.
        last_step: Step to end before.

    Example:
        >>> whole = list(StepBatches(6, 2, 0, 0, 6))
        >>> list(StepBatches(6, 2, 0, 4, 6)) == whole[4:]
        True
    """

    def __init__(self, count: int, batch_size: int, seed: int, first_step: int, last_step: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.first_step, self.last_step = first_step, last_step
        self.steps_per_epoch = count // batch_size

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, current = np.empty(0, np.int64), -1
        for step in range(self.first_step, self.last_step):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if epoch != current:
                order, current = epoch_order(self.count, self.seed, epoch), epoch
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in chosen]
