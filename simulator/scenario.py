"""The scenario: one YAML that says everything about a run, checked as a whole.

Every key has a default that works, so that a trace alone is a scenario. A key that is left out, ``null`` or ``auto``
is decided when the run is built (`simulator.resolve`): from the engine's documented defaults, the batching policy's,
the model's or the accelerator's figures. The result stores the scenario with all of them written out.

Unknown keys are errors, but for ``preset``, which names a file of keys that lie under the others (`simulator.presets`)
and is gone once they are put together. Relative paths in a scenario file are relative to that file, elsewhere to the
working directory.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from simulator import scenario_yaml
from simulator.scenario_admission import AdmissionRef
from simulator.scenario_base import AUTO, Count, Duration, Factor, Part, PolicyRef, Seconds, Share, Text
from simulator.scenario_clients import Clients
from simulator.scenario_disaggregation import Disaggregation, Role
from simulator.scenario_errors import Path as KeyPath
from simulator.scenario_errors import Problem, ScenarioError, dotted, problems_of
from simulator.scenario_experts import BalancingRef, Experts, PrefillBalance
from simulator.scenario_faults import Faults
from simulator.scenario_keys import anchor_paths, set_key
from simulator.scenario_kv_budget import KVBudgetRef
from simulator.scenario_kv_tiers import KVTiers
from simulator.scenario_model_swap import ModelSwap
from simulator.scenario_network import NetworkPart
from simulator.scenario_offload import Offload
from simulator.scenario_power import PoolPower, Power
from simulator.scenario_rescheduling import MigrationPart, ReschedulerRef
from simulator.scenario_scaling import ScalerRef, StartUp
from simulator.scenario_swap import Swap

SCHEMA_VERSION = 1

# ---------------------------------------------------------------------------------------------------- references


class BatchingRef(PolicyRef):
    """The policy that composes each engine step."""

    kind: ClassVar[str] = "batching"


class QueueingRef(PolicyRef):
    """The policy that orders a replica's waiting queue."""

    kind: ClassVar[str] = "queueing"


class KVEvictionRef(PolicyRef):
    """The policy that chooses which cached blocks go first."""

    kind: ClassVar[str] = "kv_eviction"


class RouterRef(PolicyRef):
    """The policy that chooses the replica of an arriving request."""

    kind: ClassVar[str] = "routing"


# ------------------------------------------------------------------------------------------------------ workload


class Generator(Part):
    """A workload model that makes a trace."""

    kind: Text
    """Which one; see the documentation of workloads."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters by name."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Loop(Part):
    """When requests are sent: ``open``, ``closed`` or ``sessions``; ``clients`` alone means ``closed``."""

    kind: Literal["open", "closed", "sessions"] = "open"
    """``open``: at the trace's arrival times, whatever the servers do. ``closed``: each of ``clients`` sends the
    next row of the trace when its last request ended. ``sessions``: first turns at their arrival times, each later
    turn when the turn before it ended and its user has thought."""
    clients: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Closed loop: requests in flight."""
    think_time_s: Seconds = 0.0
    """Closed loop: seconds between the end of a request and its client's next one."""
    stagger_s: Seconds = 0.0
    """Closed loop: client i starts at i times this many seconds."""

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and "kind" not in value and value.get("clients") is not None:
            return {"kind": "closed", **value}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "closed" and self.clients is None:
            raise ValueError("a closed loop needs 'clients', the number of requests in flight")
        if self.kind != "closed":
            for name in ("clients", "think_time_s", "stagger_s"):
                if getattr(self, name):
                    raise ValueError(f"{name!r} is for a closed loop only, and the loop is {self.kind!r}")
        return self


class Resample(Part):
    """Other days like the recorded one: blocks of time drawn from near their place, anew with every seed."""

    block_s: Duration = 30.0
    """Length of a block, seconds: bursts shorter than that stay as they were recorded."""
    within_s: Duration = 300.0
    """How far from its place a block may come, seconds: the rate's course over longer spans stays."""


