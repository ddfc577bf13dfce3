"""Does a model see faces as it was trained to? Colour orders and scalings tried on people it must tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facekd.data.verification import VerificationSet
from facekd.engine.embed import embed_images
from facekd.engine.evaluation.evaluation_sets import OpenedSet
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.metrics.roc import auc
from facekd.models.embedder import Embedder
from facekd.models.opening import FROM_FILE
from facekd.models.preprocessing import Preprocessing
from facekd.models.preprocessing_ways import all_ways, other_ways, scaling_name, swapped

PEOPLE = 128
LEAST_PEOPLE = 20
LEAST_GAIN = 0.02
SURE_AUC = 0.95
CHANCE = 0.01
REPLICATES = 2000


@dataclass(frozen=True)
class Fit:
    """How well a model tells people apart when it sees them one way.

    Attributes:
        preprocessing: The way.
        normalize: Name of its scaling; see :func:`scaling_name`.
        auc: Chance that two images of one person score above two images of different people.
        separation: Mean genuine score above the mean impostor score, in standard deviations of the impostor scores.
            It still tells ways apart where the AUC has reached 1.
        chance: Share of bootstrap replicates in which it is no better than the way in use; 1 for that one.
    """

    preprocessing: Preprocessing
    normalize: str
    auc: float
    separation: float
    chance: float

    @property
    def color(self) -> str:
        """Channel order."""
        return self.preprocessing.color


@dataclass(frozen=True)
class Probe:
    """What :func:`probe_preprocessing` found.

    Attributes:
        fits: Every way that was tried, best first.
        in_use: The model's own.
        better: The best of those that are significantly better, or None.
        people: People the figures rest on, two images of each.
    """

    fits: tuple[Fit, ...]
    in_use: Fit
    better: Fit | None
    people: int


def probe_preprocessing(
    embedder: Embedder,
    read: Callable[[int], np.ndarray],
    pairs: np.ndarray,
    *,
    ways: Sequence[Preprocessing] | None = None,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Probe:
    """Embed the same faces under several colour orders and scalings, and say which fits the model best.

    Each person's two images make a genuine pair, the first image of one and the second of another an impostor pair.
    Another way counts as better when it separates them at least 2 % further than the way in use, and further in all
    but a share of :data:`CHANCE`, divided by the number of ways tried, of the bootstrap replicates, which draw people.
    Embeddings no cosine can be taken of separate nothing. The cost is one forward pass per image and way, none
    mirrored.

    Args:
        embedder: The model; a dataclass whose ``preprocessing`` can be replaced.
        read: Gives image i as uint8 RGB.
        pairs: (people, 2) images, both of one person, each row another person: from :func:`people_by_label` or
            :func:`people_of_set`; at least :data:`LEAST_PEOPLE` of them.
        ways: What to try beside the way in use; :func:`all_ways` when None.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Raises:
        ValueError: Too few people.
        DataError: From ``read``.
    """
    if len(pairs) < LEAST_PEOPLE:
        raise ValueError(f"{len(pairs)} people, fewer than {LEAST_PEOPLE}")
    own = embedder.preprocessing
    tried = [own, *(way for way in (all_ways(own) if ways is None else ways) if way != own)]
    images = np.unique(pairs)
    places = np.searchsorted(images, pairs)
    held = [read(int(index)) for index in images]
    drawn = np.random.default_rng(0).multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), REPLICATES)
    measured = []
    for number, way in enumerate(tried):

        def report(phase: str, done: int, total: int, before: int = number) -> None:
            if progress:
                progress("probe", before * total + done, len(tried) * total)

        seen = replace(embedder, preprocessing=way)  # type: ignore[type-var]
        found = embed_images(seen, held.__getitem__, len(held), flip=False, progress=report, poll=poll)
        measured.append(_measure(found[places[:, 0]], found[places[:, 1]], drawn))
    reference = measured[0].replicates
    fits = [
        Fit(way, scaling_name(way), m.auc, m.separation, float((m.replicates <= reference).mean()))
        for way, m in zip(tried, measured, strict=True)
    ]
    limit = CHANCE / max(1, len(fits) - 1)
    ranked = sorted(fits, key=lambda fit: -fit.separation)
    gain = (1 + LEAST_GAIN) * fits[0].separation
    better = [fit for fit in ranked if fit.chance <= limit and fit.separation > max(gain, 0.0)]
    return Probe(tuple(ranked), fits[0], better[0] if better else None, len(pairs))


def people_by_label(labels: np.ndarray, seed: int = 0, most: int = PEOPLE) -> np.ndarray:
    """Two images of each of up to ``most`` people.

    Args:
        labels: (n,) who each image shows.
        seed: Of the draw.
        most: People at most.

    Returns:
        int64 (people, 2); people with one image are left out.

    Example:
        >>> sorted(sorted(pair) for pair in people_by_label(np.array([7, 8, 7, 9, 8])).tolist())
        [[0, 2], [1, 4]]
    """
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(labels))
    ranked = order[np.argsort(labels[order], kind="stable")]
    first = np.flatnonzero(np.diff(labels[ranked], prepend=-1) != 0)
    sizes = np.diff(np.append(first, len(ranked)))
    chosen = draw.permutation(first[sizes > 1])[:most]
    return np.stack([ranked[chosen], ranked[chosen + 1]], axis=1).astype(np.int64)


def people_of_set(opened: OpenedSet, seed: int = 0, most: int = PEOPLE) -> np.ndarray:
    """Two images of each of up to ``most`` people of an evaluation set; as :func:`people_by_label`.

    Of pairs, the genuine ones that show people not drawn yet are taken; where the set does not say who is shown,
    those that share no image.
    """
    data = opened.data
    if not isinstance(data, VerificationSet):
        return people_by_label(data.labels, seed, most)
    genuine = data.pairs[data.genuine & (data.pairs[:, 0] != data.pairs[:, 1])]
    chosen: list[np.ndarray] = []
    taken: set[int] = set()
    for pair in genuine[np.random.default_rng(seed).permutation(len(genuine))]:
        people = set(pair.tolist()) if data.subjects is None else {int(data.subjects[pair[0]])}
        if len(chosen) < most and not people & taken:
            chosen.append(pair)
            taken |= people
    return np.array(chosen, np.int64).reshape(-1, 2)


def probe_faces(
    embedder: Embedder,
    read: Callable[[int], np.ndarray],
    pairs: np.ndarray,
    *,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Probe | None:
    """The other colour order tried on some faces, and every way where the model tells them apart badly.

    A swapped colour order costs a good model little, a wrong scaling a lot: where the AUC is at least
    :data:`SURE_AUC`, two ways are all that is embedded.

    Args:
        embedder: The model.
        read: Gives image i as uint8 RGB.
        pairs: (people, 2), as for :func:`probe_preprocessing`.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Returns:
        As :func:`probe_preprocessing`; None with too few people.
    """
    if len(pairs) < LEAST_PEOPLE:
        return None
    own = embedder.preprocessing
    first = probe_preprocessing(embedder, read, pairs, ways=[swapped(own)], progress=progress, poll=poll)
    if max(fit.auc for fit in first.fits) >= SURE_AUC:
        return first
    return probe_preprocessing(embedder, read, pairs, ways=other_ways(own), progress=progress, poll=poll)


def probe_set(
    embedder: Embedder, opened: OpenedSet, *, progress: Progress | None = None, poll: Poll | None = None
) -> Probe | None:
    """:func:`probe_faces` on up to 128 people of an evaluation set."""
    return probe_faces(embedder, opened.images.read, people_of_set(opened), progress=progress, poll=poll)


def advice(probe: Probe) -> str | None:
    """What a user should know, in one line, where another way fits significantly better.

    Example:
        >>> rgb = Fit(Preprocessing.named("half"), "half", 0.998, 7.5, 0.0)
        >>> bgr = Fit(Preprocessing.named("half", "bgr"), "half", 0.981, 6.25, 1.0)
        >>> advice(Probe((rgb, bgr), bgr, rgb, 99))
        'rgb fits these faces better than bgr (AUC 0.99800 against 0.98100, separation 7.50 against 6.25, on 99 people)'
    """
    if probe.better is None:
        return None
    best, own = probe.better, probe.in_use
    names = [(best.color, own.color), (best.normalize, own.normalize)]
    told = [pair for pair in names if pair[0] != pair[1]] or names
    now, then = (" with ".join(pair[side] for pair in told) for side in (0, 1))
    figures = f"AUC {best.auc:.5f} against {own.auc:.5f}, separation {best.separation:.2f} against {own.separation:.2f}"
    return f"{now} fits these faces better than {then} ({figures}, on {probe.people} people)"


def doubt(embedder: Embedder, probe: Probe) -> str | None:
    """:func:`advice` with the model's name and what to do about it."""
    told = advice(probe)
    if told is None or probe.better is None:
        return None
    options = [
        ("--color", probe.better.color != probe.in_use.color),
        ("--normalize", probe.better.normalize != probe.in_use.normalize),
    ]
    check = f"check {' and '.join(name for name, differs in options if differs)}"
    return f"{embedder.name}: {told}: {'though its file says so' if says_itself(embedder) else check}"


