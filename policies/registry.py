"""Finds policies by name, entry point or file, describes them and makes them.

A *reference* to a policy is one of

- the name of a built-in policy: ``sarathi`` is the one class of that name in
  ``policies/batching/sarathi.py``;
- the name of an entry point in the group ``simulator.policies`` of any installed package, whose value is the
  class;
- ``path/to/file.py:ClassName``, a class in a file of the user's own.

Resolving a built-in name imports its one file and no other. Entry points are imported where their kind
matters: when names are listed, and when a name is looked up that one of them has too.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from policies import protocols
from policies.protocols import Policy, PolicyError

ENTRY_POINT_GROUP = "simulator.policies"

_BASES: dict[str, type[Policy]] = {
    cls.kind: cls for cls in vars(protocols).values() if isinstance(cls, type) and issubclass(cls, Policy) and cls.kind
}

KINDS: tuple[str, ...] = tuple(_BASES)
"""The kinds of policies, each a folder of this package and a base class in :mod:`policies.protocols`."""

_FILE_REFERENCE = re.compile(r"^(?P<path>.+\.py)(?::(?P<name>[^:/\\]*))?$")


class PolicyWarning(UserWarning):
    """A policy of another package can't be used and was left out; the others can."""


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of a policy, as its author declared it with :func:`policies.protocols.param`."""

    name: str
    type: str
    default: Any
    doc: str
    unit: str
    ge: float | None
    gt: float | None
    le: float | None
    choices: tuple[str, ...] | None
    objective: str = ""

    @property
    def bounds(self) -> str:
        """What the value may be, in words: ``"at least 0, at most 1"``; empty if anything of its type."""
        if self.choices:
            return " | ".join(self.choices)
        words = (("at least", self.ge), ("above", self.gt), ("at most", self.le))
        return ", ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)


@dataclass(frozen=True)
class PolicyInfo:
    """What there is to say about a policy: for ``simulate policies``, for help and for the documentation."""

    kind: str
    name: str
    summary: str
    doc: str
    source: str
    parameters: tuple[ParameterInfo, ...]
    origin: str


def resolve(kind: str, ref: str) -> type[Policy]:
    """Return the policy class that a reference means.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    ref
        A policy's name, or ``path/to/file.py:ClassName``.

    Raises
    ------
    PolicyError
        If there is none, two have the name, it can't be imported, or it is of another kind; the message is
        one line.
    """
    _check_kind(kind)
    in_file = _FILE_REFERENCE.match(ref)
    if in_file:
        return _from_file(kind, Path(in_file["path"]), in_file["name"] or "")
    built_in = ref in _built_in_names(kind)
    named = [(ep, _load_entry_point(ep)) for ep in _entry_points() if ep.name == ref]
    candidates = [(ep, got) for ep, got in named if isinstance(got, str) or got.kind == kind]
    if built_in + len(candidates) > 1:
        owners = ([f"the built-in one ({_built_in_origin(kind, ref)})"] if built_in else []) + [
            f"entry point {_entry_point_origin(ep)}" for ep, _ in candidates
        ]
        raise PolicyError(f"two {kind} policies are called {ref!r}: {' and '.join(owners)}")
    if built_in:
        return _from_package(kind, ref)
    if candidates:
        entry_point, got = candidates[0]
        if isinstance(got, str):
            raise PolicyError(f"policy {ref!r} of {_entry_point_origin(entry_point)} can't be used: {got}")
        return got
    elsewhere = [other for other in KINDS if ref in _built_in_names(other)] + [
        got.kind for _, got in named if not isinstance(got, str)
    ]
    if elsewhere:
        raise PolicyError(f"{ref!r} is a {elsewhere[0]} policy, not a {kind} policy; known: {_listed(names(kind))}")
    raise PolicyError(f"unknown {kind} policy {ref!r}{did_you_mean(ref, names(kind))}")


def make(kind: str, ref: str, params: Mapping[str, Any] | None = None) -> Policy:
    """Return an instance of the policy that a reference means, with these parameters.

    Raises
    ------
    PolicyError
        As `resolve` does, and for a parameter that the policy doesn't have or that is out of its bounds.
    """
    cls = resolve(kind, ref)
    known = [f.name for f in fields(cls)]
    for name in params or {}:
        if name not in known:
            has = f"its parameters: {_listed(known)}" if known else "it has none"
            near = _nearest(name, known)
            hint = f"did you mean {near!r}? " if near else ""
            raise PolicyError(f"unknown parameter {name!r} of {kind} policy {cls.name!r}; {hint}{has}")
    return cls(**(params or {}))


def names(kind: str) -> list[str]:
    """Return the names of all policies of a kind, sorted. Built-in ones are listed without being imported."""
    _check_kind(kind)
    others = [got.name for ep in _entry_points() if (got := _usable(ep)) is not None and got.kind == kind]
    return sorted({*_built_in_names(kind), *others})


def describe(kind: str) -> list[PolicyInfo]:
    """Return what there is to say about every policy of a kind, sorted by name. Imports them."""
    return [info(kind, name) for name in names(kind)]


def info(kind: str, ref: str) -> PolicyInfo:
    """Return what there is to say about one policy."""
    cls = resolve(kind, ref)
    doc = inspect.cleandoc(cls.__doc__ or "")
    return PolicyInfo(
        kind=kind,
        name=cls.name,
        summary=doc.split("\n", 1)[0],
        doc=doc,
        source=cls.source,
        parameters=tuple(_parameter(f) for f in fields(cls)),
        origin=_origin(kind, ref, cls),
    )


def base_of(kind: str) -> type[Policy]:
    """Return the base class of a kind of policies."""
    _check_kind(kind)
    return _BASES[kind]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, else the list of the known ones."""
    known = list(known)
    near = _nearest(word, known)
    return f"; did you mean {near!r}?" if near else f"; known: {_listed(known)}"


