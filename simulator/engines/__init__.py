"""Serving engines: what each one's documentation says it does by default, and its flags under their own names.

One file an engine and version, found by being here: a module that defines ``ENGINE``, an
`simulator.engines.base.Engine`. ``vllm`` means the newest version of vLLM that is known, ``vllm@0.19`` that one.
"""

from simulator.engines.base import Engine, EngineDefaults, Flag
from simulator.engines.loading import engines_with_flag, list_engines, load_engine

__all__ = ["Engine", "EngineDefaults", "Flag", "engines_with_flag", "list_engines", "load_engine"]
