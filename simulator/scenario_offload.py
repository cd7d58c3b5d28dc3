"""The scenario's part on offloading: where weights, KV and activations of a pool live, and over what they move."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from simulator.scenario_base import Count, Part

_Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_Size = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class Tiers(Part):
    """Shares of something on the GPU, in host memory and on disk; they add up to 1."""

    gpu: _Part = 0.0
    """In the GPU's memory."""
    cpu: _Part = 0.0
    """In host memory."""
    disk: _Part = 0.0
    """On disk."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.gpu + self.cpu + self.disk
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"gpu, cpu and disk must add up to 1, got {total:g}")
        return self


_ON_GPU = Tiers(gpu=1.0)


class PlacementSearch(Part):
    """A linear programme finds the shares that serve a block of equal requests soonest (FlexGen, section 4.3)."""

    requests: Count
    """Requests of the block."""
    prompt_tokens: Count
    """Tokens of each prompt."""
    output_tokens: Count
    """Output tokens of each."""


class Offload(Part):
    """What is kept off the GPU, and fetched layer by layer while others are computed."""

    weights: Tiers = _ON_GPU
    """Where the weights live."""
    kv: Tiers = _ON_GPU
    """Where the KV cache lives."""
    activations: Tiers = _ON_GPU
    """Where the hidden states of a block live between two layers."""
    placement: PlacementSearch | None = None
    """Find the three shares, which are left out then."""
    overlap: bool = True
    """Transfers go on while layers are computed; false: one after the other."""
    host_attention: bool = False
    """Decodes attend to KV that is off the GPU on the host's processors, and it isn't loaded for them."""
    gpu_batches: Count | None = None
    """Parts that a block is computed in, one after the other, layer by layer; left out: the batching policy's
    ``num_gpu_batches``, else 1."""
    host_memory_gib: _Size | None = None
    """Host memory for one replica, GiB; left out: 90 % of its GPUs' share of the node's."""
    disk_gib: _Size | None = None
    """Disk for one replica, GiB; needed where something lives there."""
    disk_read_gb_per_s: _Rate | None = None
    """Rate at which the disk is read, 10^9 bytes/s; likewise."""
    disk_write_gb_per_s: _Rate | None = None
    """Rate at which it is written, likewise."""
    host_attention_gb_per_s: _Rate | None = None
    """KV that the host's processors attend to in a second, 10^9 bytes; left out: 12.3, as FlexGen fitted it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        shares = ("weights", "kv", "activations")
        if self.placement is not None:
            if given := [name for name in shares if name in self.model_fields_set and getattr(self, name) != _ON_GPU]:
                raise ValueError(f"'placement' finds the shares; leave {' and '.join(given)} out, or 'placement'")
            return self
        disk = ("disk_gib", "disk_read_gb_per_s", "disk_write_gb_per_s")
        on_disk = [name for name in shares if getattr(self, name).disk]
        if on_disk and (lacking := [name for name in disk if getattr(self, name) is None]):
            raise ValueError(f"{' and '.join(on_disk)} on disk need {', '.join(lacking)}")
        return self
