"""Every batching policy goes on with requests whose prompt another replica computed, or is refused before the run."""

from __future__ import annotations

import pytest

from policies import registry
from simulator import InputError, run
from workloads import generate


@pytest.mark.parametrize("name", registry.names("batching"))
def test_policies_take_over_or_are_refused(name: str) -> None:
    pool = {"cost": {"kind": "constant", "step_s": 0.01}, "engine": {"max_model_len": 256}}
    pools = [{"name": role, "role": role, **pool} for role in ("prefill", "decode")]
    pools[1]["batching"] = name
    trace = generate("poisson", rate=20, requests=20, prompt="constant:value=64", output="constant:value=9", seed=1)
    try:
        summary = run({"cluster": {"pools": pools}}, trace=trace).summary
    except InputError as error:
        assert name in ("static", "orca", "flexgen")
        assert f"{name!r} plans a request's memory or batch from its admission on" in str(error)
    else:
        assert summary["requests"]["finished"] == summary["disaggregation"]["handovers"] == 20
