"""Groups of identities that look alike to a teacher."""

from __future__ import annotations

import numpy as np

STARTS = 4  # of k-means, of which the best is taken


def group_identities(centres: np.ndarray, count: int, *, least: int, seed: int) -> np.ndarray:
    """K-means clusters of identities by their directions; those too small for a batch join their nearest neighbour.

    The superclasses of Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802.

    Args:
        centres: A teacher's mean embedding of each identity, ``(identities, dim)``; normalised here.
        count: Clusters to begin with.
        least: Identities a superclass must have, at most half of all.
        seed: Of the starts of k-means.

    Returns:
        The superclass of each identity, int64 ``(identities,)``, numbered from 0 without gaps.

    Raises:
        ValueError: There are fewer identities than clusters, or they do not fall into two groups of ``least``.

    Example:
        >>> groups = group_identities(np.array([[1, 0.1], [1, -0.1], [-1, 0.1], [-1, 0]]), 2, least=2, seed=0)
        >>> bool(groups[0] == groups[1] != groups[2] == groups[3])
        True
    """
    from sklearn.cluster import KMeans

    if count > len(centres):
        raise ValueError(f"{len(centres)} identities cannot make {count} groups")
    units = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    groups = KMeans(count, n_init=STARTS, random_state=seed).fit_predict(units).astype(np.int64)
    while True:
        names, sizes = np.unique(groups, return_counts=True)
        if len(names) == 1:
            raise ValueError(f"{len(centres)} identities do not fall into groups of at least {least} that look alike")
        if sizes.min() >= least:
            return np.searchsorted(names, groups)
        means = np.stack([units[groups == name].mean(axis=0) for name in names])
        smallest = int(sizes.argmin())
        apart = np.square(means - means[smallest]).sum(axis=1)
        apart[smallest] = np.inf
        groups[groups == names[smallest]] = names[int(apart.argmin())]
