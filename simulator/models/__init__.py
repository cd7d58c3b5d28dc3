"""Models: their published shapes, and the exact counts that follow from them.

``load_model("llama-3.1-8b")`` gives the `ModelSpec` of a catalogue model, ``load_model("path/config.json")``
that of any Hugging Face configuration of a supported architecture.
"""

from simulator.models.dtypes import DTYPE_BYTES, WEIGHT_FORMATS, WeightFormat, canonical_dtype
from simulator.models.hf_config import SUPPORTED_ARCHITECTURES, from_hf_config
from simulator.models.loading import CatalogueEntry, list_models, load_entry, load_model
from simulator.models.spec import ExtraParameters, MLASpec, ModelSpec, MoESpec, Quantization
from simulator.models.weights import kv_bytes_per_token, weight_bytes, weight_bytes_by_family, weight_formats

__all__ = [
    "DTYPE_BYTES",
    "SUPPORTED_ARCHITECTURES",
    "WEIGHT_FORMATS",
    "CatalogueEntry",
    "ExtraParameters",
    "MLASpec",
    "MoESpec",
    "ModelSpec",
    "Quantization",
    "WeightFormat",
    "canonical_dtype",
    "from_hf_config",
    "kv_bytes_per_token",
    "list_models",
    "load_entry",
    "load_model",
    "weight_bytes",
    "weight_bytes_by_family",
    "weight_formats",
]
