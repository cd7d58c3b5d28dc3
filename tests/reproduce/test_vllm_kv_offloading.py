"""The study of vLLM's offloading connector, at its smallest: loads pay, and the more the longer the prompt."""

from __future__ import annotations

from simulator.reproduce.studies import vllm_kv_offloading as study


def test_a_load_pays_more_for_a_longer_prompt() -> None:
    times = {
        (n, choice): study.ttft_s(study.single(n, choice))
        for n in (1_000, 16_000)
        for choice in ("always-recompute", "always-load")
    }
    gains = [times[n, "always-recompute"] / times[n, "always-load"] for n in (1_000, 16_000)]
    assert 1.5 < gains[0] < gains[1]


def test_throughput_grows_with_the_share_in_host_memory() -> None:
    none, half, every = (study.tokens_per_s(study.many(60, share), 60) for share in (0.0, 0.5, 1.0))
    assert none < half < every
    assert every > 3 * none
