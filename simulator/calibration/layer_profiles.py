"""Reader of layer profiles: directories of kernel times of one transformer layer, as LLMServingSim 2.0 writes them.

``<gpu>/<model>/<dtype>/meta.yaml`` says how; ``.../tp<n>/`` holds ``dense.csv``, ``attention.csv``,
``per_sequence.csv`` and, where they were measured, ``moe.csv`` and ``skew.csv``. Times are microseconds of one call of
a module: ``layernorm`` is one of the layer's two norms, and ``qk_norm`` the mean of the query's and the key's
(the profiler divided by invocations; ``profiler/core/hooks/timings.py`` of that repository). The times of ``skew.csv``
are about three times those of ``attention.csv`` at the same shape, the number of ``measurement_iterations``: only
ratios of them are meant to be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from simulator.calibration.schema import frame, validate
from simulator.errors import InputError

DENSE_LAYERS = {
    "embedding": "embedding",
    "layernorm": "norm",
    "qk_norm": "qk_norm",
    "final_layernorm": "final_norm",
    "qkv_proj": "qkv",
    "rotary_emb": "rotary",
    "o_proj": "o_proj",
    "gate_up_proj": "gate_up",
    "act_fn": "activation",
    "down_proj": "down",
}
"""Operator of the schema by the layer's name in ``dense.csv``."""

_SEQUENCE_LAYERS = {"lm_head": "lm_head", "sampler": "sampler"}

_TABLES = ("dense.csv", "attention.csv", "per_sequence.csv")
_US = 1e-6


def is_layer_profile(path: str | Path) -> bool:
    """Tell whether a path is a directory with the ``meta.yaml`` of a layer profile."""
    return (Path(path) / "meta.yaml").is_file()


