"""Keys of a scenario in plain data, before it is checked: set by dotted name, and paths made absolute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simulator.scenario_errors import Path as KeyPath
from simulator.scenario_errors import Problem, ScenarioError, dotted

SHORT_KEYS = {"generator": "kind", "loop": "kind", "cost": "kind", "predictor": "kind", "health": "kind"}
"""Parts that may be written as a name alone, and which key the name then is; elsewhere it is ``name``."""


def set_key(data: dict[str, Any], key: str, value: Any) -> list[KeyPath]:
    """Set a dotted key in plain data, making what lies around it; return the paths that were set."""
    steps = [int(step) if step.isdecimal() else step for step in key.split(".")]
    if not all(step != "" for step in steps):
        raise ScenarioError([Problem("is not a key; write names with dots between them", key)])
    return _set(data, steps, value, ())


def _set(data: Any, steps: Sequence[str | int], value: Any, path: KeyPath) -> list[KeyPath]:
    first, rest = steps[0], steps[1:]
    if isinstance(data, list):
        if first == "*":
            return [found for i in range(len(data)) for found in _set(data, [i, *rest], value, path)]
        if not isinstance(first, int) or first >= len(data):
            size = f"{len(data)} entr{'y' if len(data) == 1 else 'ies'}, numbered from 0"
            raise ScenarioError([Problem(f"has {size}, got {first!r}", dotted(path))])
    here = (*path, first)
    if not rest:
        if value is None and isinstance(data, dict):
            data.pop(first, None)
        else:
            data[first] = value
        return [here]
    inner = data.get(first) if isinstance(data, dict) else data[first]
    if isinstance(inner, str) and isinstance(rest[0], str):
        inner = {SHORT_KEYS.get(str(first), "name"): inner}
    if isinstance(inner, dict) or (isinstance(inner, list) and (isinstance(rest[0], int) or rest[0] == "*")):
        pass
    elif inner is None:
        inner = [{}] if isinstance(rest[0], int) or rest[0] == "*" else {}
    else:
        raise ScenarioError([Problem(f"has no keys, it is {inner!r}", dotted(here))])
    data[first] = inner
    return _set(inner, rest, value, here)


def anchor_paths(data: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of a scenario file absolute."""

    def anchor(holder: Any, key: str, is_path: Callable[[str], bool]) -> None:
        if isinstance(holder, dict) and isinstance(holder.get(key), str) and is_path(holder[key]):
            holder[key] = str(folder / Path(holder[key]).expanduser())

    def anchor_list(holder: Any, key: str) -> None:
        if isinstance(holder, dict) and isinstance(holder.get(key), list):
            holder[key] = [
                str(folder / Path(each).expanduser()) if isinstance(each, str) and not is_package_name(each) else each
                for each in holder[key]
            ]

    def anchor_policy(holder: Any, key: str) -> None:
        if not isinstance(holder, dict):
            return
        anchor(holder, key, is_policy_file)
        anchor(holder.get(key), "name", is_policy_file)

    workload, cluster = data.get("workload"), data.get("cluster")
    anchor(workload, "trace", lambda text: not text.startswith("bundled:"))
    anchor(data, "model", is_model_file)
    anchor_policy(data, "router")
    anchor_policy(cluster, "rescheduler")
    anchor_policy(cluster, "scaler")
    anchor_policy(data, "admission")
    pools = cluster.get("pools") if isinstance(cluster, dict) else None
    for pool in pools if isinstance(pools, list) else []:
        anchor(pool, "model", is_model_file)
        anchor(pool, "accelerator", is_profile_file)
        anchor(pool, "node", is_profile_file)
        if isinstance(pool, dict):
            anchor(pool.get("cost"), "profile", lambda text: not is_package_name(text))
            anchor_list(pool.get("cost"), "profile")
        for key in ("batching", "queueing", "kv_eviction", "kv_budget"):
            anchor_policy(pool, key)


def is_package_name(text: str) -> bool:
    """Tell whether a profile of measurements means tables of an installed package."""
    return text.startswith("aiconfigurator:")


def is_policy_file(text: str) -> bool:
    """Tell whether a policy's name means a file: ``path/to/file.py:ClassName``."""
    return ".py:" in text or text.endswith(".py")


def is_model_file(text: str) -> bool:
    """Tell whether a model's name means a file or a folder, not a catalogue name."""
    return text.lower().endswith(".json") or text.startswith((".", "~", "/"))


def is_profile_file(text: str) -> bool:
    """Tell whether a profile's name means a file."""
    return text.lower().endswith((".yaml", ".yml"))
