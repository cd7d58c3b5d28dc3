"""Typed look-ups in a Hugging Face configuration, with errors that name file, key and architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.errors import InputError


@dataclass(frozen=True, slots=True)
class ConfigReader:
    """A configuration's keys, checked as they are read.

    Attributes
    ----------
    mapping
        The configuration.
    architecture
        Its architecture, e.g. ``"LlamaForCausalLM"``, for messages.
    where
        The file that it is from, for messages.
    """

    mapping: Mapping[str, object]
    architecture: str
    where: str

    def error(self, key: str, problem: str) -> InputError:
        """Return the error that says what is wrong with ``key``."""
        return InputError(f"{self.where}: key {key!r} {problem} ({self.architecture})")

    def first_of(self, *keys: str) -> str:
        """Return the first of ``keys`` that has a value, else the first of them."""
        return next((key for key in keys if self.mapping.get(key) is not None), keys[0])

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Return a whole number of at least ``least``, or ``default`` for a missing key or null."""
        value = self.mapping.get(key)
        if value is None:
            if default is None:
                raise self.error(key, "is missing")
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"must be a whole number of at least {least}, got {value!r}")
        return value

    def optional_count(self, key: str) -> int | None:
        """Return a whole number of at least 1, or None where the key is missing or null."""
        return None if self.mapping.get(key) is None else self.count(key)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false; a missing key or null gives ``default``."""
        value = self.mapping.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, got {value!r}")
        return value

    def text(self, key: str, default: str) -> str:
        """Return a string; a missing key or null gives ``default``."""
        value = self.mapping.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(key, f"must be a string, got {value!r}")
        return value

    def items(self, key: str) -> list[object] | None:
        """Return a list, or None where the key is missing or null."""
        value = self.mapping.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, got {value!r}")
        return list(value)

    def table(self, key: str) -> Mapping[str, object] | None:
        """Return a mapping, or None where the key is missing or null."""
        value = self.mapping.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(key, f"must be a mapping, got {value!r}")
        return {str(name): entry for name, entry in value.items()}