def read_layer_profile(path: str | Path) -> pd.DataFrame:
    """Read a layer profile of one GPU, model and datatype, with all its tensor parallel sizes.

    Parameters
    ----------
    path
        The directory that holds ``meta.yaml``.

    Returns
    -------
    pandas.DataFrame
        A table of `simulator.calibration.schema`.

    Raises
    ------
    InputError
        If a file is missing, unreadable or has other columns.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such directory; a layer profile is .../<gpu>/<model>/<dtype>")
    meta = _read_meta(folder / "meta.yaml")
    sizes = sorted(_tp_of(child) for child in folder.iterdir() if child.is_dir() and _tp_of(child))
    if not sizes:
        raise InputError(f"{folder}: has no directory tp1, tp2 ... with the tables of a layer profile")
    parts = [part for tp in sizes for part in _read_tp(folder / f"tp{tp}", tp, meta)]
    return validate(_share_head_norms(pd.concat(parts, ignore_index=True)), str(folder))


def _share_head_norms(table: pd.DataFrame) -> pd.DataFrame:
    """Put right the norms of queries and keys where a profile repeats those of one rank for several.

    A rank of ``tp`` normalises ``1 / tp`` of the heads, so it takes as long for ``tp * T`` tokens as one rank for
    ``T``. Profiles made before the profiler knew that hold the figures of one rank for all (its ``qwen3.yaml`` says
    so); their rows are moved to the tokens that they stand for, and their source says it.
    """
    norms = table["operator"] == "qk_norm"
    alone = table[norms & (table["tp"] == 1)].sort_values("tokens")
    for tp in sorted({int(value) for value in table["tp"]} - {1}):
        ranks = norms & (table["tp"] == tp)
        copy = table[ranks].sort_values("tokens")
        if len(alone) and np.array_equal(alone[["tokens", "time_s"]].to_numpy(), copy[["tokens", "time_s"]].to_numpy()):
            table.loc[ranks, "tokens"] *= tp
            table.loc[ranks, "source"] += f"; qk_norm not measured for tp{tp}: that of tp1 for 1/{tp} of the tokens"
    return table


def _tp_of(folder: Path) -> int:
    digits = folder.name.removeprefix("tp")
    return int(digits) if folder.name.startswith("tp") and digits.isdecimal() else 0


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: has no meta.yaml; a layer profile is .../<gpu>/<model>/<dtype>") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: can't be read ({' '.join(str(error).split())})") from None
    needed = ("hardware", "model", "variant", "profiled_at", "vllm_version")
    if not isinstance(meta, dict):
        raise InputError(f"{path}: must hold a mapping with the keys {', '.join(needed)}")
    for key in needed:
        if not isinstance(meta.get(key), str):
            raise InputError(f"{path}: needs the key {key!r}, a text; got {meta.get(key)!r}")
    return meta


def _read_tp(folder: Path, tp: int, meta: dict[str, Any]) -> list[pd.DataFrame]:
    for name in _TABLES:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: has no {name}; a layer profile needs {', '.join(_TABLES)}")
    common: Mapping[str, object] = {
        "hardware": meta["hardware"],
        "model": meta["model"],
        "tp": tp,
        "dtype": meta["variant"],
        "weight_dtype": meta["variant"],
        "kv_dtype": meta["variant"],
        "software": "vllm",
        "software_version": meta["vllm_version"],
        "date": meta["profiled_at"][:10],
        "source": "layer profile (profiler of LLMServingSim, eager mode)",
    }
    dense = _read_csv(folder / "dense.csv", ("layer", "tokens", "time_us"))
    rows = _read_csv(folder / "per_sequence.csv", ("layer", "sequences", "time_us"))
    joint = _read_csv(folder / "attention.csv", ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"))
    parts = [
        _part(
            common,
            dense,
            {"operator": _operators(dense, DENSE_LAYERS, folder / "dense.csv"), "tokens": dense["tokens"]},
        ),
        _part(
            common,
            rows,
            {
                "operator": _operators(rows, _SEQUENCE_LAYERS, folder / "per_sequence.csv"),
                "sequences": rows["sequences"],
            },
        ),
        _part(
            common,
            joint,
            {
                "operator": "attention",
                "new_tokens": joint["prefill_chunk"],
                "cached_tokens": joint["kv_prefill"],
                "decodes": joint["n_decode"],
                "decode_kv": joint["kv_decode"],
            },
        ),
    ]
    if (folder / "moe.csv").is_file():
        moe = _read_csv(folder / "moe.csv", ("tokens", "activated_experts", "time_us"))
        shape = {"operator": "moe", "tokens": moe["tokens"], "activated_experts": moe["activated_experts"]}
        parts.append(_part(common, moe, shape))
    if (folder / "skew.csv").is_file():
        parts.append(_skew(common, folder / "skew.csv"))
    return parts


def _skew(common: Mapping[str, object], path: Path) -> pd.DataFrame:
    """Read decodes of two lengths: ``nb`` of ``n`` attend to ``kv_big`` tokens, the others to ``kvs``."""
    names = ("n", "nb", "pc", "kp", "kvs", "kv_big", "kv_mean", "t_mean_us", "t_skew_us")
    table = _read_csv(path, names).rename(columns={"t_skew_us": "time_us"})
    n, big = table["n"].to_numpy(float), table["nb"].to_numpy(float)
    mean = (big * table["kv_big"].to_numpy(float) + (n - big) * table["kvs"].to_numpy(float)) / n
    deviation = np.sqrt(big * (n - big)) / n * (table["kv_big"] - table["kvs"]).abs().to_numpy(float)
    shape: Mapping[str, object] = {
        "operator": "attention_skew",
        "new_tokens": table["pc"],
        "cached_tokens": table["kp"],
        "decodes": table["n"],
        "decode_kv": mean,
        "decode_kv_cv": deviation / mean,
        "baseline_s": table["t_mean_us"].to_numpy(float) * _US,
    }
    return _part(common, table, shape)


def _part(common: Mapping[str, object], table: pd.DataFrame, shape: Mapping[str, object]) -> pd.DataFrame:
    plain = {key: value.to_numpy() if isinstance(value, pd.Series) else value for key, value in shape.items()}
    return frame({**common, **plain, "time_s": table["time_us"].to_numpy(float) * _US}, len(table))


def _operators(table: pd.DataFrame, known: dict[str, str], path: Path) -> pd.Series[str]:
    unknown = sorted(set(table["layer"]) - set(known))
    if unknown:
        raise InputError(f"{path}: unknown layer {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return table["layer"].map(known)


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # ValueError: not CSV, not text, nothing in it
        raise InputError(f"{path}: can't be read as CSV ({' '.join(str(error).split())})") from None
    for name in columns:
        if name not in table.columns:
            raise InputError(f"{path}: has no column {name!r}; columns of this table: {', '.join(columns)}")
        if name != "layer" and not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"{path}: column {name!r} must hold numbers only")
        if table[name].isna().any():
            row = int(np.flatnonzero(table[name].isna().to_numpy())[0]) + 2
            raise InputError(f"{path}, line {row}: {name} is empty")
    if table.empty:
        raise InputError(f"{path}: has no rows")
    return table[list(columns)]
