"""Randomness that is the same for the same seed, whatever happens in between.

Every draw is keyed by what it is for, so that one more draw somewhere does not change the others.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections import Counter

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""The characters Kubernetes makes generated names of: no vowels, so no words."""


class Draws:
    """Random values for one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._times: Counter[str] = Counter()

    def _bits(self, *key: object) -> int:
        text = "\0".join(map(str, (self._seed, *key)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())

    def uniform(self, low: float, high: float, *key: object) -> float:
        """A value between low and high."""
        return low + (high - low) * ((self._bits(*key) >> 64) / 2**64)

    def integer(self, low: int, high: int, *key: object) -> int:
        """A whole number from low to high, both included."""
        return low + self._bits(*key) % (high - low + 1)

    def chance(self, share: float, *key: object) -> bool:
        """True for about this share of all keys."""
        return self.uniform(0, 1, *key) < share

    def spread(self, relative: float, *key: object) -> float:
        """A factor around 1, log-uniform between 1/(1+relative) and 1+relative."""
        if not relative:
            return 1.0
        return math.exp(self.uniform(-1, 1, *key) * math.log1p(relative))

    def nth(self, *key: object) -> int:
        """How often this was asked with this key before: makes the next key another one."""
        text = "\0".join(map(str, key))
        self._times[text] += 1
        return self._times[text] - 1

    def suffix(self, *key: object) -> str:
        """Five characters for a generated name."""
        bits = self._bits("suffix", *key)
        letters = []
        for _ in range(5):
            bits, digit = divmod(bits, len(_ALPHABET))
            letters.append(_ALPHABET[digit])
        return "".join(letters)

    def uid(self, *key: object) -> str:
        """A random (version 4) UUID."""
        return str(uuid.UUID(int=self._bits("uid", *key), version=4))
