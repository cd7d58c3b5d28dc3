"""The study's metric by hand, and its mechanism: prompts that are cut leave no gaps in others' answers."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.reproduce.runs import Run
from simulator.reproduce.studies import fastgen
from simulator.reproduce.tokens import token_gaps_s


def test_the_slowest_moving_average_is_that_of_weights_which_fall_by_15_of_17() -> None:
    # After gaps 1, 0, 4 the weights are (15/17)^2, 15/17 and 1.
    keep = 1 - 2 / 17
    third = (keep**2 * 1 + 4) / (keep**2 + keep + 1)
    assert fastgen.slowest_average_s(np.array([1.0, 0.0, 4.0])) == pytest.approx(third)
    assert fastgen.slowest_average_s(np.array([3.0, 0.0])) == 3.0
    assert fastgen.slowest_average_s(np.array([])) == 0.0


def test_gaps_add_up_to_the_time_between_first_and_last_token_and_hold_the_longest() -> None:
    result = fastgen.described("vLLM", 6, 60, 24).simulate(keep_steps=True)
    table, gaps = result.requests, token_gaps_s(result)
    assert [each.sum() for each in gaps] == pytest.approx((table["last_token_s"] - table["first_token_s"]).tolist())
    assert [each.max() for each in gaps] == pytest.approx(table["itl_max_s"].tolist())


def test_gaps_are_refused_where_steps_were_not_kept_or_a_request_was_preempted() -> None:
    one = fastgen.described("vLLM", 2, 60, 4)
    with pytest.raises(ValueError, match="need a run that kept each step"):
        token_gaps_s(one.simulate())
    pool = {"accelerator": "a100-80gb", "batching": "vllm", "engine": {"num_kv_blocks": 40, "max_model_len": 512}}
    params = {"rate": 1e3, "requests": 4, "prompt": 100, "output": 200}
    tight = {"workload": {"generator": {"kind": "regular", "params": params}}, "cluster": {"pools": [pool]}}
    with pytest.raises(ValueError, match="a request has 200 tokens and"):
        token_gaps_s(Run("tight", tight).simulate(keep_steps=True))


def test_more_requests_keep_their_pace_where_prompts_are_cut() -> None:
    found, tails = {}, {}
    for system in fastgen.SYSTEMS:
        result = fastgen.described(system, 12, 60, 96).simulate(keep_steps=True)
        found[system] = fastgen.point(result)
        tails[system] = np.percentile(np.concatenate(token_gaps_s(result)), 95)
    ours, theirs = found["FastGen"], found["vLLM"]
    assert ours.effective[4.0] > 1.2 * theirs.effective[4.0]
    assert tails["vLLM"] > 2 * tails["FastGen"]
    assert theirs.effective[2.0] >= theirs.effective[4.0] >= theirs.effective[6.0]
    assert all(each.effective[4.0] <= each.rate for each in found.values())
