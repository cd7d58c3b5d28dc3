"""Import of aiconfigurator-core: units and meaning by hand in a tiny package; the installed one where there is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hardware_profiles import load_accelerator
from simulator.calibration.aiconfigurator import backends, import_report, import_tables, systems
from simulator.calibration.aiconfigurator.package import HARDWARE
from simulator.calibration.aiconfigurator.spellings import QUANTIZATION
from simulator.calibration.aiconfigurator.versions import newest, version_key
from simulator.calibration.schema import read_measurements, validate
from simulator.cli import main
from simulator.errors import InputError
from simulator.models.dtypes import WEIGHT_FORMATS

GEMM = {"kernel_source": "cublas", "gemm_dtype": "bfloat16", "m": 8, "n": 256, "k": 128, "latency": 0.5}
ATTENTION = {
    "kernel_source": "fa3",
    "batch_size": 2,
    "isl": 512,
    "step": 64,
    "num_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "beam_width": 1,
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "fp8",
    "window_size": 0,
    "latency": 2.0,
}
MLA = {
    "kernel_source": "flashmla",
    "batch_size": 4,
    "isl": 1,
    "step": 1023,
    "num_heads": 16,
    "tp_size": 8,
    "mla_dtype": "bfloat16",
    "kv_cache_dtype": "bfloat16",
    "latency": 0.25,
}
MOE = {
    "kernel_source": "triton",
    "moe_dtype": "fp8_block",
    "num_tokens": 64,
    "hidden_size": 7168,
    "inter_size": 2048,
    "topk": 8,
    "num_experts": 256,
    "moe_tp_size": 2,
    "moe_ep_size": 4,
    "distribution": "power_law_1.2",
    "latency": 3.0,
}
NCCL = {
    "kernel_source": "NCCL",
    "op_name": "all_gather",
    "nccl_dtype": "half",
    "num_gpus": 8,
    "message_size": 1000,
    "latency": 0.01,
}
DAY = "2026-08-09"
SYSTEM = "h200_sxm"


class Package:
    """A package of a few rows, laid out as the real one."""

    def __init__(self, root: Path) -> None:
        self.root = root / "aiconfigurator_core"
        (self.root / "systems").mkdir(parents=True)
        (root / "aiconfigurator_core-9.8.7.dist-info").mkdir()
        self.node(SYSTEM, 8)

    def node(self, system: str, gpus: int) -> None:
        (self.root / "systems" / f"{system}.yaml").write_text(f"node:\n  num_gpus_per_node: {gpus}\n")

    def current(self, text: str) -> None:
        (self.root / "systems" / "query_versions.yaml").write_text(text)

    def table(
        self, where: str, *rows: dict[str, Any], system: str = SYSTEM, day: str | None = DAY, meta: str | None = None
    ) -> None:
        """Write ``family/backend/version/name``."""
        path = self.root / "systems" / "data" / system / f"{where}_perf.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(list(rows)).to_parquet(path)
        dated = f"    collected_at: '{day}'\n" if day else ""
        said = meta or f"tables:\n  {path.stem}:\n    status: complete\n{dated}"
        (path.parent / "collection_meta.yaml").write_text(said)

    def rows(self, backend: str = "vllm", **options: Any) -> list[dict[str, Any]]:
        """Import, check against the schema, and return rows without what is empty."""
        table = import_tables(options.pop("system", SYSTEM), backend, root=self.root, **options)
        checked = validate(table, "imported")
        pd.testing.assert_frame_equal(checked, table)
        return [{name: value for name, value in row.items() if pd.notna(value)} for row in table.to_dict("records")]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def provenance(table: str, software: str = "vllm", version: str = "0.24.0") -> dict[str, Any]:
    return {
        "hardware": "h200",
        "software": software,
        "software_version": version,
        "date": DAY,
        "source": f"aiconfigurator-core 9.8.7 systems/data/h200_sxm/{table}_perf.parquet",
    }


# ------------------------------------------------------------------------------------------- tables, worked by hand


def test_gemm_in_seconds_with_power_and_source(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", {**GEMM, "power": 612.5})
    assert package.rows() == [
        {
            "operator": "gemm",
            "time_s": pytest.approx(0.5e-3),
            "tokens": 8,
            "n": 256,
            "k": 128,
            "kernel": "cublas",
            "dtype": "bf16",
            "weight_dtype": "bf16",
            "power_w": 612.5,
            **provenance("gemm/vllm/0.24.0/gemm"),
        }
    ]


@pytest.mark.parametrize(
    ("name", "dtype", "weights"),
    [
        ("fp8", "fp8", "fp8"),
        ("fp8_block", "fp8", "fp8_block"),
        ("nvfp4", "fp4", "fp4"),
        ("int4_wo", "bf16", "int4"),
        ("int8_wo", "bf16", "int8"),
        ("sq", "int8", "int8"),
    ],
)
def test_quantization_says_arithmetic_and_weights(package: Package, name: str, dtype: str, weights: str) -> None:
    package.table("gemm/vllm/0.24.0/gemm", {**GEMM, "gemm_dtype": name})
    (row,) = package.rows()
    assert (row["dtype"], row["weight_dtype"]) == (dtype, weights)


def test_every_weight_format_is_one_of_ours_or_block_scaled() -> None:
    assert {weights for _, weights in QUANTIZATION.values()} - {"fp8_block"} <= set(WEIGHT_FORMATS)


def test_quantization_with_a_scale_to_compute_is_both_tables_together(package: Package) -> None:
    shape = {"kernel_source": "ops", "m": 16, "k": 4096, "quant_dtype": "fp8"}
    package.table(
        "quantize/vllm/0.24.0/scale_matrix", {**shape, "latency": 0.002}, {**shape, "m": 32, "latency": 0.003}
    )
    package.table(
        "quantize/vllm/0.24.0/computescale",
        {**shape, "latency": 0.0005},
        {**shape, "m": 32, "latency": 0.0},
        meta=f"tables:\n  computescale_perf:\n    collected_at: '{DAY}'\n",
    )
    report = import_report(SYSTEM, "vllm", root=package.root)
    found = {(row.kernel, row.tokens): row.time_s for row in report.table.itertuples()}
    assert found == {
        ("static: ops", 16): pytest.approx(2.0e-6),
        ("static: ops", 32): pytest.approx(3.0e-6),
        ("dynamic: ops", 16): pytest.approx(2.5e-6),
    }
    assert (report.table["k"] == 4096).all() and (report.table["dtype"] == "fp8").all()
    assert {each.table: each.impossible for each in report.taken} == {"scale_matrix": 0, "computescale": 1}


def test_prefill_attention_has_chunk_cache_and_window(package: Package) -> None:
    package.table("attention/vllm/0.24.0/context_attention", ATTENTION, {**ATTENTION, "window_size": 128})
    whole, windowed = package.rows()
    assert whole == {
        "operator": "prefill_attention",
        "time_s": pytest.approx(2e-3),
        "sequences": 2,
        "new_tokens": 512,
        "cached_tokens": 64,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 128,
        "dtype": "bf16",
        "kv_dtype": "fp8",
        "kernel": "fa3",
        **provenance("attention/vllm/0.24.0/context_attention"),
    }
    assert windowed["window"] == 128


def test_a_table_without_a_window_column_attends_to_everything(package: Package) -> None:
    row = {name: value for name, value in ATTENTION.items() if name != "window_size"}
    package.table("attention/vllm/0.24.0/context_attention", row)
    assert "window" not in package.rows()[0]


def test_a_decode_attends_to_the_cache_and_to_itself(package: Package) -> None:
    package.table("attention/vllm/0.24.0/generation_attention", {**ATTENTION, "isl": 1, "step": 4095})
    (row,) = package.rows()
    assert (row["operator"], row["decodes"], row["decode_kv"]) == ("decode_attention", 2, 4096)
    assert "sequences" not in row


def test_beams_are_left_out_and_counted(package: Package) -> None:
    decode = {**ATTENTION, "isl": 1}
    package.table("attention/vllm/0.24.0/generation_attention", decode, {**decode, "beam_width": 4})
    report = import_report(SYSTEM, "vllm", root=package.root)
    assert len(report.table) == 1
    assert [each.rows for each in report.left_out if "beam_width 4" in each.why] == [1]


def test_latent_attention_kernels_have_the_heads_of_one_rank(package: Package) -> None:
    package.table("mla/sglang/0.5.14/generation_mla", MLA)
    package.table("mla/sglang/0.5.14/context_mla", {**MLA, "isl": 256, "step": 0})
    prefill, decode = sorted(package.rows("sglang"), key=lambda row: -len(row["operator"]))
    assert (prefill["operator"], prefill["sequences"], prefill["new_tokens"], prefill["cached_tokens"]) == (
        "mla_prefill",
        4,
        256,
        0,
    )
    assert (decode["operator"], decode["decodes"], decode["decode_kv"]) == ("mla_decode", 4, 1024)
    assert prefill["heads"] == decode["heads"] == 16
    assert decode["time_s"] == pytest.approx(0.25e-3)


def test_a_module_counts_its_new_token_in_step(package: Package) -> None:
    module = {**MLA, "gemm_type": "fp8_block", "model": "deepseek-ai/DeepSeek-V3", "step": 1024}
    package.table("mla/vllm/0.24.0/mla_generation_module", module)
    package.table("mla/vllm/0.24.0/mla_context_module", {**module, "isl": 512, "step": 128})
    rows = {row["operator"]: row for row in package.rows()}
    assert rows["mla_decode_module"]["decode_kv"] == 1024
    assert (rows["mla_prefill_module"]["new_tokens"], rows["mla_prefill_module"]["cached_tokens"]) == (512, 128)
    for row in rows.values():
        assert (row["dtype"], row["weight_dtype"], row["model"]) == ("bf16", "fp8_block", "deepseek-ai/DeepSeek-V3")


def test_products_around_the_latent(package: Package) -> None:
    product = {
        "kernel_source": "bmm",
        "op_name": "mla_gen_pre",
        "bmm_dtype": "fp8",
        "num_tokens": 32,
        "num_heads": 16,
        "latency": 0.004,
    }
    package.table("mla_bmm/vllm/0.24.0/mla_bmm", product, {**product, "op_name": "mla_gen_post", "latency": 0.005})
    found = {row["operator"]: (row["tokens"], row["heads"], row["time_s"]) for row in package.rows()}
    assert found == {
        "mla_absorb": (32, 16, pytest.approx(4e-6)),
        "mla_expand": (32, 16, pytest.approx(5e-6)),
    }


def test_experts_keep_undivided_sizes_and_the_tokens_of_the_group(package: Package) -> None:
    package.table("moe/vllm/0.24.0/moe", MOE)
    assert package.rows() == [
        {
            "operator": "experts",
            "time_s": pytest.approx(3e-3),
            "tokens": 64,
            "hidden_size": 7168,
            "intermediate_size": 2048,
            "num_experts": 256,
            "top_k": 8,
            "moe_tp": 2,
            "moe_ep": 4,
            "routing": "power_law_1.2",
            "kernel": "triton",
            "dtype": "fp8",
            "weight_dtype": "fp8_block",
            **provenance("moe/vllm/0.24.0/moe"),
        }
    ]


def test_copies_of_experts_are_told_by_the_kernel(package: Package) -> None:
    wide = {**MOE, "num_slots": 256}
    package.table("moe/trtllm/1.3.0rc10/wideep_moe", wide, {**wide, "num_slots": 288})
    assert [row["kernel"] for row in package.rows("trtllm")] == ["triton", "triton 288 slots"]
    assert all(row["num_experts"] == 256 for row in package.rows("trtllm"))


def test_collectives_are_in_bytes(package: Package) -> None:
    package.table("comm/nccl/2.29.2/nccl", NCCL, {**NCCL, "op_name": "alltoall", "nccl_dtype": "int8"})
    package.table(
        "comm/vllm/0.24.0/custom_allreduce",
        {
            "kernel_source": "vLLM_custom_graph",
            "op_name": "all_reduce",
            "allreduce_dtype": "bfloat16",
            "num_gpus": 4,
            "message_size": 4096,
            "latency": 0.006,
        },
    )
    rows = {row["operator"]: row for row in package.rows()}
    shapes = {name: (row["message_bytes"], row["ranks"], row["dtype"], row["kernel"]) for name, row in rows.items()}
    assert shapes == {
        "all_gather": (2000, 8, "fp16", "NCCL"),
        "all_to_all": (1000, 8, "int8", "NCCL"),
        "all_reduce": (8192, 4, "bf16", "vLLM_custom_graph"),
    }
    assert rows["all_reduce"]["time_s"] == pytest.approx(6e-6)
    assert {name: (row["software"], row["software_version"]) for name, row in rows.items()} == {
        "all_gather": ("nccl", "2.29.2"),
        "all_to_all": ("nccl", "2.29.2"),
        "all_reduce": ("vllm", "0.24.0"),
    }


def test_exchanges_are_microseconds(package: Package) -> None:
    exchange = {
        "comm_backend": "deepep_ht",
        "phase": "dispatch",
        "comm_dtype": "default",
        "ep_size": 16,
        "node_num": 2,
        "hidden_size": 7168,
        "topk": 8,
        "num_experts": 256,
        "num_tokens": 128,
        "sms": 20,
        "latency": 300.0,
    }
    ll = {**exchange, "comm_backend": "deepep_ll", "phase": "combine", "sms": 0, "comm_dtype": "bfloat16"}
    package.table("comm/vllm/0.24.0/moe_a2a", exchange, ll, {**exchange, "phase": "prepare"})
    dispatch, combine = package.rows()
    assert dispatch == {
        "operator": "moe_dispatch",
        "time_s": pytest.approx(300e-6),
        "tokens": 128,
        "hidden_size": 7168,
        "num_experts": 256,
        "top_k": 8,
        "ranks": 16,
        "nodes": 2,
        "kernel": "deepep_ht 20 SMs",
        **provenance("comm/vllm/0.24.0/moe_a2a"),
    }
    assert (combine["operator"], combine["kernel"], combine["dtype"]) == ("moe_combine", "deepep_ll", "bf16")
    report = import_report(SYSTEM, "vllm", root=package.root)
    assert [each.rows for each in report.left_out if "phase prepare" in each.why] == [1]


DEEPEP = {"node_num": 2, "hidden_size": 7168, "num_token": 16, "num_topk": 8, "num_experts": 256}


def test_deepep_rows_are_two_measurements(package: Package) -> None:
    package.table(
        "comm/sglang/0.5.12/wideep_deepep_ll", {**DEEPEP, "dispatch_avg_t_us": 20.0, "combine_avg_t_us": 30.0}
    )
    package.table(
        "comm/sglang/0.5.12/wideep_deepep_normal",
        {
            **DEEPEP,
            "dispatch_sms": 24,
            "dispatch_transmit_us": 40.0,
            "dispatch_notify_us": 5.0,
            "combine_sms": 12,
            "combine_transmit_us": 60.0,
            "combine_notify_us": 0.0,
        },
        meta=f"tables:\n  wideep_deepep_ll_perf:\n    collected_at: '{DAY}'\n",
    )
    rows = package.rows("sglang")
    assert {(row["operator"], row["kernel"]): row["time_s"] for row in rows} == {
        ("moe_dispatch", "deepep_ll"): pytest.approx(20e-6),
        ("moe_combine", "deepep_ll"): pytest.approx(30e-6),
        ("moe_dispatch", "deepep_ht 24 SMs"): pytest.approx(45e-6),
        ("moe_combine", "deepep_ht 12 SMs"): pytest.approx(60e-6),
    }
    assert {(row["tokens"], row["ranks"], row["nodes"]) for row in rows} == {(16, 16, 2)}


def test_deepep_on_nodes_of_four_is_left_out_as_its_ranks_are_unknown(package: Package) -> None:
    package.node("gb200", 4)
    package.table("gemm/sglang/0.5.14/gemm", GEMM, system="gb200")
    row = {**DEEPEP, "dispatch_avg_t_us": 20.0, "combine_avg_t_us": 30.0}
    package.table("comm/sglang/0.5.12/wideep_deepep_ll", row, system="gb200")
    report = import_report("gb200", "sglang", root=package.root)
    assert set(report.table["operator"]) == {"gemm"}
    assert any(each.what == "comm/wideep_deepep_ll" and "nodes of 8 GPUs" in each.why for each in report.left_out)


def test_nvlink_exchange_is_milliseconds(package: Package) -> None:
    row = {
        "kernel_source": "NVLinkTwoSided",
        "op_name": "alltoall_combine",
        "moe_dtype": "nvfp4",
        "num_tokens": 64,
        "hidden_size": 7168,
        "topk": 8,
        "num_experts": 256,
        "moe_ep_size": 32,
        "distribution": "balanced",
        "latency": 0.125,
    }
    low = {**row, "op_name": "alltoall_combine_low_precision", "latency": 0.0625}
    package.table("comm/trtllm/1.3.0rc10/trtllm_alltoall", row, low, {**row, "op_name": "alltoall_prepare"})
    found = {row["kernel"]: (row["operator"], row["time_s"], row["ranks"]) for row in package.rows("trtllm")}
    assert found == {
        "NVLinkTwoSided": ("moe_combine", pytest.approx(125e-6), 32),
        "NVLinkTwoSided low_precision": ("moe_combine", pytest.approx(62.5e-6), 32),
    }


# ------------------------------------------------------------------------------------------------- rows that are bad


def test_impossible_rows_are_dropped_and_counted(package: Package) -> None:
    bad = [{**GEMM, "m": m, "latency": latency} for m, latency in ((1, 0.0), (2, -1.0), (3, float("nan")))]
    package.table("gemm/vllm/0.24.0/gemm", GEMM, *bad, {**GEMM, "m": 4, "latency": float("inf")})
    report = import_report(SYSTEM, "vllm", root=package.root)
    assert (len(report.table), report.taken[0].rows, report.taken[0].impossible) == (1, 1, 4)


def test_repeated_shapes_have_their_median_and_other_kernels_their_own_row(package: Package) -> None:
    times = [{**GEMM, "latency": latency} for latency in (1.0, 9.0, 2.0)]
    other = {**GEMM, "kernel_source": "cutlass", "latency": 5.0}
    package.table("gemm/vllm/0.24.0/gemm", *times, other)
    report = import_report(SYSTEM, "vllm", root=package.root)
    assert dict(zip(report.table["kernel"], report.table["time_s"], strict=True)) == {
        "cublas": pytest.approx(2e-3),
        "cutlass": pytest.approx(5e-3),
    }
    assert report.taken[0].merged == 2


def test_an_unknown_datatype_is_left_out_and_counted(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM, {**GEMM, "gemm_dtype": "fp2"}, {**GEMM, "gemm_dtype": "fp2", "m": 9})
    report = import_report(SYSTEM, "vllm", root=package.root)
    assert len(report.table) == 1
    assert [(each.what, each.rows) for each in report.left_out if "fp2" in each.why] == [("gemm/gemm", 2)]


def test_a_table_that_lacks_a_column_says_which(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", {name: value for name, value in GEMM.items() if name != "k"})
    with pytest.raises(InputError, match=r"gemm_perf\.parquet: has no column 'k'"):
        package.rows()


def test_a_broken_table_is_an_input_error(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM)
    (package.root / "systems" / "data" / SYSTEM / "gemm/vllm/0.24.0/gemm_perf.parquet").write_text("no parquet")
    with pytest.raises(InputError, match=r"gemm_perf\.parquet: can't be read as Parquet"):
        package.rows()


# ------------------------------------------------------------------------------------------------ versions, families


def test_versions_are_ordered_as_releases_are() -> None:
    ordered = ["0.1.dev19262", "0.5.6", "0.5.6.post2", "0.5.10", "1.3.0rc9", "1.3.0rc20", "1.3.0", "1.10", "2025.1"]
    by_letter = sorted(ordered)
    assert by_letter != ordered
    assert sorted(by_letter, key=lambda name: version_key(name) or ((), 0, 0)) == ordered
    assert version_key("2.27") == version_key("2.27.0")
    assert newest(["0.9.0", "main", "0.10.0"]) == "0.10.0"
    assert newest(["0.9.0", "0.10.0"], at_most="0.9.5") == "0.9.0"
    assert newest(["0.9.0"], at_most="0.8") is None


@pytest.fixture
def releases(package: Package) -> Callable[..., set[str]]:
    for version in ("0.19.0", "0.24.0", "0.27.0"):
        package.table(f"gemm/vllm/{version}/gemm", GEMM)

    def of(**options: Any) -> set[str]:
        return {row["software_version"] for row in package.rows(**options)}

    return of


def test_a_table_is_taken_from_one_version_the_newest_wanted(releases: Callable[..., set[str]]) -> None:
    assert releases() == {"0.27.0"}
    assert releases(version="0.24.0") == {"0.24.0"}
    assert releases(version="0.23") == {"0.19.0"}
    with pytest.raises(InputError, match=r"no tables of vllm up to version 0\.18; there are versions 0\.19\.0, 0\.24"):
        releases(version="0.18")
    with pytest.raises(InputError, match="'newest' of vllm is no version"):
        releases(version="newest")


def test_by_default_the_version_that_the_package_calls_current(
    package: Package, releases: Callable[..., set[str]]
) -> None:
    package.current("defaults:\n  vllm: {current: '0.24.0'}\n")
    assert releases() == {"0.24.0"}
    assert releases(version="0.27.0") == {"0.27.0"}
    package.current("defaults:\n  vllm: {current: '0.24.0'}\noverrides:\n  h200_sxm:\n    vllm: {current: '0.19.0'}\n")
    assert releases() == {"0.19.0"}
    package.current("defaults:\n  vllm: {current: '0.18.0'}\n")
    assert releases() == {"0.27.0"}


def test_a_library_is_always_the_newest(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM)
    package.table("comm/nccl/2.9/nccl", NCCL)
    package.table("comm/nccl/2.29.2/nccl", NCCL)
    assert {row["software_version"] for row in package.rows(version="0.24.0")} == {"0.24.0", "2.29.2"}


def test_a_version_without_tables_of_the_engine_is_an_error_although_a_library_has_some(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM)
    package.table("comm/nccl/2.29.2/nccl", NCCL)
    with pytest.raises(InputError, match=r"no tables of vllm up to version 0\.1; there are versions 0\.24\.0"):
        package.rows(version="0.1")


def test_families_can_be_chosen(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM)
    package.table("moe/vllm/0.24.0/moe", MOE)
    assert {row["operator"] for row in package.rows(families=["moe"])} == {"experts"}
    with pytest.raises(InputError, match="unknown family of tables 'gem'; did you mean 'gemm'"):
        package.rows(families=["gem"])
    with pytest.raises(InputError, match="no tables of the families mla of vllm"):
        package.rows(families=["mla"])


def test_what_has_no_place_is_named_with_the_reason(package: Package) -> None:
    package.table("gemm/sglang/0.5.14/gemm", GEMM)
    package.table("kda/sglang/0.5.14/kda", GEMM)
    package.table("mlp/sglang/0.5.14/wideep_context_mlp", GEMM)
    package.table("moe/sglang/0.5.14/brand_new", GEMM)
    left = {each.what: each.why for each in import_report(SYSTEM, "sglang", root=package.root).left_out}
    assert "Kimi Delta Attention" in left["kda"]
    assert "MLP" in left["mlp/wideep_context_mlp"]
    assert "doesn't know" in left["moe/brand_new"]
    assert left["moe/moe"] == "not measured with sglang"
    assert "moe/wideep_moe" not in left  # TensorRT-LLM alone has it
    assert "comm/oneccl" not in left


def test_a_day_that_is_not_recorded_is_the_newest_that_is(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM, day=None)
    with pytest.raises(InputError, match="names no day of collection"):
        package.rows()
    package.table("moe/vllm/0.24.0/moe", MOE, day="2026-07-31")
    collections = (
        "tables:\n  moe_perf:\n    collections:\n    - collected_at: '2026-08-13'\n    - collected_at: 2026-08-02\n"
    )
    package.table("moe/sglang/0.5.14/moe", MOE, meta=collections)
    taken = {each.table: (each.date, each.dated) for each in import_report(SYSTEM, "vllm", root=package.root).taken}
    assert taken == {"gemm": ("2026-08-13", False), "moe": ("2026-07-31", True)}
    assert package.rows("sglang")[0]["date"] == "2026-08-13"


# ---------------------------------------------------------------------------------------------- systems and hardware


def test_systems_and_backends_are_those_with_tables(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM)
    package.table("comm/nccl/2.29.2/nccl", NCCL)
    (package.root / "systems" / "data" / "l4" / "gemm" / "vllm").mkdir(parents=True)
    assert systems(package.root) == [SYSTEM]
    assert backends(SYSTEM, package.root) == ["vllm"]
    with pytest.raises(InputError, match="no tables for the system 'h200'; did you mean 'h200_sxm'"):
        package.rows(system="h200")
    with pytest.raises(InputError, match="no tables of the backend 'vlm' for h200_sxm; did you mean 'vllm'"):
        package.rows("vlm")


def test_a_system_that_our_catalogue_lacks_keeps_its_name(package: Package) -> None:
    package.table("gemm/vllm/0.24.0/gemm", GEMM, system="z900_oam")
    assert package.rows(system="z900_oam")[0]["hardware"] == "z900_oam"


def test_hardware_names_are_those_of_our_catalogue() -> None:
    assert all(load_accelerator(name).name == name for name in HARDWARE.values())


def test_a_directory_that_is_no_package_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no systems/data"):
        import_tables(SYSTEM, "vllm", root=tmp_path)


# ------------------------------------------------------------------------------------------------------ command line


def simulate(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["calibrate", "import", "aiconfigurator", *args])
    return int(caught.value.code or 0)


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.calibration.aiconfigurator.package.find_spec", lambda name: None)
    assert simulate("--system", SYSTEM, "--backend", "vllm", "--out", str(tmp_path / "x.parquet")) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert 'pip install "llm-cluster-simulator[aiconfigurator]"' in said.err


def test_the_command_writes_measurements_and_says_what_they_are(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package.current("defaults:\n  vllm: {current: '0.24.0'}\n")
    package.table("gemm/vllm/0.24.0/gemm", {**GEMM, "power": 500.0}, {**GEMM, "latency": 0.0})
    package.table("kda/vllm/0.24.0/kda", GEMM)
    spec = type("Spec", (), {"submodule_search_locations": [str(package.root)]})
    monkeypatch.setattr("simulator.calibration.aiconfigurator.package.find_spec", lambda name: spec)
    out = tmp_path / "h200.parquet"
    assert simulate("--system", SYSTEM, "--backend", "vllm", "--out", str(out)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["gemm", "gemm", "1", "vllm", "0.24.0", DAY, "yes", "1", "impossible"]
    assert any("kda: linear attention" in line for line in said)
    assert said[-1] == f"1 measurements on h200 written to {out}"
    assert read_measurements(out)["time_s"].tolist() == [pytest.approx(0.5e-3)]


# --------------------------------------------------------------------------------------------- the installed package


installed = pytest.mark.skipif(
    find_spec("aiconfigurator_core") is None, reason="aiconfigurator-core is not installed (extra aiconfigurator)"
)


@installed
def test_the_installed_tables_are_read_without_importing_the_package(tmp_path: Path) -> None:
    """In a process of its own, as this one may have imported it."""
    code = (
        "import sys\n"
        "from simulator.calibration.aiconfigurator import import_tables\n"
        "table = import_tables('h200_sxm', 'vllm', families=['mla_bmm', 'comm'])\n"
        "assert len(table) > 500, len(table)\n"
        "assert not [name for name in sys.modules if name.startswith('aiconfigurator_core')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@installed
def test_every_installed_h200_table_fits_the_schema_and_physics() -> None:
    report = import_report("h200_sxm", "vllm")
    table = validate(report.table, "imported")
    assert {"gemm", "experts", "prefill_attention", "decode_attention", "all_reduce", "quantize"} <= set(
        table["operator"]
    )
    gpu = load_accelerator("h200")
    gemm = table[table["operator"] == "gemm"]
    for dtype, rows in gemm.groupby("dtype"):
        flops = 2.0 * rows["tokens"] * rows["n"] * rows["k"] / rows["time_s"]
        assert 0.5 < flops.max() / gpu.peak_flops[dtype] < 1.0  # in the wrong unit it would be 1000 times off
    reduce = table[(table["operator"] == "all_reduce") & (table["ranks"] == 8) & (table["message_bytes"] > 2**28)]
    bus = reduce["message_bytes"] * 2 * 7 / 8 / reduce["time_s"]
    # In-switch reduction sends less than a ring would; elements taken for bytes would halve or double it.
    assert (bus / gpu.scale_up_bandwidth).between(0.6, 1.2).all()
    exchange = table[(table["operator"] == "moe_dispatch") & (table["tokens"] == table["tokens"].max())]
    assert exchange["time_s"].between(1e-4, 1e-1).all()
    decode = table[(table["operator"] == "decode_attention") & table["window"].isna()]
    largest = decode[decode["decodes"] * decode["decode_kv"] > 4e6]
    width = largest["kv_dtype"].map({"bf16": 2, "fp8": 1}).astype(float)
    read = 2.0 * largest["decodes"] * largest["decode_kv"] * largest["kv_heads"] * largest["head_dim"] * width
    rate = (read / largest["time_s"]).max() / gpu.memory_bandwidth
    assert 0.6 < rate < 1.0


@installed
def test_installed_power_is_watts_of_the_accelerator() -> None:
    table = import_tables("b200_sxm", "vllm", version="0.22.0", families=["attention"])
    power = table["power_w"].dropna()
    assert len(power) == len(table)
    assert power.between(100, load_accelerator("b200").tdp_w * 1.05).all()
