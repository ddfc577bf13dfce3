"""A gallery of people, and whose face in it is most like another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facekd.data.identities import IdentitySource
from facekd.runtime.faces import FaceFinder, aligned
from facekd.runtime.model import FaceModel

BATCH = 32


def enrol(
    model: FaceModel,
    source: IdentitySource,
    find: FaceFinder | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> np.ndarray:
    """Embeddings of every image of a gallery, of length one: float32 (n, dim).

    Args:
        model: The model.
        source: Images with identities.
        find: From `face_finder`; without it the images must be aligned faces.
        progress: Told how many images are done.

    Raises:
        DataError: An image that cannot be used; none is ever left out.
    """
    found = []
    for start in range(0, len(source), BATCH):
        places = range(start, min(start + BATCH, len(source)))
        images = [aligned(source.read(place), source.sample_name(place), model, find) for place in places]
        found.append(model.embed(images))
        if progress:
            progress("enrol", places.stop, len(source))
    return np.concatenate(found)


def rank(probe: np.ndarray, enrolled: np.ndarray, source: IdentitySource, top: int) -> list[dict[str, Any]]:
    """The people most like a face, each by the most similar image.

    Args:
        probe: (dim,) of length one.
        enrolled: From `enrol`.
        source: The same gallery.
        top: How many people.

    Returns:
        One entry a person, the most similar first: rank, identity, image, similarity.
    """
    scores = enrolled.astype(np.float64) @ probe.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(source.labels[order], return_index=True)
    best = order[np.sort(first)][:top]
    return [
        {
            "rank": place,
            "identity": source.names[source.labels[index]],
            "image": source.sample_name(int(index)),
            "similarity": float(scores[index]),
        }
        for place, index in enumerate(best.tolist(), start=1)
    ]
