"""What one set of scores is measured to be: counts, operating points, and what pictures are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from facekd.metrics.curve_intervals import CurveIntervals
from facekd.metrics.roc import Eer, OperatingPoint, Refused
from facekd.metrics.sureness import Sureness
from facekd.metrics.verification import KFold


@dataclass(frozen=True, eq=False)
class Curve:
    """The largest TPR at each FPR, where the impostor scores are enough to show it.

    Attributes:
        fpr: (k,) float64, ascending to 1, nothing below 3 / impostors.
        tpr: (k,) float64.

    Example:
        >>> Curve(np.array([0.1, 1.0]), np.array([0.9, 1.0])).tpr.tolist()
        [0.9, 1.0]
    """

    fpr: np.ndarray
    tpr: np.ndarray


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many scores lie between neighbouring edges, the left one included; those beyond an end count at that end.

    Attributes:
        edges: (b + 1,) float64, ascending; from -1 to 1 for cosines.
        genuine: (b,) int64 genuine scores.
        impostor: (b,) int64 impostor scores.

    Example:
        >>> found = Histogram(np.array([-1.0, 0.0, 1.0]), np.array([0, 3]), np.array([4, 1]))
        >>> int(found.genuine.sum()), int(found.impostor.sum())
        (3, 5)
    """

    edges: np.ndarray
    genuine: np.ndarray
    impostor: np.ndarray


@dataclass(frozen=True)
class HardPair:
    """A pair whose score is among the worst of its kind.

    Attributes:
        first: Image of the set; the probe where probes are told apart.
        second: Image of the set.
        score: What the pair was given.

    Example:
        >>> max(HardPair(4, 7, 0.6), HardPair(1, 2, 0.7), key=lambda pair: pair.score).first
        1
    """

    first: int
    second: int
    score: float


@dataclass(frozen=True, eq=False)
class Details:
    """What is drawn and shown of a set of scores beside its figures.

    Attributes:
        curve: TPR by FPR.
        histogram: The scores by value.
        hardest_impostor: Pairs of two people with the highest scores, highest first.
        hardest_genuine: Pairs of one person with the lowest scores, lowest first.

    Example:
        >>> curve = Curve(np.ones(1), np.ones(1))
        >>> counts = Histogram(np.array([-1.0, 1.0]), np.array([1]), np.array([1]))
        >>> Details(curve, counts, (HardPair(0, 1, 0.2),), (HardPair(2, 3, 0.8),)).hardest_genuine[0].score
        0.8
    """

    curve: Curve
    histogram: Histogram
    hardest_impostor: tuple[HardPair, ...]
    hardest_genuine: tuple[HardPair, ...]


@dataclass(frozen=True)
class HardProbe:
    """A probe and the template of a gallery that it is taken for, or should be.

    Attributes:
        probe: Template of the set.
        other: Template of the set, in a gallery.
        score: Of the two.
        rank: Of the probe's mate; 0 where no gallery holds one.

    Example:
        >>> HardProbe(probe=4, other=9, score=0.25, rank=3).rank
        3
    """

    probe: int
    other: int
    score: float
    rank: int


@dataclass(frozen=True, eq=False)
class SearchDetails:
    """What is drawn and shown of a search beside its figures.

    Attributes:
        cmc: (k,) share of mated probes whose mate is among the first 1, 2, ..., k: the CMC curve.
        hardest_impostor: Probes with the highest scores with templates of other people, highest first.
        hardest_genuine: Probes with the lowest scores with their mates, lowest first.

    Example:
        >>> SearchDetails(np.array([0.5, 1.0]), (), (HardProbe(4, 9, 0.25, 3),)).cmc.tolist()
        [0.5, 1.0]
    """

    cmc: np.ndarray
    hardest_impostor: tuple[HardProbe, ...]
    hardest_genuine: tuple[HardProbe, ...]


@dataclass(frozen=True)
class Measured:
    """The figures of one model on one set.

    Attributes:
        genuine: Pairs of one person.
        impostor: Pairs of two people.
        points: Operating points, in the order asked.
        refused: FPRs that the impostors are too few to show.
        auc: Area under the ROC curve.
        eer: Equal error rate, as a bracket.
        accuracy: Cross-validated accuracy, where pairs lie in folds.
        intervals: 95 % interval of the TPR of each point, None for one that would take too much; None when none were
            asked for.
        details: What pictures are drawn from; None unless asked for.
        auc_error: The most by which ``auc`` may be off; above 0 where the scores were too many to be held.
        sureness: What the model's uncertainty tells at each point; empty unless asked for.
        curve: 95 % intervals of AUC and EER; None where there are none.
        no_interval: Why figures that could have an interval have none.

    Example:
        >>> from facekd.metrics.roc import eer
        >>> Measured(1, 2, (), (), 1.0, eer([0.9], [0.2, 0.1])).details is None
        True
    """

    genuine: int
    impostor: int
    points: tuple[OperatingPoint, ...]
    refused: tuple[Refused, ...]
    auc: float
    eer: Eer
    accuracy: KFold | None = None
    intervals: tuple[tuple[float, float] | None, ...] | None = None
    details: Details | None = None
    auc_error: float = 0.0
    sureness: tuple[Sureness, ...] = ()
    curve: CurveIntervals | None = None
    no_interval: tuple[str, ...] = ()


def with_images(measured: Measured, images: np.ndarray) -> Measured:
    """The figures of a part of a set, its hardest pairs named by their images in the whole set.

    Args:
        measured: What the part was measured to be.
        images: (n,) where in the whole set each image of the part stands.

    Example:
        >>> from facekd.metrics.roc import eer
        >>> counts = Histogram(np.array([-1.0, 1.0]), np.array([1]), np.array([1]))
        >>> details = Details(Curve(np.ones(1), np.ones(1)), counts, (HardPair(0, 1, 0.2),), ())
        >>> part = Measured(1, 1, (), (), 1.0, eer([0.9], [0.1]), details=details)
        >>> with_images(part, np.array([5, 8])).details.hardest_impostor
        (HardPair(first=5, second=8, score=0.2),)
    """
    details = measured.details
    if details is None:
        return measured
    impostor, genuine = (
        tuple(HardPair(int(images[pair.first]), int(images[pair.second]), pair.score) for pair in kind)
        for kind in (details.hardest_impostor, details.hardest_genuine)
    )
    return replace(measured, details=replace(details, hardest_impostor=impostor, hardest_genuine=genuine))
