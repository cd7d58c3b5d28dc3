"""The study's direction on few requests: each mechanism takes something off, all of them the most."""

from __future__ import annotations

from simulator.reproduce.studies import fastswitch


def test_the_mechanisms_shorten_stalls_and_tails_where_memory_is_short() -> None:
    runs = {name: fastswitch.described(9.0, 300, "random", name) for name in fastswitch.SYSTEMS}
    found = {name: fastswitch.figures(one) for name, one in runs.items()}
    stalls = [found[name]["stall"] for name in fastswitch.SYSTEMS]
    assert stalls == sorted(stalls, reverse=True) and stalls[-1] < 0.2 * stalls[0]
    assert found["fastswitch"]["ttft_s"] < found["vllm"]["ttft_s"]
    assert found["fastswitch"]["gap_s"] < found["vllm"]["gap_s"]