class Workload(Part):
    """The requests: a trace or a generator, which part of it, how fast, and when they are sent."""

    trace: Text | None = None
    """Trace file, or ``bundled:NAME``."""
    generator: Generator | None = None
    """Workload model, in place of a trace."""
    format: Text | None = None
    """Format of the trace; left out: known by its header."""
    on_bad_row: Literal["fail", "skip", "stop"] = "fail"
    """A bad row: an error; left out, counted and noted; or the end of the trace."""
    sort: bool = False
    """Sort the rows by arrival; without it an unsorted trace is an error."""
    ties: Literal["keep", "uniform"] | None = None
    """Equal arrival times: kept, or spread evenly over their second; left out: as the format's clock needs."""
    keep_failed: bool = False
    """Keep failed requests (no output) with one output token; without it they are dropped and counted."""
    start_s: Seconds | None = None
    """Leave out what arrives before; this becomes the new zero."""
    end_s: Duration | None = None
    """Leave out what arrives at or after this time of the trace."""
    limit: Count | None = None
    """Most requests, the first ones."""
    model: Annotated[tuple[Text, ...], Field(strict=False)] | None = None
    """Only requests to these models of the trace."""
    models: dict[str, Text] = Field(default_factory=dict)
    """Which model serves what the trace calls a model, where the names differ: ``{GPT-4: llama-3.1-70b}``. Without it,
    and where all pools serve the scenario's model, the trace's names mean nothing."""
    request_class: Annotated[tuple[Text, ...], Field(strict=False)] | None = Field(default=None, alias="class")
    """Only requests of these classes of the trace."""
    rate_scale: Factor = 1.0
    """Arrivals come this many times as fast; lengths stay."""
    time_scale: Factor = 1.0
    """Arrivals and think times are this many times as long."""
    sample: Share = 1.0
    """Share of the requests to keep, chosen by the seed."""
    resample: Resample | None = None
    """Draw the requests anew from the trace, so that seeds are replications; left out: the trace as it is."""
    loop: Loop = Field(default_factory=lambda: Loop())
    """When requests are sent."""

    @field_validator("model", "request_class", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.trace is not None and self.generator is not None:
            raise ValueError("give 'trace' or 'generator', not both")
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"'end_s' must be above 'start_s', got {self.end_s:g} and {self.start_s:g}")
        return self


# ------------------------------------------------------------------------------------------------------- cluster