# ---------------------------------------------------------------------------------------------- built-in ones


def _check_kind(kind: str) -> None:
    if kind not in _BASES:
        raise PolicyError(f"unknown kind of policy {kind!r}{did_you_mean(kind, KINDS)}")


@cache
def _built_in_names(kind: str) -> tuple[str, ...]:
    folder = Path(__file__).parent / kind
    return tuple(sorted(p.stem.replace("_", "-") for p in folder.glob("*.py") if not p.stem.startswith("_")))


def _built_in_origin(kind: str, name: str) -> str:
    return f"policies/{kind}/{name.replace('-', '_')}.py"


def _from_package(kind: str, name: str) -> type[Policy]:
    module = importlib.import_module(f"policies.{kind}.{name.replace('-', '_')}")
    for cls in _policies_in(module):
        if cls.name == name and cls.kind == kind:
            return cls
    raise PolicyError(f"{_built_in_origin(kind, name)} has no {kind} policy called {name!r}")


# -------------------------------------------------------------------------------------------------- own files


def _from_file(kind: str, path: Path, name: str) -> type[Policy]:
    module = _load_file(path)
    classes = {cls.__name__: cls for cls in _policies_in(module)}
    has = f"it has {_listed(classes)}" if classes else "it has no policy class"
    if not name:
        raise PolicyError(f"policy file '{path}': say which class, as in {path.name}:ClassName; {has}")
    cls = classes.get(name) or vars(module).get(name)
    if cls is None:
        near = _nearest(name, classes)
        hint = f"did you mean {near!r}? " if near else ""
        raise PolicyError(f"policy file '{path}' has no class {name!r}; {hint}{has}")
    problem = _misfit(cls)
    if problem:
        raise PolicyError(f"policy file '{path}': {name} {problem}")
    assert issubclass(cls, Policy)
    if cls.kind != kind:
        raise PolicyError(f"policy file '{path}': {name} is a {cls.kind} policy, not a {kind} policy")
    return cls


