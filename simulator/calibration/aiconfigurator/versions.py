"""Order of version names such as ``0.24.0``, ``1.3.0rc20``, ``0.5.6.post2`` and ``0.1.dev19262``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?:[.-]?(dev|a|b|rc|post)(\d*))?(?:\+\S+)?")
_PHASE = {"dev": -4, "a": -3, "b": -2, "rc": -1, "": 0, "post": 1}

Key = tuple[tuple[int, ...], int, int]


def version_key(version: str) -> Key | None:
    """Return what versions are ordered by, as PEP 440 orders them; None for a name that is no version.

    Parameters
    ----------
    version
        Numbers with dots, then at most one of ``dev``, ``a``, ``b``, ``rc`` and ``post`` with a number. A local part
        (``+cu130``) is ignored.
    """
    match = _VERSION.fullmatch(version.strip())
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), _PHASE[match[2] or ""], int(match[3] or 0)


def newest(versions: Iterable[str], at_most: str | None = None) -> str | None:
    """Return the newest of the versions, or of those not newer than ``at_most``; None where there is none.

    Names that are no versions are passed over.
    """
    keys = {version: key for version in versions if (key := version_key(version)) is not None}
    limit = None if at_most is None else version_key(at_most)
    if limit is not None:
        keys = {version: key for version, key in keys.items() if key <= limit}
    return max(keys, key=lambda version: keys[version], default=None)