def says_itself(embedder: Embedder) -> bool:
    """Whether the model's own file states its preprocessing, rather than a user or a convention."""
    return embedder.metadata.get("preprocessing_source", FROM_FILE) == FROM_FILE


@dataclass(frozen=True)
class _Measured:
    """Figures of one way, and its separation in every bootstrap replicate."""

    auc: float
    separation: float
    replicates: np.ndarray


def _measure(left: np.ndarray, right: np.ndarray, drawn: np.ndarray) -> _Measured:
    count = len(left)
    lengths = [np.linalg.norm(side.astype(np.float64), axis=1, keepdims=True) for side in (left, right)]
    if not all(np.isfinite(length).all() and length.all() for length in lengths):
        return _Measured(0.5, 0.0, np.zeros(len(drawn)))
    scores = (left / lengths[0]) @ (right / lengths[1]).T
    across = ~np.eye(count, dtype=bool)
    everyone = _separation(scores, np.ones((1, count)))
    return _Measured(
        auc(np.diag(scores).copy(), scores[across]), float(everyone[0]), _separation(scores, drawn.astype(np.float64))
    )


def _separation(scores: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """For each row of ``drawn``, how often each person counts, the separation of their scores."""
    across = 1.0 - np.eye(len(scores))
    pairs = ((drawn @ across) * drawn).sum(axis=1)
    mean = ((drawn @ (scores * across)) * drawn).sum(axis=1) / pairs
    square = ((drawn @ (scores**2 * across)) * drawn).sum(axis=1) / pairs
    genuine = (drawn @ np.diag(scores)) / drawn.sum(axis=1)
    separation: np.ndarray = (genuine - mean) / np.sqrt(np.maximum(square - mean**2, 1e-12))
    return separation
