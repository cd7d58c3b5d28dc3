"""CUDA graphs: an engine captures its forward pass for some numbers of tokens, and pads smaller steps to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.cost.kernels import Floats


@dataclass(frozen=True, slots=True)
class CudaGraphs:
    """Which steps are padded to how many tokens.

    What the dense layers compute for nobody costs time; attention, LM head and sampler take the real tokens. Steps
    beyond the largest graph run without one, unpadded. That launches then take longer is not modelled.

    Attributes
    ----------
    sizes
        Captured numbers of tokens, ascending; empty: nothing is padded.
    decode_only
        True where steps with prefill chunks run without a graph.
    """

    sizes: tuple[int, ...] = ()
    decode_only: bool = False

    def padded(self, tokens: Floats, chunks: bool) -> Floats:
        """Return what the dense layers compute for each number of tokens, in steps with or without chunks."""
        if not self.sizes or (chunks and self.decode_only):
            return tokens
        sizes = np.array(self.sizes, dtype=np.float64)
        at = np.minimum(np.searchsorted(sizes, tokens), len(sizes) - 1)
        return np.where((tokens > 0) & (tokens <= sizes[-1]), sizes[at], tokens)

    @property
    def source(self) -> str:
        """A line for the result."""
        if not self.sizes:
            return "CUDA graphs: no padding"
        which = "steps of decodes alone" if self.decode_only else "steps"
        return f"CUDA graphs: {which} of up to {self.sizes[-1]} tokens padded to the next of {len(self.sizes)} sizes"


NO_GRAPHS = CudaGraphs()
