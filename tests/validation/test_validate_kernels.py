"""Kernel tables at held-out points, and the two bounds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from hardware_profiles import list_accelerators, load_accelerator
from simulator.models import load_model
from simulator.validation import kernels, validate
from simulator.validation.judging import kernel_verdicts
from simulator.validation.rows import Row, to_frame
from tests.calibration.support import attention_us, write_profile

GPUS = "RTXPRO6000/meta-llama/Llama-3.1-8B/bf16"


def test_bytes_and_operations_of_the_bounds_by_hand() -> None:
    """Llama-3.1-8B: 8,030,261,248 parameters, 525,336,576 of them the input embedding; 32 layers of 8 x 128 KV."""
    model = load_model("llama-3.1-8b")
    kv = 2 * 32 * 8 * 128 * 2 * 1024
    assert kernels.decode_bytes(model, "bf16") == 2 * (8_030_261_248 - 525_336_576) + kv
    body = 8_030_261_248 - 2 * 525_336_576
    attention = 4 * 32 * 128 * 32 * (8192 * 8193 // 2)
    assert kernels.prefill_flops(model) == pytest.approx(2 * body * 8192 + attention + 2 * 525_336_576, rel=1e-12)


def test_every_accelerator_has_both_bounds_and_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "layer_profiles").mkdir()
    frame = validate(tmp_path, only="kernels", workers=1)
    decode = frame[frame["metric"] == kernels.DECODE_METRIC].set_index("case")
    missing = set(frame.loc[frame["metric"] == "not_run", "case"])
    assert set(decode.index) | missing == set(list_accelerators())
    assert missing <= {name for name in list_accelerators() if load_accelerator(name).memory_bytes < 17e9}
    assert (decode["error"] > 0).all()  # nobody reads weights faster than the memory gives them
    prefill = frame[frame["metric"] == kernels.PREFILL_METRIC]
    assert len(prefill) == len(decode)
    assert (prefill["error"] < 0).all()


def test_held_out_points_of_a_profile_are_rows(tmp_path: Path) -> None:
    """Interpolation of times that are linear in each axis is exact; corners that were kept out are not met."""
    folder = write_profile(tmp_path / "layer_profiles" / GPUS, skew=False)
    chunks, decodes = list(product((16, 32, 64), (0, 256, 512))), list(product((1, 5, 10), (16, 250, 500, 1000)))
    shapes = [(*chunk, *decode) for chunk in [(0, 0), *chunks] for decode in [(0, 0), *decodes]][1:]
    lines = [",".join(map(str, (*shape, attention_us(*shape)))) for shape in shapes]
    header = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
    (folder / "tp1" / "attention.csv").write_text("\n".join([header, *lines]) + "\n")
    frame = validate(tmp_path, only="kernels", workers=1)
    rows = frame[frame["case"] == f"{GPUS}/tp1"]
    assert "kernel_attention_mixed_median" in set(rows["metric"])
    assert "kernel_attention_mixed_p90" in set(rows["metric"])
    assert not rows["metric"].str.contains("ignored").any()
    assert rows["measured"].isna().all()
    mixed = rows.set_index("metric")["error"]
    assert mixed["kernel_attention_mixed_median"] < 1e-9  # the made-up times are linear in each axis
    assert mixed["kernel_attention_mixed_p90"] > 0.01  # corners of the grid that were held out
    assert rows["costs"].str.startswith("measured: vllm 0.19.0").all()
    assert set(frame.loc[frame["case"] == "RTXPRO6000/llama-3.1-8b/measured", "metric"]) == {
        kernels.DECODE_METRIC,
        kernels.PREFILL_METRIC,
    }


def test_verdicts_on_kernels() -> None:
    def row(case: str, metric: str, error: float, costs: str) -> Row:
        return Row("kernels", case, metric, None, None, error, None, costs)

    slow, fast = "measured: x | memory 1.6 TB/s | bf16", "measured: x | memory 4.8 TB/s | bf16"
    frame = to_frame(
        [
            row("table", "kernel_qkv_median", 0.06, "measured: x"),
            row("table", "kernel_qkv_p90", 0.14, "measured: x"),
            row("far", kernels.DECODE_METRIC, 0.6, slow),
            row("wide", kernels.DECODE_METRIC, 0.6, fast),
            row("guess", kernels.DECODE_METRIC, 0.6, "estimate, not measured | memory 1.6 TB/s | bf16"),
            row("impossible", kernels.DECODE_METRIC, -0.01, fast),
            row("above", kernels.PREFILL_METRIC, 0.01, slow),
            row("below", kernels.PREFILL_METRIC, -0.4, slow),
        ]
    )
    words = {f"{each.subject} {each.metric.rpartition('_')[2]}": each.word for each in kernel_verdicts(frame)}
    failed = {name for name, word in words.items() if word == "fail"}
    assert failed == {"table median", "far bound", "impossible bound", "above peak"}
    assert len(words) == 8
