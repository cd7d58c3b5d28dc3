"""Words and numbers on figures: quantities with their units, times in the unit that a person would use."""

from __future__ import annotations

import textwrap

from matplotlib.ticker import FuncFormatter

_WORDS = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "E2E",
    "kv": "KV",
    "gpu": "GPU",
    "gpus": "GPUs",
    "mfu": "MFU",
    "mbu": "MBU",
}
_RATES = {
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "prompt_tokens_per_s": "prompt tokens/s",
    "tokens_per_s": "tokens/s",
    "energy_j_per_output_token": "energy (J per output token)",
    "energy_j_per_token": "energy (J per token)",
    "gpu_hours": "GPU hours",
    "power_w": "power (W)",
    "mean_power_w": "mean power (W)",
}
_LONGEST = 40
"""Characters of a name on a figure; longer ones lose their middle."""


def quantity(name: str) -> str:
    """Return a column's name as an axis says it: ``ttft_s_p99`` is ``TTFT p99 (s)``.

    ``goodput_requests_per_s`` is ``goodput (requests/s)``; what isn't a name of that kind stays as it is.
    """
    for ending, said in _RATES.items():
        if name == ending:
            return said
        if name.endswith(f"_{ending}"):
            return f"{_spelt(name.removesuffix(f'_{ending}'))} ({said})"
    words = name.split("_")
    if "s" in words[1:] and "per" not in words:
        words.remove("s")
        return f"{_spelt('_'.join(words))} (s)"
    return shortened(_spelt(name))


def scaled(name: str, largest: float) -> tuple[str, float]:
    """Return what an axis says of a column whose largest value is this, and what values are multiplied by.

    Seconds below one are in milliseconds.
    """
    said = quantity(name)
    if said.endswith(" (s)") and abs(largest) < 1:
        return f"{said.removesuffix('(s)')}(ms)", 1e3
    return said, 1.0


def _spelt(name: str) -> str:
    return " ".join(_WORDS.get(word, word) for word in name.split("_") if word)


def shortened(name: str, longest: int = _LONGEST) -> str:
    """Return a name in one line of at most so many characters, its middle left out where it has more."""
    name = " ".join(name.split())
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"


def wrapped(text: str, width: int = 34) -> str:
    """Return an axis's words in lines that fit its length."""
    return textwrap.fill(text, width)


def percents() -> FuncFormatter:
    """Return what writes shares on an axis as percentages."""
    return FuncFormatter(lambda value, _: f"{100 * value:.4g} %")


def latency(seconds: float) -> str:
    """Return a latency as people write it, in ms below one second."""
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def time_unit(longest_s: float) -> tuple[str, float]:
    """Return the unit for times up to so many seconds, and what seconds are multiplied by: below 1 s ms."""
    return ("ms", 1e3) if longest_s < 1 else ("s", 1.0)


def clock_unit(longest_s: float) -> tuple[str, float]:
    """Return the unit for a run of so many seconds, and what seconds are multiplied by."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if longest_s >= 3 * length:
            return unit, 1 / length
    return "s", 1.0
