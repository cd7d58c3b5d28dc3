"""What a user asks a plan for, from a file and from flags that go before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator import scenario_yaml
from simulator.errors import InputError, did_you_mean

KEYS = ("objectives", "gpus", "provider", "policies", "max_gpus", "seeds")
"""Keys of the file; `simulator.plan` takes arguments of the same names."""


def arguments_of(
    path: str | Path | None,
    *,
    objectives: Mapping[str, float],
    gpus: Sequence[str] | None,
    prices: Mapping[str, float],
    at_most: Mapping[str, int],
    **flags: Any,
) -> dict[str, Any]:
    """Return the arguments of `simulator.plan` that a file and flags make.

    Parameters
    ----------
    path
        YAML with `KEYS`; None: none.
    objectives
        From flags: they replace those of the file of the same name, and leave the others.
    gpus
        From flags; None: the file's.
    flags
        Arguments by name; None: the file's.

    Raises
    ------
    InputError
        For a file that can't be read or has other keys, or if no objectives or GPUs are given.
    """
    given = {} if path is None else _read(Path(path))
    wanted = {**_mapping(given, "objectives", path), **objectives}
    if not wanted:
        raise InputError("which objectives? give one at least, as in: --ttft-p99 2 --tpot-p99 0.1 (seconds)")
    of_file = given.get("gpus") or []
    if gpus is not None and isinstance(of_file, Mapping):
        chosen: Any = {name: of_file.get(name) for name in gpus}
    else:
        chosen = of_file if gpus is None else gpus
    if isinstance(chosen, str):
        chosen = [chosen]
    if not chosen:
        raise InputError("which GPUs? name at least one, as in: --gpus h100-sxm,l40s")
    found: dict[str, Any] = {"objectives": wanted, "gpus": chosen, "prices": dict(prices), "at_most": dict(at_most)}
    for key in ("provider", "policies", "max_gpus", "seeds"):
        value = flags.get(key)
        if value is None:
            value = given.get(key)
        if value is not None:
            found[key] = value
    return found


def _read(path: Path) -> dict[str, Any]:
    given, lines = scenario_yaml.read(path)
    for key in given:
        if key not in KEYS:
            raise InputError(f"{path}, line {lines.get((key,), 1)}: unknown key {key!r}{did_you_mean(str(key), KEYS)}")
    return given


def _mapping(given: Mapping[str, Any], key: str, path: str | Path | None) -> Mapping[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: {key!r} must be a mapping, got {value!r}")
    return value


__all__ = ["KEYS", "arguments_of"]
