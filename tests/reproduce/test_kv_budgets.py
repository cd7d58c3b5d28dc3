"""H2O and FastKV: directions and mechanisms of the quick studies, and bounds that arithmetic sets."""

from __future__ import annotations

from simulator.reproduce import Options, load_study


def _rows(name: str) -> dict[str, float]:
    rows = load_study(name).run(Options(quick=True))
    return {row.what: row.simulated for row in rows if row.simulated is not None}


def test_h2o_decodes_faster_in_the_same_batch() -> None:
    rows = _rows("h2o")
    gain = rows["24 requests: H2O over all KV"]
    decode = rows["24 requests, decode steps alone: H2O over all KV"]
    # Decodes read 819 of 2,048 to 2,303 tokens: at most 2.7 times as fast were there nothing else.
    assert 1.3 < decode < 2303 / 819
    assert 1.0 < gain < decode


def test_fastkv_computes_prompts_sooner_within_what_it_leaves_out() -> None:
    rows = _rows("fastkv")
    prefill = rows["32,768 prompt tokens: time to the first token, all over FastKV"]
    assert 1.5 < prefill < 1 / (0.5 + 0.5 * 0.2**2)
    assert rows["32,768 prompt tokens: time between tokens, all over FastKV"] > 1.1
