"""Strict reading of profile files: every key known, present and of its type; errors name file and key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from hardware_profiles.schema import ProfileError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, else the list of the known ones."""
    options = sorted(known)
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(options)}"


def read_yaml(path: Path) -> ProfileReader:
    """Read a profile's file.

    Raises
    ------
    ProfileError
        If the file cannot be read, is not YAML, or does not hold a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ProfileError(f"{path}: must hold a mapping, got {type(content).__name__}")
    return ProfileReader(content, str(path))


@dataclass(frozen=True, slots=True)
class ProfileReader:
    """One mapping of a profile's file; ``where`` is the file, and the key that holds the mapping."""

    mapping: Mapping[object, object]
    where: str

    def error(self, key: str, problem: str) -> ProfileError:
        """Return the error that says what is wrong with ``key``."""
        return ProfileError(f"{self.where}: key {key!r} {problem}")

    def check_keys(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raise `ProfileError` for the first unknown key, else for the first missing one."""
        required = tuple(required)
        known = (*required, *optional)
        for key in self.mapping:
            if key not in known:
                raise ProfileError(f"{self.where}: unknown key {key!r}{nearest(str(key), known)}")
        for key in required:
            if key not in self.mapping:
                raise self.error(key, "is missing")

    def text(self, key: str) -> str:
        """Return a string that is not empty."""
        value = self.mapping[key]
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"must be text, got {value!r}")
        return value.strip()

    def number(self, key: str) -> float:
        """Return a finite number above 0."""
        value = self.mapping[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"must be a number, got {value!r}")
        if not math.isfinite(value) or value <= 0:
            raise self.error(key, f"must be finite and above 0, got {value!r}")
        return float(value)

    def count(self, key: str) -> int:
        """Return a whole number of at least 1."""
        value = self.number(key)
        if not value.is_integer():
            raise self.error(key, f"must be a whole number, got {value!r}")
        return int(value)

    def items(self, key: str) -> list[object]:
        """Return a list."""
        value = self.mapping[key]
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, got {value!r}")
        return list(value)

    def table(self, key: str) -> ProfileReader:
        """Return a mapping."""
        value = self.mapping[key]
        if not isinstance(value, Mapping):
            raise self.error(key, f"must be a mapping, got {value!r}")
        return ProfileReader(value, f"{self.where}: {key}")
