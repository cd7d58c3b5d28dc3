"""Which accelerator of the catalogue a GPU is, by the name and memory that its driver gives."""

from __future__ import annotations

import re

from hardware_profiles import Accelerator, list_accelerators, load_accelerator

_PREFIXES = ("nvidia-", "tesla-")

_SAME_BOARD = frozenset({"hbm2", "hbm2e", "hbm3", "hbm3e", "server", "edition"})
"""Words behind a catalogue name that don't make another board of it (``H100 80GB HBM3``); others do (``H200 NVL``)."""

_MEMORY_TOLERANCE = 0.1
"""Share by which the memory that a process sees may differ from the catalogue's: the driver keeps some of it."""


def spelled(device_name: str) -> str:
    """Return the name of a device as the catalogue spells names: ``"NVIDIA H200"`` gives ``"h200"``."""
    name = re.sub(r"[^a-z0-9.]+", "-", device_name.lower()).strip("-")
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def catalogue_entry(device_name: str, memory_bytes: int) -> Accelerator | None:
    """Return the accelerator that a device is; None where the catalogue has none.

    Parameters
    ----------
    device_name
        As PyTorch gives it.
    memory_bytes
        Total memory that the driver reports; tells boards of one name apart.
    """
    name = spelled(device_name)
    found: list[tuple[int, Accelerator]] = []
    for each in list_accelerators():
        profile = load_accelerator(each)
        for known in (profile.name, *profile.aliases):
            rest = name[len(known) :]
            if name.startswith(known) and (not rest or rest[0] == "-") and _same_board(rest):
                found.append((len(known), profile))
    for _, profile in sorted(found, key=lambda pair: -pair[0]):
        if abs(memory_bytes / profile.process_memory_bytes - 1) <= _MEMORY_TOLERANCE:
            return profile
    return None


def _same_board(rest: str) -> bool:
    return set(rest.strip("-").split("-")) - {""} <= _SAME_BOARD