def _load_file(path: Path) -> ModuleType:
    """Import a user's file under a name that depends on its path only, so that its policies pickle."""
    resolved = path.expanduser().resolve()
    try:
        source = resolved.read_bytes()
    except OSError as error:
        raise PolicyError(f"policy file '{path}' can't be read: {error.strerror or error}") from None
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    module_name = f"_policy_file_{re.sub(r'[^0-9A-Za-z_]', '_', resolved.stem)}_{digest}"
    content = hashlib.sha256(source).hexdigest()
    loaded = sys.modules.get(module_name)
    if loaded is not None and getattr(loaded, "__policy_content__", None) == content:
        return loaded
    spec = importlib.util.spec_from_file_location(module_name, resolved)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        exec(compile(source, str(resolved), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[module_name]
        where = _line_of(error, str(resolved))
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise PolicyError(f"policy file '{path}' failed to import{where}: {type(error).__name__}: {said}") from None
    module.__dict__["__policy_content__"] = content
    return module


def _line_of(error: BaseException, filename: str) -> str:
    """Return the line of the file at which it failed, as `` at line 3``; empty where unknown."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == filename else None
    trace = error.__traceback__
    while trace is not None and line is None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" at line {line}" if line else ""


# ----------------------------------------------------------------------------------------------- entry points


def _entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    return _entry_points_on(tuple(sys.path))


@lru_cache(maxsize=8)
def _entry_points_on(path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Return the group's entry points, sorted; found once for each search path, as that takes a while."""
    found = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    unique = {(ep.name, ep.value): ep for ep in found}
    return tuple(unique[key] for key in sorted(unique))


def _entry_point_origin(entry_point: importlib.metadata.EntryPoint) -> str:
    package = f" of package {entry_point.dist.name}" if entry_point.dist else ""
    return f"{entry_point.value}{package}"


def _load_entry_point(entry_point: importlib.metadata.EntryPoint) -> type[Policy] | str:
    """Return the class of an entry point, or what is wrong with it."""
    try:
        got: Any = entry_point.load()
    except Exception as error:  # whatever another package does wrong, the others stay usable
        return f"{type(error).__name__}: {error}"
    problem = _misfit(got)
    if problem:
        return f"{entry_point.value} {problem}"
    assert issubclass(got, Policy)
    if got.name != entry_point.name:
        return f"its class calls itself {got.name!r}"
    cls: type[Policy] = got
    return cls


def _usable(entry_point: importlib.metadata.EntryPoint) -> type[Policy] | None:
    got = _load_entry_point(entry_point)
    if isinstance(got, str):
        warnings.warn(
            f"policy {entry_point.name!r} of {_entry_point_origin(entry_point)} left out: {got}",
            PolicyWarning,
            stacklevel=3,
        )
        return None
    return got


# ---------------------------------------------------------------------------------------------------- helpers


def _policies_in(module: ModuleType) -> list[type[Policy]]:
    """Return the policy classes that a module defines itself, in the order of their names."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Policy) and value.__module__ == module.__name__
    ]
    return sorted(found, key=lambda cls: cls.__name__)


def _misfit(cls: object) -> str:
    """Return why an object isn't a usable policy class; empty if it is one."""
    if not (isinstance(cls, type) and issubclass(cls, Policy)):
        return "isn't a policy class (a subclass of one in policies.protocols)"
    if cls in _BASES.values() or cls is Policy:
        return "is a base class, not a policy"
    if cls.kind not in _BASES:
        return f"is of no known kind; subclass one of {_listed(base.__name__ for base in _BASES.values())}"
    if not cls.name:
        return "has no name; set the class attribute `name`"
    return ""


def _parameter(f: Any) -> ParameterInfo:
    meta = f.metadata
    default = None if f.default is MISSING else f.default
    objective = meta.get("objective", "")
    return ParameterInfo(
        name=f.name,
        type="float" if objective else type(default).__name__,
        default=default,
        doc=meta.get("doc", ""),
        unit=meta.get("unit", ""),
        ge=meta.get("ge"),
        gt=meta.get("gt"),
        le=meta.get("le"),
        choices=meta.get("choices"),
        objective=objective,
    )


def _origin(kind: str, ref: str, cls: type[Policy]) -> str:
    if cls.__module__.startswith(f"policies.{kind}."):
        return _built_in_origin(kind, cls.name)
    for entry_point in _entry_points():
        if entry_point.name == ref and _load_entry_point(entry_point) is cls:
            return f"entry point {_entry_point_origin(entry_point)}"
    return ref


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return near[0] if near else ""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "none"
