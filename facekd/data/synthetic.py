"""Synthetic aligned faces: a data set that is a function.

``render_face(seed, identity, sample)`` draws one 112x112 crop on the ArcFace template together with what no real
photograph comes with: exact landmarks, a class per pixel and the true quality factors. Identities differ in shape,
proportion, colour, hair and marks; samples of one identity differ in pose, expression, light, background, covering
and camera. Nothing is stored, every image is the same in any process and order, and no licence binds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from facekd.data.images import encode_png
from facekd.data.synthetic_capture import NUISANCE, Capture, draw_capture
from facekd.data.synthetic_degrade import degrade
from facekd.data.synthetic_identity import draw_identity
from facekd.data.synthetic_render import photograph
from facekd.errors import UsageError
from facekd.files import value_digest

RENDERER_VERSION = 1
"""Changes whenever the same (seed, identity, sample) gives other pixels; part of every digest."""

QUALITY_FACTORS = ("blur", "resolution", "noise", "yaw", "pitch", "roll")
"""blur: Gaussian sigma in pixels. resolution: side in pixels before enlarging, 112 is full. noise: standard deviation
at mid grey in grey levels. yaw, pitch, roll: degrees; roll is what alignment left."""

_MOST = 2**32


@dataclass(frozen=True)
class FaceSample:
    """One synthetic face.

    Attributes:
        image: uint8 (112, 112, 3), RGB.
        identity: Who it is.
        landmarks: float32 (5, 2), x and y in pixels: eyes, nose tip, mouth corners, image left first.
        parsing: uint8 (112, 112), indices into ``synthetic_paint.PARSING``.
        quality: By name, see `QUALITY_FACTORS`.
    """

    image: np.ndarray
    identity: int
    landmarks: np.ndarray
    parsing: np.ndarray
    quality: dict[str, float]


def render_face(seed: int, identity: int, sample: int) -> FaceSample:
    """Draw one face.

    Args:
        seed: Names the population.
        identity: Names the person in it.
        sample: Names the photograph of that person.

    Returns:
        Pixels, landmarks, parsing map and quality factors, all functions of the arguments alone.

    Raises:
        UsageError: An argument is negative or 2**32 or more.

    Example:
        >>> face = render_face(0, 12, 3)
        >>> face.image.shape, face.identity, face.parsing.dtype
        ((112, 112, 3), 12, dtype('uint8'))
        >>> sorted(face.quality)
        ['blur', 'noise', 'pitch', 'resolution', 'roll', 'yaw']
    """
    for name, value in (("seed", seed), ("identity", identity), ("sample", sample)):
        if not 0 <= value < _MOST:
            raise UsageError(f"synthetic faces: {name}", f"{value} is out of range", f"take 0 to {_MOST - 1}")
    who = draw_identity(seed, identity)
    capture = draw_capture(who, seed, identity, sample)
    image, landmarks, parsing = photograph(who, capture)
    return FaceSample(degrade(image, capture.sensor), identity, landmarks, parsing, _quality(capture))


def _quality(capture: Capture) -> dict[str, float]:
    pose, sensor = capture.pose, capture.sensor
    values = (sensor.blur, sensor.resolution, sensor.noise, pose.yaw, pose.pitch, pose.roll)
    return dict(zip(QUALITY_FACTORS, values, strict=True))


class SyntheticFaces:
    """An identity source that draws its images when asked.

    Label k stands for identity ``first_identity + k``; images are ordered by identity, then sample. Names have six
    digits, or ten when the range goes past 999999, so that they sort as the identities do.

    Args:
        identities: How many people, 1 or more.
        samples: Images of each, 1 or more.
        seed: Names the population.
        first_identity: The first person; disjoint ranges of one seed are disjoint people.

    Raises:
        UsageError: A count below 1, or an identity beyond 2**32.

    Example:
        >>> faces = SyntheticFaces(identities=3, samples=2, first_identity=10)
        >>> len(faces), faces.names[1], faces.sample_name(3), faces.labels.tolist()
        (6, 'synthetic-000011', 'synthetic-000011/0001', [0, 0, 1, 1, 2, 2])
    """

    def __init__(self, identities: int, samples: int, seed: int = 0, first_identity: int = 0) -> None:
        for name, value in (("identities", identities), ("samples", samples)):
            if value < 1:
                raise UsageError(f"synthetic faces: {name}", f"{value} is too few", "take 1 or more")
        for name, value, last in (
            ("seed", seed, seed),
            ("first_identity", first_identity, first_identity + identities - 1),
            ("samples", samples, samples - 1),
        ):
            if value < 0 or last >= _MOST:
                raise UsageError(f"synthetic faces: {name}", f"{value} is out of range", f"stay in 0 to {_MOST - 1}")
        self._seed, self._first, self._samples = seed, first_identity, samples
        digits = 6 if first_identity + identities <= 10**6 else 10
        self.names = [f"synthetic-{first_identity + k:0{digits}d}" for k in range(identities)]
        self.labels = np.repeat(np.arange(identities, dtype=np.int64), samples)
        parameters = {
            "renderer": RENDERER_VERSION, "nuisance": asdict(NUISANCE), "identities": identities, "samples": samples,
            "seed": seed, "first_identity": first_identity,
        }  # fmt: skip
        self.digest = value_digest(parameters)
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return len(self.labels)

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self.labels):
            raise UsageError("synthetic faces", f"no image {index}", f"there are {len(self.labels)}, from 0")
        return divmod(index, self._samples)

    def face(self, index: int) -> FaceSample:
        """Image ``index`` with everything known about it; raises `UsageError` beyond the end."""
        identity, sample = self._place(index)
        return render_face(self._seed, self._first + identity, sample)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as PNG; raises `UsageError` beyond the end."""
        return encode_png(self.read(index))

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (112, 112, 3); raises `UsageError` beyond the end."""
        return self.face(index).image

    def sample_name(self, index: int) -> str:
        """``<identity>/<sample>`` of image ``index``; raises `UsageError` beyond the end."""
        identity, sample = self._place(index)
        return f"{self.names[identity]}/{sample:04d}"


def contact_sheet(identities: Sequence[int] | int, samples: int, seed: int = 0) -> np.ndarray:
    """A picture of many faces: a row per identity, a column per sample.

    Args:
        identities: The identities to show, or how many from 0.
        samples: Columns.
        seed: Names the population.

    Returns:
        uint8 RGB (112 * rows, 112 * samples, 3).

    Raises:
        UsageError: No row or no column.

    Example:
        >>> contact_sheet([4, 9], 3).shape
        (224, 336, 3)
    """
    rows = range(identities) if isinstance(identities, int) else identities
    if len(rows) < 1 or samples < 1:
        raise UsageError("contact sheet", f"{len(rows)} identities of {samples} samples", "take 1 or more of each")
    return np.vstack([np.hstack([render_face(seed, who, k).image for k in range(samples)]) for who in rows])