class Parallel(Part):
    """How the accelerators of one replica share the model."""

    tp: Annotated[int, Field(ge=1, le=1024)] = 1
    """Tensor parallel ranks."""
    pp: Annotated[int, Field(ge=1, le=64)] = 1
    """Pipeline stages."""
    ep: Annotated[int, Field(ge=1, le=1024)] | Literal["tp", "all"] = 1
    """GPUs of a stage that the routed experts are spread over; ``tp x dp / ep`` of them divide each expert. ``all``, or
    ``tp``: all of them."""
    cp: Annotated[int, Field(ge=1, le=1024)] = 1
    """Context parallel ranks: each computes its share of a step's tokens, and holds its share of the KV."""
    context: Literal["ring", "ulysses"] = "ring"
    """How they attend to each other's tokens. ``ring``: keys and values go round from rank to rank while attention is
    computed. ``ulysses``: an all-to-all gives each rank all the tokens of its share of the heads, another takes the
    outputs back."""
    striped: bool = True
    """Ring: each rank has tokens from all over a prompt, so that causal attention is balanced; false: a piece each."""
    dp: Annotated[int, Field(ge=1, le=1024)] = 1
    """Attention data parallel ranks of a replica, each of ``tp`` GPUs (as vLLM counts): each has a scheduler, a queue
    and a KV cache of its own, and the routed experts are shared by all. They step together."""
    attention_dp: Annotated[int, Field(ge=1, le=1024)] | Literal["tp"] | None = None
    """The same as SGLang and TensorRT-LLM count: of ``tp`` GPUs, so many ranks of ``tp / attention_dp`` each; ``tp``:
    each GPU is one."""
    balancing: BalancingRef | None = None
    """Which rank of its replica gets a request; left out: as the engine does, or round-robin."""
    prefill_balance: PrefillBalance | None = None
    """Hold prompts back until every rank has one, as TensorRT-LLM can; left out: prompts begin as they come."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.attention_dp is not None:
            if self.dp > 1:
                raise ValueError("give 'dp' (ranks of tp GPUs each) or 'attention_dp' (ranks of tp GPUs), not both")
            if self.attention_dp != "tp" and self.tp % self.attention_dp:
                raise ValueError(f"attention_dp={self.attention_dp} must divide tp={self.tp}, whose GPUs it divides")
        return self

    @property
    def ranks(self) -> int:
        """Attention data parallel ranks, however they were counted."""
        if self.attention_dp is None:
            return self.dp
        return self.tp if self.attention_dp == "tp" else self.attention_dp

    @property
    def rank_tp(self) -> int:
        """Tensor parallel GPUs of each of them."""
        return self.tp if self.attention_dp is None else self.tp // self.ranks


class Dtypes(Part):
    """Datatypes; left out: as the model is published, 16 bits for activations and KV."""

    weights: Text | None = None
    """Of the weights: ``bf16``, ``fp8``, ``int4`` ..."""
    activations: Text | None = None
    """Of activations, and so of the matrix products."""
    kv: Text | None = None
    """Of the KV cache."""

    @field_validator("weights", "activations", "kv", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value == "auto":
            return None
        if isinstance(value, str):
            from simulator.models.dtypes import canonical_dtype

            return canonical_dtype(value, "datatype")
        return value


class Engine(Part):
    """The serving engine: whose documented defaults it has, and its limits where they differ."""

    name: Text | None = None
    """Engine whose documented defaults apply (``vllm``, ``sglang``, ...); left out: the batching policy's own."""
    version: Text | None = None
    """Its version; left out: the newest that is known. ``name: vllm@0.19`` says the same."""
    args: dict[str, Any] = Field(default_factory=dict)
    """The engine's own flags by name, with or without dashes in front: ``max-num-seqs: 128``."""
    max_num_seqs: Annotated[Count | None, AUTO] = None
    """Most requests that run at a time on a replica."""
    max_num_batched_tokens: Annotated[Count | None, AUTO] = None
    """Most tokens of one step; the chunk size of policies that cut prompts."""
    max_model_len: Annotated[Count | None, AUTO] = None
    """Longest context served, tokens; ``auto``: the model's, or what the KV memory holds if that is less."""
    block_size: Annotated[Annotated[int, Field(ge=1, le=65_536)] | None, AUTO] = None
    """Tokens a KV block."""
    gpu_memory_utilization: Annotated[Share | None, AUTO] = None
    """Share of an accelerator's memory that the engine may use for weights, activations and KV."""
    num_kv_blocks: Annotated[Count | None, AUTO] = None
    """KV blocks of a replica; ``auto``: what the memory holds."""
    prefix_caching: bool | None = None
    """Share KV blocks between requests that begin alike (needs a trace with block identities)."""
    swap_space_gib: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    """Host memory for swapped-out KV on each rank, GiB."""
    async_scheduling: bool | None = None
    """Compose each step while the one before it runs; needs one pipeline stage. Left out: as the engine does."""
    cuda_graph_sizes: tuple[Count, ...] | None = None
    """Numbers of tokens that CUDA graphs were captured for, ascending: a smaller step is padded to the next. Left out:
    as the engine does; empty: nothing is padded."""
    cuda_graph_steps: Literal["all", "decode"] | None = None
    """Which steps run in CUDA graphs: all of them, or those without prefill chunks."""
    shared_prefix_attention: Literal["hydragen"] | None = None
    """How decodes attend to a cached prefix that several of them share. ``hydragen``: together, reading it once a step;
    needs prefix caching. Left out: each on its own, reading it as often as there are decodes."""
    host_overhead_s: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    """Time of every step that the host adds (scheduling, launches), seconds; left out: the cost model's."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(value.get("name"), str) and "@" in value["name"]:
            name, version = value["name"].split("@", 1)
            if value.get("version") not in (None, version):
                raise ValueError(f"version is given twice: {value['name']!r} and {value['version']!r}")
            return {**value, "name": name, "version": version}
        return value

    @field_validator("cuda_graph_sizes", mode="before")
    @classmethod
    def _ascending(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if list(value) != sorted(value):
                raise ValueError(f"must be ascending, got {list(value)}")
            return tuple(value)
        return value

    @field_validator("version", mode="before")
    @classmethod
    def _version_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name is None:
            for given in ("version", "args"):
                if getattr(self, given):
                    raise ValueError(f"{given!r} needs 'name', the engine")
            return self
        from simulator.engines import load_engine

        load_engine(self.name, self.version).translate_args(self.args)
        return self


class Cost(Part):
    """Where the duration of a step comes from."""

    kind: Literal["auto", "fitted", "roofline", "measured", "constant"] = "auto"
    """``fitted``: from the accelerator's embedded fits to measured kernels. ``roofline``: from its data sheet alone.
    ``measured``: from tables of measured kernels. ``constant``: the same for all. ``auto``: ``fitted`` where the
    accelerator has fits, else ``roofline``."""
    step_s: Annotated[float, Field(ge=1e-9, le=3600, allow_inf_nan=False)] | None = None
    """Duration of every step, seconds (``constant`` only)."""
    profile: tuple[Text, ...] | None = None
    """Measurements (``measured`` only), one or a list whose rows are put together: a Parquet file, a layer profile (the
    folder ``<gpu>/<model>/<dtype>``), or ``aiconfigurator:SYSTEM/BACKEND`` for tables of that installed package."""
    outside: Literal["raise", "clip", "extrapolate"] | None = None
    """Batches outside what was measured (``measured`` only): an error, the nearest measured value, or a straight
    line that goes on; left out: ``extrapolate``."""

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and set(value) == {"constant"} and isinstance(value["constant"], Mapping):
            return {"kind": "constant", **value["constant"]}
        return value

    @field_validator("profile", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "constant") != (self.step_s is not None):
            raise ValueError("'step_s' is needed by the constant cost model, and by no other")
        if (self.kind == "measured") != (self.profile is not None):
            raise ValueError("'profile' is needed by the measured cost model, and by no other")
        if self.outside is not None and self.kind != "measured":
            raise ValueError("'outside' is for the measured cost model only")
        return self


class Pool(Part):
    """Replicas that are all alike."""

    name: Text = "default"
    """Name of the pool in the result."""
    model: Text | None = None
    """What it serves, as the scenario's ``model`` is given; left out: that."""
    role: Role = "mixed"
    """``mixed``: replicas serve requests from first to last. ``prefill``: they compute prompts, whose KV goes to
    replicas of role ``decode``, which generate tokens."""
    replicas: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Number of replicas; with ``cluster.scaler`` those that serve when the run begins."""
    min_replicas: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Fewest replicas that ``cluster.scaler`` may leave; left out: 1."""
    max_replicas: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Most replicas that ``cluster.scaler`` may ask for; left out: the pool doesn't scale."""
    accelerator: Text | None = None
    """Name of the GPU, as ``simulate profiles`` lists it, or a YAML file; left out: the node's, or a100-80gb."""
    node: Text | None = None
    """Server type, or a YAML file: how GPUs are joined; left out: all at the accelerator's scale-up bandwidth."""
    parallel: Parallel = Field(default_factory=lambda: Parallel())
    """How the GPUs of one replica share the model."""
    experts: Experts = Field(default_factory=lambda: Experts())
    """Routed experts: how tokens spread over them, where they are, how ranks exchange tokens."""
    dtypes: Dtypes = Field(default_factory=lambda: Dtypes())
    """Datatypes."""
    engine: Engine = Field(default_factory=lambda: Engine())
    """Serving engine and limits."""
    offload: Offload | None = None
    """What is kept in host memory or on disk; left out: everything is on the GPUs."""
    batching: BatchingRef | None = None
    """How steps are composed; left out: the engine's policy, or vllm-v1."""
    queueing: QueueingRef | None = None
    """Order of the waiting queue; left out: the batching policy's."""
    kv_eviction: KVEvictionRef = Field(default_factory=lambda: KVEvictionRef(name="lru"))
    """Which cached blocks go first."""
    kv_budget: KVBudgetRef | None = None
    """What is kept of each request's keys and values; left out: everything."""
    kv_tiers: KVTiers | None = None
    """Where cached KV goes when it leaves the GPUs, and what is loaded from there; left out: nowhere."""
    swap: Swap = Field(default_factory=lambda: Swap())
    """How KV blocks are copied to host memory and back."""
    price_per_gpu_hour: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    """Price of one GPU for an hour, in a currency of your choice."""
    cost: Cost = Field(default_factory=lambda: Cost())
    """How long steps take."""
    power: PoolPower = Field(default_factory=lambda: PoolPower())
    """What its GPUs and servers draw, and limits on it."""

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str | None) -> str | None:
        if value is not None:
            from simulator.models import load_model

            load_model(value)
        return value

    @field_validator("accelerator")
    @classmethod
    def _known_accelerator(cls, value: str | None) -> str | None:
        if value is not None:
            from hardware_profiles import load_accelerator

            load_accelerator(value)
        return value

    @field_validator("node")
    @classmethod
    def _known_node(cls, value: str | None) -> str | None:
        if value is not None:
            from hardware_profiles import load_node

            load_node(value)
        return value


