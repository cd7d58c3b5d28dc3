"""Random streams by name, and stable hashes: the same on every run, process and processor."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the random stream of this name.

    Streams of different names are independent, so that a new component can't shift another one's draws.

    Parameters
    ----------
    seed
        The run's seed, 0 or more.
    name
        What draws from it, such as ``"arrivals"``.
    """
    digest = hashlib.sha256(name.encode()).digest()
    words = np.frombuffer(digest[:16], "<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def mix(values: npt.NDArray[Any]) -> UInt64s:
    """Scramble 64-bit integers (the finaliser of SplitMix64), vectorised."""
    x = values.astype(np.uint64)
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64s = x ^ (x >> np.uint64(31))
    return mixed


def text_key(text: str) -> int:
    """Return a stable 64-bit hash of a text (never Python's own ``hash``, which differs by process)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform_of_key(keys: UInt64s, seed: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each key: a function of the key and the seed alone."""
    seeded = mix(keys ^ mix(np.array([seed], np.uint64)))
    numbers: npt.NDArray[np.float64] = (seeded >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
