"""Kubernetes quantities (`10m`, `128Gi`), read and written the way the embedded cluster needs."""

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction

_UNITS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30),
    "Ti": Fraction(2**40), "Pi": Fraction(2**50),
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:[eE]([+-]?\d+)|([numkMGTP]|[KMGTP]i))?")


_LONGEST_EXPONENT = 4
"""Characters; beyond them a number of bytes would not fit into any memory."""


def parse(text: object) -> Fraction:
    """The exact value of a quantity. Raises ValueError if it is none."""
    return _parse(str(text))


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Fraction:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no quantity: write e.g. 500m, 48, 128Gi")
    number, exponent, unit = match.groups()
    if exponent and len(exponent) > _LONGEST_EXPONENT:
        raise ValueError(f"{str(text)[:40]!r} is no quantity: its exponent is too large")
    return Fraction(number) * (Fraction(10) ** int(exponent or 0)) * _UNITS[unit or ""]


def whole(text: object) -> int:
    """A quantity in whole units (bytes, pods, devices), rounded up as the scheduler does."""
    return math.ceil(parse(text))


def milli(text: object) -> int:
    """A quantity in thousandths (CPU), rounded up."""
    return math.ceil(parse(text) * 1000)


def binary(value: int) -> str:
    """A whole number with the largest power of 1,024 that divides it, as Kubernetes writes it."""
    units = ["", "Ki", "Mi", "Gi", "Ti", "Pi"]
    while value and value % 1024 == 0 and len(units) > 1:
        value //= 1024
        del units[0]
    return f"{value}{units[0]}"
