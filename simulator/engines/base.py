"""What an engine preset is: defaults as a function of the GPU, and flags as names for keys of a scenario's pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from simulator.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from hardware_profiles import Accelerator

KVMemory = Literal["profiled", "static", "free"]
"""What the share of memory means. ``profiled``: weights, the peak of a profiling run and KV together (vLLM).
``static``: weights and KV, activations coming on top (SGLang). ``free``: KV, of what weights and activations leave
(TensorRT-LLM)."""

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True)
class EngineDefaults:
    """Limits that an engine has where nobody sets them, keys as in ``cluster.pools[].engine``.

    Attributes
    ----------
    limits
        By key.
    policy_params
        Parameters of the batching policy that follow from the engine's defaults.
    notes
        Sentences on what the engine would do that isn't modelled, for the result.
    """

    limits: Mapping[str, Any]
    policy_params: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Flag:
    """One flag of an engine.

    Attributes
    ----------
    names
        As the engine writes it, dashes in front.
    key
        Dotted key within a pool (``engine.max_num_seqs``); empty: accepted, and changes nothing here.
    type
        Of its value; ``switch`` takes none.
    value
        What a switch sets.
    values
        What each of the engine's words becomes; another word is refused as not modelled.
    """

    names: tuple[str, ...]
    key: str
    type: Literal["int", "float", "text", "switch"] = "int"
    value: Any = True
    values: Mapping[str, Any] | None = None

    def parse(self, text: Any) -> Any:
        """Return the value of the key for what stands after the flag (or beside it in a scenario)."""
        if self.type == "switch":
            given = text if isinstance(text, bool) else _boolean(self.names[0], text)
            if given:
                return self.value
            if isinstance(self.value, bool):
                return not self.value
            return None
        if self.values is not None:
            word = str(text)
            if word not in self.values:
                options = ", ".join(sorted(self.values))
                raise InputError(f"{self.names[0]} {word} is not modelled; modelled: {options}")
            return self.values[word]
        if self.type == "text":
            return str(text)
        if isinstance(text, int | float) and not isinstance(text, bool):
            return text
        number = _human_number(str(text)) if self.type == "int" else _number(str(text))
        if number is None:
            kind = "a whole number" if self.type == "int" else "a number"
            raise InputError(f"{self.names[0]} must be {kind}, got {text!r}")
        return number


@dataclass(frozen=True)
class Engine:
    """One engine in one version.

    Attributes
    ----------
    policy
        Batching policy that models its scheduler.
    source
        Where the defaults were read: project, version, file and function.
    defaults
        Limits for an accelerator, tensor parallel ranks and pipeline stages.
    flags
        Flags that mean something here.
    not_modelled
        Flags that the engine has and the simulator doesn't model: refused, by name.
    kv_memory
        What its share of memory means.
    cuda_graph_sizes
        Token counts that it captures graphs for and pads to, for the most requests that may run; () where it pads
        nothing.
    balancing
        Policy that chooses the attention data parallel rank of a request.
    data_parallel
        Limits of one rank in place of ``defaults``, for an accelerator, all GPUs of a stage and attention data parallel
        ranks; None: a rank has those of an engine without them.
    together
        Flags that mean here what they do only beside another one.
    shared_beside
        Tokens of a step of decodes alone up to which it computes shared experts beside the routed ones, on another
        stream or in the same kernels; 0: never.
    """

    name: str
    version: str
    policy: str
    source: str
    defaults: Callable[[Accelerator, int, int], EngineDefaults]
    flags: tuple[Flag, ...]
    not_modelled: frozenset[str]
    kv_memory: KVMemory = "profiled"
    cuda_graph_sizes: Callable[[int], tuple[int, ...]] = lambda _: ()
    balancing: str = "round-robin"
    data_parallel: Callable[[Accelerator, int, int], EngineDefaults] | None = None
    together: Mapping[str, str] = field(default_factory=dict)
    shared_beside: int = 0

    @property
    def label(self) -> str:
        """Name and version as users write them."""
        return f"{self.name}@{self.version}"

    def flag_names(self) -> list[str]:
        """Every flag that means something here, sorted."""
        return sorted(name for flag in self.flags for name in flag.names)

    def find(self, name: str) -> Flag | None:
        """Return the flag of that name; underscores and dashes inside are the same, as engines have it."""
        wanted = _normal(name)
        for flag in self.flags:
            if any(_normal(own) == wanted for own in flag.names):
                return flag
        return None

    def refuse(self, name: str) -> InputError:
        """Return the error that says why a flag can't be used."""
        if _normal(name) in {_normal(known) for known in self.not_modelled}:
            return InputError(f"{name} is a flag of {self.label} that is not modelled")
        known = [*self.flag_names(), *self.not_modelled]
        near = did_you_mean(name, known)
        hint = near if near.startswith("; did") else f"; modelled: {', '.join(self.flag_names())}"
        return InputError(f"{name} is not a flag of {self.label}{hint}")

    def translate_args(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return dotted keys within a pool, and their values, for flags by name (dashes in front or not).

        Raises
        ------
        InputError
            For a flag that is unknown or not modelled, or a value that it can't have.
        """
        found: dict[str, Any] = {}
        if len(args) > 1:
            self._check_together(args)
        for name, value in args.items():
            dashed = name if name.startswith("-") else f"--{name}"
            flag = self.find(dashed)
            if flag is None and not name.startswith("-"):
                flag = self.find(f"-{name}")
            if flag is None:
                raise self.refuse(dashed)
            if flag.key:
                found[flag.key] = flag.parse(value)
            else:
                flag.parse(value)
        return found

    def take_args(self, tokens: Sequence[str], own: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
        """Split command-line tokens into this engine's flags and the rest.

        Parameters
        ----------
        tokens
            What the user wrote.
        own
            Names of the options of the command itself, which go before.

        Returns
        -------
        tuple
            Texts by flag, and what is left, in its order.

        Raises
        ------
        InputError
            For a flag of the engine that is not modelled, or one without its value.
        """
        taken: dict[str, Any] = {}
        rest: list[str] = []
        queue = list(tokens)
        hidden = {_normal(name) for name in self.not_modelled}
        while queue:
            token = queue.pop(0)
            if token == "--":
                rest += [token, *queue]
                break
            name, has_value, value = token.partition("=")
            flag = self.find(name) if token.startswith("-") and name not in own else None
            if flag is None:
                if token.startswith("-") and name not in own and _normal(name) in hidden:
                    raise self.refuse(name)
                rest.append(token)
            elif flag.type == "switch":
                taken[name] = value if has_value else True
            elif has_value:
                taken[name] = value
            elif queue:
                taken[name] = queue.pop(0)
            else:
                raise InputError(f"{name} needs a value")
        self._check_together(taken)
        return taken, rest

    def _check_together(self, args: Mapping[str, Any]) -> None:
        """Raise for a flag without the one that it needs beside it."""
        given = {flag.names[0] for name in args for flag in [self.find(f"--{name.lstrip('-')}")] if flag is not None}
        for name, other in self.together.items():
            if name in given and other not in given:
                raise InputError(f"{name} without {other} makes whole replicas: set 'replicas' of the pool instead")


def switch(name: str, key: str) -> tuple[Flag, Flag]:
    """Return ``--name`` and ``--no-name``, which set a key to true and false."""
    return Flag((f"--{name}",), key, "switch"), Flag((f"--no-{name}",), key, "switch", value=False)


def names(text: str) -> frozenset[str]:
    """Return the flags in a text, dashes put in front."""
    return frozenset(f"--{name}" for name in text.split())


def _normal(name: str) -> str:
    stripped = name.lstrip("-")
    return "-" * (len(name) - len(stripped)) + stripped.replace("_", "-")


def _boolean(name: str, text: Any) -> bool:
    word = str(text).lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InputError(f"{name} must be true or false, got {text!r}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _human_number(text: str) -> int | None:
    """Read ``8192``, ``8k`` (8000) and ``8K`` (8192), as vLLM's and SGLang's parsers do."""
    scales = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
    scale = 1
    if text and text[-1] in scales:
        text, scale = text[:-1], scales[text[-1]]
    try:
        number = float(text) * scale if scale > 1 else int(text)
    except ValueError:
        return None
    return int(number)
