"""An engine's own flags in a pool's plain data, written as the keys that they are names of."""

from __future__ import annotations

from typing import Any

from simulator.engines import Engine, load_engine
from simulator.errors import InputError
from simulator.scenario_errors import Problem, ScenarioError
from simulator.scenario_keys import set_key


def expand_args(pool: dict[str, Any], index: int) -> None:
    """Move ``engine.args`` to the keys that they set, in place; a flag that can't be is left where it is.

    Parameters
    ----------
    pool
        A pool of a scenario, which need not have been checked.
    index
        Its place among the pools, for messages.

    Raises
    ------
    ScenarioError
        If a key is given twice with two values.
    """
    engine = pool.get("engine")
    args = engine.get("args") if isinstance(engine, dict) else None
    preset = _preset(engine)
    if preset is None or not isinstance(args, dict):
        return
    twice = []
    for name in list(args):
        try:
            changes = preset.translate_args({name: args[name]})
        except InputError:
            continue
        del args[name]
        for key, value in changes.items():
            if key.startswith("batching.params.") and "batching" not in pool:
                pool["batching"] = {"name": preset.policy}
            given = _get(pool, key)
            if given is not None and value is not None and given != value:
                twice.append(key)
            elif value is not None:
                set_key(pool, key, value)
    if twice:
        text = "is given twice with two values, by engine.args and by its key; give one of them"
        raise ScenarioError([Problem(text, f"cluster.pools.{index}.{key}") for key in twice])


def _preset(engine: Any) -> Engine | None:
    name = engine.get("name") if isinstance(engine, dict) else None
    if not isinstance(name, str):
        return None
    version = engine.get("version")
    try:
        return load_engine(name, None if version is None else str(version))
    except InputError:
        return None


def _get(data: Any, key: str) -> Any:
    for step in key.split("."):
        data = data.get(step) if isinstance(data, dict) else None
    return data
