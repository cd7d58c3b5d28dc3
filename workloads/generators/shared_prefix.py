"""Requests that share prefixes: a system prompt of all, the tools of a group, and a part of their own.

Groups are as popular as a Zipf law says. ``block_hashes`` cover the prompt: the blocks that lie wholly in the system
prompt are the same for all, those that end in the group's tools the same within the group, the rest are a request's
own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workloads.generators import parameters
from workloads.generators._registry import (
    BURSTINESS,
    DURATION,
    FIT,
    REQUESTS,
    SEED,
    Generator,
    Param,
    extent,
    length_params,
    rate_param,
)
from workloads.generators.arrivals import renewal
from workloads.generators.lengths import lengths
from workloads.streams import stream
from workloads.trace import Categorical, Ragged, Trace, TraceError

_FIGURES = parameters.SHARED_PREFIX
_TOOLS = lengths(
    {"kind": "lognormal", "median": _FIGURES["tool_median"].value, "sigma": _FIGURES["tool_sigma"].value, "max": 8192}
)


def _make(values: Mapping[str, Any]) -> Trace:
    requests, until = extent(values)
    seed, size, groups = values["seed"], values["block_size"], values["groups"]
    rng = stream(seed, "arrivals")
    arrival = renewal(rng, "gamma", values["burstiness"], values["rate"], requests=requests, until_s=until)
    n = len(arrival)
    if not n:
        raise TraceError("no request falls into the trace; raise 'rate' or 'duration_s'")
    popularity = np.cumsum(np.arange(1, groups + 1, dtype=np.float64) ** -values["zipf_exponent"])
    group = np.searchsorted(popularity, stream(seed, "groups").random(n) * popularity[-1])
    tools = values["tools"].sample(stream(seed, "tools"), groups)
    own = values["prompt"].sample(stream(seed, "prompt"), n)
    prompt = values["system_tokens"] + tools[group] + own
    count = prompt // size
    system = values["system_tokens"] // size
    shared = (values["system_tokens"] + tools) // size  # blocks that end within the group's tools
    group_base = system + np.cumsum(shared - system) - (shared - system)
    own_base = system + int((shared - system).sum()) + np.cumsum(count - shared[group]) - (count - shared[group])
    offsets = np.concatenate(([0], np.cumsum(count)))
    row = np.repeat(np.arange(n), count)
    block = np.arange(offsets[-1]) - offsets[row]
    identity = np.where(
        block < system,
        block,
        np.where(
            block < shared[group[row]],
            group_base[group[row]] + block - system,
            own_base[row] + block - shared[group[row]],
        ),
    )
    return Trace(
        arrival_s=arrival,
        prompt_tokens=prompt,
        output_tokens=values["output"].sample(stream(seed, "output"), n),
        tenant=Categorical(group.astype(np.int32), tuple(f"group-{i}" for i in range(groups))),
        block_hashes=Ragged(offsets, identity),
        block_size_tokens=size,
    )


GENERATORS = (
    Generator(
        "shared-prefix",
        "groups of Zipf popularity that share a system prompt and tools, with block_hashes",
        (
            REQUESTS,
            DURATION,
            rate_param(2.0),
            BURSTINESS,
            Param("groups", "int", int(_FIGURES["groups"].value), "groups that share tools", ge=1, le=1e6),
            Param(
                "zipf_exponent", "float", _FIGURES["zipf_exponent"].value, "popularity by rank; 0: equal", ge=0, le=10
            ),
            Param(
                "system_tokens",
                "int",
                int(_FIGURES["system_tokens"].value),
                "system prompt of all",
                "tokens",
                ge=0,
                le=1e6,
            ),
            Param("tools", "lengths", _TOOLS, "further prefix of a group", "tokens"),
            *length_params("lognormal:median=120,sigma=0.8,max=4096", "lognormal:median=100,sigma=0.7,max=2048"),
            Param("block_size", "int", 16, "tokens a block", "tokens", ge=1, le=65536),
            FIT,
            SEED,
        ),
        _make,
    ),
)
