"""How many false accepts an FPR allows, and how many comparisons it takes to show one."""

from __future__ import annotations

import math


def allowed_accepts(fpr: float, impostors: int) -> int:
    """The largest count whose share of all impostors does not exceed an FPR, decided in float64.

    Args:
        fpr: In (0, 1).
        impostors: Impostor comparisons in all, or their weight.

    Example:
        >>> allowed_accepts(1e-3, 3000), allowed_accepts(1e-3, 2999)
        (3, 2)
    """
    count = math.floor(fpr * impostors)
    if count / impostors > fpr:
        return count - 1
    return count + 1 if (count + 1) / impostors <= fpr else count


def needed_impostors(fpr: float) -> int:
    """Impostor comparisons without which ``fpr`` cannot be shown: 3 / fpr.

    With no false accept among n comparisons the 95 % upper bound of the FPR is 3 / n.

    Args:
        fpr: In (0, 1).

    Example:
        >>> needed_impostors(1e-6)
        3000000
    """
    count = math.ceil(3 / fpr)
    return count - 1 if count > 1 and 3 / (count - 1) <= fpr else count


def enough_to_allow(accepts: int, fpr: float) -> int:
    """Comparisons without which an FPR does not allow so many to be accepted.

    Args:
        accepts: At least 1.
        fpr: In (0, 1).

    Example:
        >>> enough_to_allow(6, 0.1), allowed_accepts(0.1, 59)
        (60, 5)
    """
    count = math.ceil(accepts / fpr)
    return count - 1 if accepts / (count - 1) <= fpr else count
