"""Which images make up which step, as a function of the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

ORDER_STREAM = 1  # first word of the seed: keeps the draws of an order apart from those of an augmentation
IDENTITY_STREAM = 3

Draw = Callable[[int], np.ndarray]
"""The images of a 0-based step, as indices ``(batch_size,)``."""


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch ``epoch`` visits ``count`` images.

    Example:
        >>> sorted(epoch_order(4, seed=0, epoch=1).tolist())
        [0, 1, 2, 3]
    """
    return np.random.default_rng([ORDER_STREAM, seed, epoch]).permutation(count)


def shuffled(count: int, batch_size: int, seed: int) -> Draw:
    """Every image once an epoch, in a new order each time; the last, ragged batch is left out.

    BatchNorm is given full batches that way.

    Args:
        count: Images in the data set, at least ``batch_size``.
        batch_size: Images in a step.
        seed: The run's seed.

    Example:
        >>> draw = shuffled(4, 2, seed=0)
        >>> sorted([*draw(0), *draw(1)]) == [0, 1, 2, 3]
        True
    """
    steps_per_epoch = count // batch_size
    order = lru_cache(maxsize=1)(lambda epoch: epoch_order(count, seed, epoch))

    def draw(step: int) -> np.ndarray:
        epoch, batch = divmod(step, steps_per_epoch)
        return order(epoch)[batch * batch_size : (batch + 1) * batch_size]

    return draw


def class_uniform(labels: np.ndarray, batch_size: int, images_per_identity: int, seed: int) -> Draw:
    """The same number of images of each of a few identities, all identities alike however many images they have.

    Peng et al. 2019 (arXiv 1904.01802) draw batches so for CCKD. Identities are drawn without repetition within a
    step, their images too as long as they last; who has fewer images is shown some of them again.

    Args:
        labels: Identity of each image, ``(count,)``.
        batch_size: Images in a step, a multiple of ``images_per_identity``.
        images_per_identity: Images of each identity.
        seed: The run's seed.

    Raises:
        ValueError: The batch does not divide, or there are fewer identities than it takes.

    Example:
        >>> draw = class_uniform(np.array([0, 0, 0, 1, 1, 2]), 4, 2, seed=0)
        >>> len(draw(0)), len(set(np.array([0, 0, 0, 1, 1, 2])[draw(0)].tolist()))
        (4, 2)
    """
    by_identity = _Identities(labels, batch_size, images_per_identity)

    def draw(step: int) -> np.ndarray:
        generator = np.random.default_rng([IDENTITY_STREAM, seed, step])
        chosen = generator.permutation(len(by_identity.counts))[: by_identity.taken]
        return by_identity.images(chosen, generator)

    return draw


def superclass_uniform(
    labels: np.ndarray, superclasses: np.ndarray, batch_size: int, images_per_identity: int, seed: int
) -> Draw:
    """Batches as of :func:`class_uniform`, all of whose identities are of one superclass: people who look alike.

    Peng et al. 2019 (arXiv 1904.01802) draw hard batches so for CCKD, from the clusters of :func:`group_identities`.
    Every superclass is as likely as any other.

    Args:
        labels: Identity of each image, ``(count,)``; every identity has one.
        superclasses: Superclass of each identity, ``(identities,)``.
        batch_size: Images in a step, a multiple of ``images_per_identity``.
        images_per_identity: Images of each identity.
        seed: The run's seed.

    Raises:
        ValueError: The batch does not divide, or a superclass has fewer identities than it takes.

    Example:
        >>> labels, superclasses = np.arange(8).repeat(2), np.array([0, 1] * 4)
        >>> draw = superclass_uniform(labels, superclasses, 4, 2, seed=0)
        >>> len(set(superclasses[labels[draw(0)]].tolist()))
        1
    """
    by_identity = _Identities(labels, batch_size, images_per_identity)
    members = [np.flatnonzero(superclasses == one) for one in np.unique(superclasses)]
    least = min(len(group) for group in members)
    if least < by_identity.taken:
        raise ValueError(f"a superclass has {least} identities, a batch takes {by_identity.taken}")

    def draw(step: int) -> np.ndarray:
        generator = np.random.default_rng([IDENTITY_STREAM, seed, step])
        group = members[generator.integers(len(members))]
        return by_identity.images(generator.permutation(group)[: by_identity.taken], generator)

    return draw


def shown_again(labels: np.ndarray, images_per_identity: int | None) -> list[str]:
    """What a user should know of identities that have fewer images than a batch takes of each: a line, or none.

    Example:
        >>> shown_again(np.array([0, 0, 1]), 2)
        ['1 of 2 identities has fewer than 2 images: what it has comes again in a batch']
    """
    counts = np.unique(labels, return_counts=True)[1]
    few = int((counts < (images_per_identity or 0)).sum())
    told = f"{few} of {len(counts)} identities {'has' if few == 1 else 'have'} fewer than {images_per_identity} images"
    again = f"what {'it has' if few == 1 else 'they have'} comes again in a batch"
    return [f"{told}: {again}"] if few else []


class _Identities:
    """The images of each identity, and how many identities make a batch."""

    def __init__(self, labels: np.ndarray, batch_size: int, images_per_identity: int) -> None:
        self.taken, rest = divmod(batch_size, images_per_identity)
        self.each = images_per_identity
        self.order = np.argsort(labels, kind="stable")
        names, self.starts, self.counts = np.unique(labels[self.order], return_index=True, return_counts=True)
        if rest or self.taken > len(names):
            what = f"{batch_size} images cannot be {images_per_identity} of each of {self.taken} identities"
            raise ValueError(f"{what}; the data has {len(names)}")

    def images(self, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Some images of each chosen identity; who has too few is shown some of them again."""
        places = [np.resize(generator.permutation(self.counts[one]), self.each) + self.starts[one] for one in chosen]
        return self.order[np.concatenate(places)]


def sliced(draw: Draw, rank: int, size: int) -> Draw:
    """The share of each step's images that one of several processes takes.

    Args:
        draw: The images of a whole step.
        rank: Of the process, from 0.
        size: Processes; a step's images divide among them.

    Example:
        >>> whole = shuffled(8, 4, seed=0)
        >>> [*sliced(whole, 0, 2)(1), *sliced(whole, 1, 2)(1)] == whole(1).tolist()
        True
    """

    def share(step: int) -> np.ndarray:
        indices = draw(step)
        each = len(indices) // size
        return indices[rank * each : (rank + 1) * each]

    return share


class StepBatches:
    """Batches of ``(epoch, index)`` keys for steps ``first_step`` to ``last_step``.

    The batch of a step depends on ``(seed, step)`` only, so a run that resumes at any step goes on with the batches
    the unbroken run would have seen.

    Args:
        draw: The images of a step.
        steps_per_epoch: Steps that count as one epoch, which decides the augmentation.
        seed: The run's seed.
        first_step: 0-based step to begin with.
        last_step: Step to end before.

    Example:
        >>> draw = shuffled(6, 2, seed=0)
        >>> whole = list(StepBatches(draw, 3, 0, 0, 6))
        >>> list(StepBatches(draw, 3, 0, 4, 6)) == whole[4:]
        True
    """

    def __init__(self, draw: Draw, steps_per_epoch: int, seed: int, first_step: int, last_step: int) -> None:
        self.draw, self.steps_per_epoch, self.seed = draw, steps_per_epoch, seed
        self.first_step, self.last_step = first_step, last_step

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.last_step):
            epoch = step // self.steps_per_epoch
            yield [(epoch, int(index)) for index in self.draw(step)]
