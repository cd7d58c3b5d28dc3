"""The catalogue of published models, and models of one's own from a Hugging Face ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from simulator.errors import InputError, did_you_mean
from simulator.models.hf_config import from_hf_config
from simulator.models.spec import ModelSpec

_FOLDER = Path(__file__).parent / "catalogue"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REQUIRED = ("hf_id", "source", "parameters", "parameters_source", "config")
_OPTIONAL = ("aliases", "active_parameters", "active_parameters_source", "active_excludes_embedding", "note")


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One file of the catalogue: the published configuration and what was published about it.

    Attributes
    ----------
    name
        Catalogue name, the file's stem.
    hf_id, aliases
        Hugging Face repository, and other names that `load_model` takes.
    source
        Where the values of the configuration were read.
    parameters, parameters_source
        Published number of parameters, and where; `ModelSpec.parameter_count` is held against it in tests.
    active_parameters, active_parameters_source
        Published number that one token uses, where there is one, and where.
    active_excludes_embedding
        True where that figure leaves the input embedding out.
    config
        Shape-giving keys of ``config.json``, under their own names.
    """

    name: str
    hf_id: str
    aliases: tuple[str, ...]
    source: str
    parameters: float
    parameters_source: str
    active_parameters: float | None
    active_parameters_source: str
    active_excludes_embedding: bool
    config: Mapping[str, object]

    def spec(self) -> ModelSpec:
        """Return the model's specification."""
        where = f"simulator/models/catalogue/{self.name}.yaml"
        return replace(from_hf_config(self.config, self.name, where), hf_id=self.hf_id, source=self.source)


def list_models() -> list[str]:
    """Return the names in the catalogue, sorted; reads no file."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_model(name_or_path: str | Path) -> ModelSpec:
    """Return the specification of a model.

    Parameters
    ----------
    name_or_path
        A catalogue name or alias, such as the Hugging Face id, in any case; or the path of a Hugging Face
        ``config.json`` or of the folder that holds one.

    Returns
    -------
    ModelSpec
        From a path, named for the folder that holds ``config.json`` (for the file where it has another name).

    Raises
    ------
    InputError
        If there is no such model or file, or its configuration is not understood.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.lower().endswith(".json"):
        return _load_path(Path(name_or_path))
    entry = _find(text.lower())
    if entry is not None:
        return entry.spec()
    if (Path(text) / "config.json").is_file():
        return _load_path(Path(text))
    names = [*list_models(), *(alias for name in list_models() for alias in load_entry(name).aliases)]
    raise InputError(
        f"unknown model {text!r}{did_you_mean(text.lower(), names)} (or give the path of a Hugging Face config.json)"
    )


def _find(lowered: str) -> CatalogueEntry | None:
    """Find the entry with this name, id or alias; other files are parsed only if they mention it."""
    if (_FOLDER / f"{lowered}.yaml").is_file() and lowered in list_models():
        return load_entry(lowered)
    for path in sorted(_FOLDER.glob("*.yaml")):
        if lowered in path.read_text(encoding="utf-8").lower():
            entry = load_entry(path.stem)
            if lowered in (known.lower() for known in (entry.hf_id, *entry.aliases)):
                return entry
    return None


def _load_path(path: Path) -> ModelSpec:
    """Read a Hugging Face configuration from a file or from the folder that holds it."""
    if path.is_dir():
        path = path / "config.json"
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: must hold a mapping, got {type(mapping).__name__}")
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return from_hf_config(mapping, name, str(path))


@cache
def load_entry(name: str) -> CatalogueEntry:
    """Return the catalogue's entry of that exact name.

    Raises
    ------
    InputError
        If there is none, or its file has unknown or missing keys.
    """
    path = _FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"unknown model {name!r}{did_you_mean(name, list_models())}")
    raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    for key in raw:
        if key not in (*_REQUIRED, *_OPTIONAL):
            raise InputError(f"{path}: unknown key {key!r}{did_you_mean(key, (*_REQUIRED, *_OPTIONAL))}")
    for key in _REQUIRED:
        if key not in raw:
            raise InputError(f"{path}: key {key!r} is missing")
    active = raw.get("active_parameters")
    return CatalogueEntry(
        name=name,
        hf_id=raw["hf_id"],
        aliases=tuple(raw.get("aliases", ())),
        source=raw["source"],
        parameters=float(raw["parameters"]),
        parameters_source=raw["parameters_source"],
        active_parameters=None if active is None else float(active),
        active_parameters_source=raw.get("active_parameters_source", ""),
        active_excludes_embedding=raw.get("active_excludes_embedding", False),
        config=raw["config"],
    )
