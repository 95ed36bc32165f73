"""Which values of an image with more than 8 bits become 0 and 255.

Cameras and microscopes keep 10, 12 or 14 bits in files of 16. Taken as parts of 65535, 12 bits
leave an image nearly black.
"""

import math
import threading
import warnings
from numbers import Real
from typing import Any

import numpy as np

FULL = "full"
RULES = (FULL, "max", "percentiles")
PERCENTILES = (0.5, 99.5)
LEAST_RANGE = 1e-12  # of an image of one value, which becomes black
DARK = 0.25  # of the range of 16 bits: an image below it has 14 bits at most

ValueRange = str | float | tuple[float, float]

_lock = threading.Lock()
_warned = False


def is_value_range(value: Any) -> bool:
    """Return whether this is a rule of `RULES`, a greatest value, or the least and the greatest."""
    if isinstance(value, str):
        return value in RULES
    if isinstance(value, tuple | list):
        return len(value) == 2 and all(map(_is_finite, value)) and value[0] < value[1]
    return _is_finite(value) and value > 0


def check_value_range(value: Any) -> None:
    """Raise ValueError unless `is_value_range`."""
    if not is_value_range(value):
        raise ValueError(f"value_range {VALUE_RANGE_RULE}; received {value!r}")


def same_range(one: ValueRange, other: ValueRange) -> bool:
    """Return whether two rules are the same, however they are written: 4095, or (0, 4095)."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return fixed_bounds(one) == fixed_bounds(other)


VALUE_RANGE_RULE = (
    "must be 'full', 'max', 'percentiles', the greatest value, or the least and the greatest"
)


def to_8_bits(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Return values of more than 8 bits as uint8, those outside the range as 0 and 255.

    Args:
        values: of any shape, integers or floats.
        value_range: "full" for 0..65535, "max" for 0 up to the image's own greatest value,
            "percentiles" for its own 0.5th to 99.5th percentile over all channels, a number for 0
            up to it, or the least and the greatest value.
    """
    if value_range == FULL:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = bounds(values, value_range)
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, LEAST_RANGE))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def bounds(values: np.ndarray, value_range: ValueRange) -> tuple[float, float]:
    """Return the values that become 0 and 255, for any range but "full"."""
    if value_range == "max":
        return 0.0, float(values.max())
    if value_range == "percentiles":
        low, high = np.percentile(values, PERCENTILES, method="nearest")
        return float(low), float(high)
    return fixed_bounds(value_range)


def fixed_bounds(value_range: Any) -> tuple[float, float]:
    """Return the values that become 0 and 255, for a range that is a number or two."""
    low, high = value_range if isinstance(value_range, tuple | list) else (0.0, value_range)
    return float(low), float(high)


def warn_if_dark(peak: int, greatest: int, name: str) -> None:
    """Warn, once in a process, of 16-bit values that leave most of their range unused."""
    global _warned
    if not 0 < peak < DARK * greatest:
        return
    with _lock:
        if _warned:
            return
        _warned = True
    bits = peak.bit_length() if greatest > 255 else 8 + peak.bit_length()
    warnings.warn(
        f"{name}: its 16-bit values use a part of their range alone, so that its brightest pixel "
        f"becomes {round(peak * 255 / greatest)} of 255, nearly black. Give the model "
        f"value_range={2**bits - 1} (the greatest value of {bits} bits), 'max' or 'percentiles'",
        stacklevel=2,
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