class Cluster(Part):
    """The replicas."""

    pools: Annotated[tuple[Pool, ...], Field(strict=False)] = Field(default_factory=lambda: (Pool(),))
    """Pools of replicas that are alike."""
    rescheduler: ReschedulerRef | None = None
    """Which running requests go on at another replica of their pool; left out: none."""
    migration: MigrationPart = Field(default_factory=lambda: MigrationPart())
    """How they get there."""
    scaler: ScalerRef | None = None
    """How many replicas pools with ``max_replicas`` have; left out: always as many."""
    start_up: StartUp = Field(default_factory=lambda: StartUp())
    """What starting a replica takes."""
    model_swap: ModelSwap | None = None
    """Which pools share their GPUs, one model loaded at a time; left out: none."""
    drain: Literal["requeue", "finish"] = "requeue"
    """What becomes of requests that wait at a replica that is to end. ``requeue``: they are sent elsewhere.
    ``finish``: they are served there. Running ones end there either way, or migrate."""

    @model_validator(mode="after")
    def _scales_or_not(self) -> Self:
        for index, pool in enumerate(self.pools):
            given = [key for key in ("min_replicas", "max_replicas") if getattr(pool, key) is not None]
            if given and self.scaler is None:
                raise ValueError(
                    f"pools.{index}.{given[0]} is for clusters that scale; name a 'scaler', such as llumnix"
                )
            if "max_replicas" not in given and given:
                raise ValueError(f"pools.{index}: 'min_replicas' needs 'max_replicas'")
            if pool.max_replicas is not None and not (pool.min_replicas or 0) <= pool.replicas <= pool.max_replicas:
                fewest = "" if pool.min_replicas is None else f"at least 'min_replicas' = {pool.min_replicas} and "
                raise ValueError(
                    f"pools.{index}: 'replicas' = {pool.replicas}, those at first, must be {fewest}at most "
                    f"'max_replicas' = {pool.max_replicas}"
                )
        if self.scaler is not None and all(pool.max_replicas is None for pool in self.pools):
            raise ValueError("a 'scaler' needs a pool with 'max_replicas'")
        return self

    @field_validator("pools")
    @classmethod
    def _names_differ(cls, value: tuple[Pool, ...]) -> tuple[Pool, ...]:
        if not value:
            raise ValueError("must have at least one pool")
        names = [pool.name for pool in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two pools are called {name!r}; give each a 'name' of its own")
        return value


# -------------------------------------------------------------------------------- predictor, objectives, measure


class Predictor(Part):
    """What policies are told of output lengths, which they can't know."""

    kind: Literal["auto", "none", "oracle", "noisy"] = "auto"
    """``none``: nothing. ``oracle``: the true length. ``noisy``: the true length times a random error. ``auto``:
    what the policies in use prefer, most often ``none``; a note says so where it is something."""
    sigma: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """``noisy``: the factor is exp(sigma z), z standard normal: half of the predictions are above the truth."""
    relative_error: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """``noisy``: the factor is uniform between 1 - relative_error and 1 + relative_error."""

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("sigma", "relative_error") if getattr(self, name) is not None]
        if self.kind == "noisy" and len(given) != 1:
            raise ValueError("a noisy predictor needs 'sigma' or 'relative_error', one of them")
        if self.kind != "noisy" and given:
            raise ValueError(f"{given[0]!r} is for a noisy predictor only, and the predictor is {self.kind!r}")
        return self


