"""Kubernetes quantities (`10m`, `128Gi`), read and written the way the embedded cluster needs."""

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction

_UNITS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30),
    "Ti": Fraction(2**40), "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip
_QUANTITY = re.compile(
    r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?"
)


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


_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def canonical(text: object) -> str:
    """A quantity as the API stores it: the same value, in the largest unit that leaves it whole.

    Raises ValueError if it is none.
    """
    return _canonical(str(text).strip())


@functools.lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    value = _parse(text)
    units: tuple[str, ...]
    if text.endswith("i") and abs(value) >= 1024:
        units, base, number = ("", *_BINARY), 1024, math.ceil(value)
    else:
        units, base, number = _DECIMAL, 1000, math.ceil(value * 10**9)
        if "e" in text or ("E" in text and not text.endswith("E")):
            units = tuple(f"e{power}" if power else "" for power in range(-9, 21, 3))
    if not number:
        return "0"
    index = 0
    while number % base == 0 and index < len(units) - 1:
        number //= base
        index += 1
    return f"{number}{units[index]}"
