"""Layer profiles read to seconds, operators and shapes, and are refused in words."""

from __future__ import annotations

import pytest

from simulator.calibration.layer_profiles import read_layer_profile
from simulator.calibration.load import load_measurements
from simulator.errors import InputError
from tests.calibration.support import DENSE_US, write_profile


def test_microseconds_become_seconds_with_their_shape(tmp_path):
    table = read_layer_profile(write_profile(tmp_path))
    row = table[(table["operator"] == "qkv") & (table["tokens"] == 100)].iloc[0]
    assert row["time_s"] == pytest.approx(60e-6)
    assert (row["hardware"], row["model"], row["tp"]) == ("RTXPRO6000", "meta-llama/Llama-3.1-8B", 1)
    assert (row["software"], row["software_version"], row["date"]) == ("vllm", "0.19.0", "2026-04-24")
    joint = table[(table["operator"] == "attention") & (table["new_tokens"] == 64) & (table["decodes"] == 10)]
    assert set(zip(joint["cached_tokens"], joint["decode_kv"], strict=True)) == {
        (0, 16.0),
        (0, 1000.0),
        (512, 16.0),
        (512, 1000.0),
    }


def test_two_lengths_become_their_mean_and_their_variation(tmp_path):
    """One decode of 300 tokens and one of 100: mean 200, standard deviation 100."""
    table = read_layer_profile(write_profile(tmp_path))
    row = table[table["operator"] == "attention_skew"].iloc[0]
    assert (row["decode_kv"], row["decode_kv_cv"]) == (200.0, 0.5)
    assert row["time_s"] / row["baseline_s"] == pytest.approx(1.1)


def test_head_norms_that_repeat_those_of_one_rank_are_moved_to_the_tokens_they_stand_for(tmp_path):
    layers = {**DENSE_US, "qk_norm": 4}
    table = read_layer_profile(write_profile(tmp_path, tps=(1, 2), layers=layers))
    norms = table[(table["operator"] == "qk_norm") & (table["tp"] == 2)]
    assert norms["tokens"].tolist() == [2, 200]
    assert norms["time_s"].tolist() == pytest.approx([4e-6, 8e-6])
    assert norms["source"].str.contains("that of tp1 for 1/2 of the tokens").all()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("meta.yaml", "a: [", r"meta\.yaml: can't be read"),
        ("meta.yaml", "model: x", r"meta\.yaml: needs the key 'hardware'"),
        ("tp1/dense.csv", "layer,tokens\nqkv_proj,1\n", r"dense\.csv: has no column 'time_us'"),
        ("tp1/dense.csv", "layer,tokens,time_us\nqvk,1,2\n", r"dense\.csv: unknown layer 'qvk'; known: act_fn"),
        ("tp1/dense.csv", "layer,tokens,time_us\nqkv_proj,1,\n", r"dense\.csv, line 2: time_us is empty"),
        ("tp1/dense.csv", "layer,tokens,time_us\nqkv_proj,1,x\n", "column 'time_us' must hold numbers only"),
        ("tp1/dense.csv", "", r"dense\.csv: can't be read as CSV"),
        ("tp1/attention.csv", None, r"tp1: has no attention\.csv"),
    ],
)
def test_a_broken_profile_is_named(tmp_path, file, text, message):
    folder = write_profile(tmp_path)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_layer_profile(folder)


def test_paths_that_hold_no_profile(tmp_path):
    with pytest.raises(InputError, match="no such file or directory; give a Parquet file"):
        load_measurements(tmp_path / "none")
    write_profile(tmp_path / "gpu" / "model" / "bf16")
    with pytest.raises(InputError, match=r"has no meta\.yaml; .* did you mean .*gpu/model/bf16\?"):
        load_measurements(tmp_path / "gpu")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "meta.yaml").write_text((tmp_path / "gpu/model/bf16/meta.yaml").read_text())
    with pytest.raises(InputError, match="has no directory tp1"):
        load_measurements(tmp_path / "empty")