class Slo(Part):
    """Latency objectives; one that is left out is always met."""

    ttft_s: Duration | None = None
    """Longest time to the first token, seconds."""
    tpot_s: Duration | None = None
    """Longest mean time of the output tokens after the first, seconds."""
    itl_s: Duration | None = None
    """Longest gap between two output tokens, seconds."""
    e2e_s: Duration | None = None
    """Longest time to the last token, seconds."""


class Slos(Slo):
    """Latency objectives of all requests, and others by class."""

    classes: dict[str, Slo] = Field(default_factory=dict)
    """By class of the trace; what a class leaves out is as for all requests."""


class Measure(Part):
    """Which requests the figures cover, when the run ends, and how finely it is sampled."""

    warmup_s: Seconds = 0.0
    """Figures leave out requests that arrive before."""
    until_s: Duration | None = None
    """Figures leave out requests that arrive at or after this time."""
    drain: bool = True
    """Run until every request has ended; false: stop at ``until_s``, or at the last arrival of an open loop."""
    sample_interval_s: Annotated[Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False)] | None, AUTO] = None
    """Time between two samples of every replica, seconds; ``auto``: at most 1,000 over the trace, at least 0.1 s."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.until_s is not None and self.until_s <= self.warmup_s:
            raise ValueError(f"'until_s' must be above 'warmup_s', got {self.until_s:g} and {self.warmup_s:g}")
        return self


# ------------------------------------------------------------------------------------------------------ scenario


class Scenario(Part):
    """Everything about a run; see the module."""

    schema_version: Literal[1] = 1
    """Version of this schema."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of every random stream."""
    workload: Workload = Field(default_factory=lambda: Workload())
    """The requests."""
    model: Text = "llama-3.1-8b"
    """Name, as ``simulate models`` lists it, or the path of a Hugging Face ``config.json``."""
    cluster: Cluster = Field(default_factory=lambda: Cluster())
    """The replicas."""
    router: RouterRef = Field(default_factory=lambda: RouterRef(name="round-robin"))
    """Which replica serves a request."""
    disaggregation: Disaggregation | None = None
    """How requests go from pools of role ``prefill`` to those of role ``decode``; left out: as their engine does it."""
    admission: AdmissionRef | None = None
    """Who is let in, asked of every attempt before it is routed; left out: everybody."""
    clients: Clients | None = None
    """How long clients wait, and whether they try again; left out: for ever."""
    faults: Faults | None = None
    """What breaks; left out: nothing."""
    network: NetworkPart = Field(default_factory=lambda: NetworkPart())
    """What joins the nodes."""
    predictor: Predictor = Field(default_factory=lambda: Predictor())
    """What policies are told of output lengths."""
    objectives: Slos = Field(default_factory=lambda: Slos())
    """Latency objectives."""
    measure: Measure = Field(default_factory=lambda: Measure())
    """What is measured."""
    power: Power = Field(default_factory=lambda: Power())
    """What a joule costs, in money and carbon."""

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        from simulator.models import load_model

        load_model(value)
        return value

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Scenario":
        """Read a scenario file.

        Raises
        ------
        ScenarioError
            With everything that is wrong, each with its line and key.
        """
        return assemble(path, [])

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Scenario":
        """Make a scenario from plain data, such as a stored one; errors as `from_yaml`, without lines."""
        return _validated(_with_preset(mapping, None), "", {}, {})

    def to_mapping(self, *, everything: bool = False) -> dict[str, Any]:
        """Return plain data that `from_mapping` takes.

        Parameters
        ----------
        everything
            Write defaults out too; without it only what was given.
        """
        return self.model_dump(
            mode="json", by_alias=True, exclude_unset=not everything, exclude_none=everything, warnings="error"
        )

    def to_yaml(self) -> str:
        """Return it as YAML, every default written out."""
        return scenario_yaml.dump(self.to_mapping(everything=True))

    def updated(self, changes: Mapping[str, Any]) -> "Scenario":
        """Return this scenario with some keys changed, checked anew.

        Parameters
        ----------
        changes
            Values by dotted key, such as ``{"cluster.pools.0.engine.max_num_seqs": 64}``; ``*`` in place of a
            number means every entry of a list, and the value None takes a key back to its default.

        Raises
        ------
        ScenarioError
            With everything that is wrong then.
        """
        data = self.to_mapping()
        paths = {path for key, value in changes.items() for path in set_key(data, key, value)}
        return _validated(data, "", {}, {path: dotted(path) for path in paths})


