"""What names in measurements mean here: engines by version, models by checkpoint, accelerators by folder."""

from __future__ import annotations

import re

from hardware_profiles import Accelerator, list_accelerators, load_accelerator
from simulator.engines import load_engine
from simulator.errors import InputError
from simulator.models import ModelSpec, list_models, load_model

_V1_SINCE = (0, 8)
"""From this version on vLLM runs its v1 engine unless told otherwise (release notes of vLLM 0.8.0)."""

_QUANTISED = re.compile(r"-(FP8|NVFP4|FP4|MXFP4)$", re.IGNORECASE)


def engine_for(backend: str, version: str | None) -> tuple[str, str]:
    """Return the preset nearest to a server's version, and a note where they differ.

    vLLM before 0.8 is its first engine, from then on the v1 engine; of the other servers there is one preset.
    """
    numbers = _version(version)
    if backend == "vllm" and numbers and numbers < _V1_SINCE:
        preset = load_engine("vllm", "0.6")
    elif backend == "vllm":
        preset = load_engine("vllm", "0.19")
    else:
        preset = load_engine(backend)
    same = version is not None and (version == preset.version or version.startswith(f"{preset.version}."))
    said = f"server {backend} {version or '(version not recorded)'}"
    return preset.label, said if same else f"{said}, simulated as {preset.label}"


def _version(text: str | None) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text or "")
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def model_for(checkpoint: str) -> ModelSpec:
    """Return the model of a checkpoint; a quantised copy of a known model (``...-FP8``, ``...-NVFP4``) is that model.

    Raises
    ------
    InputError
        If the catalogue has no such model.
    """
    try:
        return load_model(checkpoint)
    except InputError:
        plain = _QUANTISED.sub("", checkpoint)
        base = plain.rsplit("/", 1)[-1].lower()
        for name in list_models():
            if plain != checkpoint and name == base:
                return load_model(name)
        from simulator.models.loading import load_entry

        for name in list_models():
            entry = load_entry(name)
            known = {other.rsplit("/", 1)[-1].lower() for other in (entry.hf_id, *entry.aliases)}
            if plain != checkpoint and base in known:
                return load_model(name)
        raise


def accelerator_for(name: str) -> Accelerator:
    """Return the accelerator that a name begins with: ``rtxpro6000_llama-3.1-8b``, ``h200_sxm``, ``RTX4090``.

    Raises
    ------
    InputError
        If none does.
    """
    wanted = _plain(name)
    best: tuple[int, Accelerator] | None = None
    for known in list_accelerators():
        accelerator = load_accelerator(known)
        for alias in (accelerator.name, *accelerator.aliases):
            plain = _plain(alias)
            if wanted.startswith(plain) and (best is None or len(plain) > best[0]):
                best = len(plain), accelerator
    if best is None:
        raise InputError(f"{name!r} begins with no accelerator of the catalogue (see: simulate profiles)")
    return best[1]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def same_shapes(one: ModelSpec, other: ModelSpec) -> bool:
    """Tell whether two models have the same layers, so that kernel times of one are those of the other."""
    names = ("hidden_size", "num_layers", "vocab_size", "num_heads", "num_kv_heads", "head_dim", "intermediate_size")
    return all(getattr(one, name) == getattr(other, name) for name in (*names, "gated_mlp", "moe", "mla"))
