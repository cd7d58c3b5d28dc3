"""The study's parts: its requests, and the direction of its three results on few of them."""

from __future__ import annotations

import pytest

from simulator.reproduce.studies import sarathi


def test_answers_are_as_long_as_chunks_beside_prompts_last() -> None:
    case = sarathi._CASES[0]
    prompt, output = case.tokens
    assert prompt + output == case.length
    # As many chunks of a prompt as decodes of each of the others, within the rounding to tokens.
    assert prompt / case.chunk == pytest.approx(output / (case.batch - 1), rel=0.02)


def test_zipf_requests_have_ten_prompt_tokens_for_one_of_the_answer() -> None:
    requests = sarathi.zipf_requests(3000)
    total = requests.prompt_tokens + requests.output_tokens
    assert total.min() >= 1024 and total.max() <= 4096
    assert requests.prompt_tokens.sum() / requests.output_tokens.sum() == pytest.approx(10, rel=0.01)
    assert (total < 1536).mean() > (total > 3584).mean()


def test_chunks_beside_decodes_raise_throughput_and_cost_decodes_little() -> None:
    (gain,) = sarathi._throughput(sarathi._CASES[0])
    assert gain.simulated is not None and 1.1 < gain.simulated < 1.5
    alone, beside, ratio = (row.simulated for row in sarathi._decodes())
    assert alone is not None and beside is not None and ratio == pytest.approx(alone / beside)
    assert ratio > 4


def test_chunks_turn_pipelines_from_slower_into_faster_than_tensor_parallelism() -> None:
    found = [row.simulated for row in sarathi._pipelines(600)]
    assert all(each is not None and each > 1 for each in found)