ScenarioLike = Scenario | Mapping[str, Any] | str | PathLike[str]
"""What calls take for a scenario: one, its keys, or its file."""


def read_scenario(given: ScenarioLike) -> Scenario:
    """Return a scenario that is given in any form.

    Raises
    ------
    ScenarioError
        As `Scenario.from_yaml` and `Scenario.from_mapping`.
    """
    if isinstance(given, Scenario):
        return given
    return Scenario.from_yaml(Path(given)) if isinstance(given, str | PathLike) else Scenario.from_mapping(given)


def assemble(
    path: str | Path | Mapping[str, Any] | None, flags: Sequence[tuple[str, Any, str]], *, preset: str | None = None
) -> Scenario:
    """Make a scenario from a file and flags that go before it.

    Parameters
    ----------
    path
        Scenario file, or plain data as it holds; None for none.
    flags
        Dotted key, value, and what the user wrote it as (``--max-num-seqs``), for messages.
    preset
        Name of a preset whose keys lie under the file's, in place of the one that the file may name.

    Raises
    ------
    ScenarioError
        With everything that is wrong, each with its line and key, or its flag.
    """
    given: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    if isinstance(path, Mapping):
        given, path = deepcopy(dict(path)), None
    elif path is not None:
        file = Path(path)
        given, lines = scenario_yaml.read(file)
        anchor_paths(given, file.resolve().parent)
    if flags:
        _expand_args(given)
    data = dict(_with_preset(given, preset))
    labels: dict[KeyPath, str] = {}
    problems = []
    for key, value, label in flags:
        try:
            labels.update(dict.fromkeys(set_key(data, key, value), label))
        except ScenarioError as error:
            problems += [Problem(problem.text, label) for problem in error.problems]
    return _validated(data, "" if path is None else str(path), lines, labels, problems)


def _with_preset(data: Mapping[str, Any], preset: str | None) -> Mapping[str, Any]:
    """Lay plain data over the preset that is given or that it names itself."""
    if preset is None and "preset" not in data:
        return data
    from simulator.presets import with_preset

    return with_preset(data, preset)


def _expand_args(data: dict[str, Any]) -> None:
    """Write the file's engine flags as the keys that they set, so that what the user wrote now goes before them."""
    from simulator.engine_args import expand_args

    cluster = data.get("cluster")
    pools = cluster.get("pools") if isinstance(cluster, dict) else None
    for index, pool in enumerate(pools if isinstance(pools, list) else []):
        if isinstance(pool, dict):
            expand_args(pool, index)


def _validated(
    data: Mapping[str, Any],
    where: str,
    lines: Mapping[KeyPath, int],
    labels: Mapping[KeyPath, str],
    problems: Sequence[Problem] = (),
) -> Scenario:
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError([*problems, *problems_of(error, Scenario, lines, labels)], where) from None
    if problems:
        raise ScenarioError(problems, where)
    return scenario


__all__ = ["SCHEMA_VERSION", "Scenario", "ScenarioError", "assemble"]
