"""What each kind of policy sees, and what it decides.

A policy sees *views*: objects of the engine of which it may read the attributes named here and nothing else
(``mypy`` checks that of the project's own policies; :mod:`policies.checks` checks it of everybody's). It acts
only through what it returns, or, for batching, through the :class:`StepPlan` that it is handed, whose methods
check every decision and apply it at once, so that a decision may depend on the outcome of the one before, as
it does in a real scheduler.

No view holds a request's true output length; a policy that wants one reads ``predicted_output_tokens``, which
comes from the scenario's predictor (an oracle, a noisy one, or none).

Units: times in seconds, lengths in tokens, KV in blocks of ``kv.block_size`` tokens.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from policies.budget import KVBudget, ModelFacts

UNBOUNDED = 1 << 60
"""What ``stable_steps`` returns when the policy itself sets no end: the engine ends it by its own events."""


class PolicyError(ValueError):
    """An unknown policy, a bad parameter, or a decision that can't be applied; its message says why."""


# ------------------------------------------------------------------------------------------------- parameters


def param(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: Sequence[str] | None = None,
    objective: str = "",
) -> Any:
    """Declare one parameter of a policy: its default, what it means, its unit and its bounds.

    The declaration is what ``simulate policies`` prints and what :class:`Policy` checks at construction.

    ``objective`` names one of the scenario's ``objectives`` (``"ttft_s"``), which is the default in a run; ``default``
    is None then, and the value may be. A policy with such parameters has one of them at least in a run. Admission and
    scaling only.
    """
    meta = {
        "doc": doc,
        "unit": unit,
        "ge": ge,
        "gt": gt,
        "le": le,
        "choices": tuple(choices) if choices else None,
        "objective": objective,
    }
    return field(default=default, kw_only=True, metadata=meta)


@dataclass
class Policy:
    """Base of every policy: a dataclass whose fields are its parameters, each declared with :func:`param`.

    Subclasses set ``name`` (as users write it; the file is called the same with ``-`` as ``_``) and
    ``source`` (the paper, code and version that they follow), and are decorated with ``@dataclass``. Run-time
    state that is no parameter is set up in ``reset``.

    Raises
    ------
    PolicyError
        If a parameter lies outside its declared bounds or has another type than its default.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for f in fields(self):
            setattr(self, f.name, _checked(self.name, f, getattr(self, f.name)))
        self.reset()

    def reset(self) -> None:
        """Set up run-time state; called at construction, before any decision."""

    def preferred_predictor(self) -> str:
        """Return what should predict output lengths where the scenario leaves it to ``auto``.

        ``"none"``: the policy does without. ``"noisy"``: it orders or chooses by an estimate. ``"oracle"``: it takes
        the prediction for a bound that clients state.
        """
        return "none"


def _checked(policy: str, f: Field[Any], value: Any) -> Any:
    """Return ``value`` as the type of the field's default, or raise a `PolicyError`: what is allowed."""
    meta: Mapping[str, Any] = f.metadata
    default = f.default
    where = f"parameter {f.name!r} of policy {policy!r}"
    unit = f" {meta['unit']}" if meta.get("unit") else ""
    if meta.get("objective"):
        if value is None:
            return None
        default = 0.0
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise PolicyError(f"{where} must be true or false, got {value!r}")
        return value
    if isinstance(default, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PolicyError(f"{where} must be a number{unit and ' in' + unit}, got {value!r}")
        if not math.isfinite(value):
            raise PolicyError(f"{where} must be a finite number{unit and ' in' + unit}, got {value!r}")
        if isinstance(default, int):
            if value != math.floor(value):
                raise PolicyError(f"{where} must be a whole number{unit and ' of' + unit}, got {value!r}")
            value = int(value)
        for bound, breaks, text in (
            ("ge", operator.lt, "at least"),
            ("gt", operator.le, "above"),
            ("le", operator.gt, "at most"),
        ):
            if meta.get(bound) is not None and breaks(value, meta[bound]):
                raise PolicyError(f"{where} must be {text} {meta[bound]}{unit}, got {value!r}")
        return type(default)(value)
    if isinstance(default, str) and not isinstance(value, str):
        raise PolicyError(f"{where} must be text, got {value!r}")
    if meta.get("choices") and value not in meta["choices"]:
        raise PolicyError(f"{where} must be one of {', '.join(meta['choices'])}, got {value!r}")
    return value


# ------------------------------------------------------------------------------------------------------ views


class RequestView(Protocol):
    """One request as a policy may see it."""

    @property
    def request_id(self) -> int:
        """Row of the request in the trace; unique in a run."""
        ...

    @property
    def arrival_s(self) -> float:
        """When the request reached the cluster."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        ...

    @property
    def computed_tokens(self) -> int:
        """Tokens of the current prefill computed or found in the prefix cache (0 while waiting)."""
        ...

    @property
    def remaining_prefill(self) -> int:
        """Tokens to compute before the next output token; 0 for a request that decodes.

        The prompt less what is computed; after a preemption by recompute also the tokens generated before it.
        For a waiting request prefix-cache hits are not yet taken off: ask ``StepPlan.uncached_tokens``.
        """
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens whose keys and values the replica holds for this request."""
        ...

    @property
    def generated_tokens(self) -> int:
        """Output tokens so far."""
        ...

    @property
    def predicted_output_tokens(self) -> float:
        """The predictor's estimate of the output length; NaN where the scenario has no predictor."""
        ...

    @property
    def priority(self) -> int:
        """Smaller is more urgent (as in vLLM); 0 where the trace has none."""
        ...

    @property
    def tenant(self) -> str:
        """Whose request it is; empty where the trace has none."""
        ...

    @property
    def preemptions(self) -> int:
        """How often it was preempted so far."""
        ...

    @property
    def block_hashes(self) -> Sequence[int]:
        """Chained identities of the prompt's blocks, see `ArrivalView.block_hashes`; empty where unknown."""
        ...


def urgency(request: RequestView) -> tuple[int, float, int]:
    """Return a request's place by priority, then arrival: the smallest is the most urgent."""
    return request.priority, request.arrival_s, request.request_id


def least_urgent(requests: Iterable[RequestView]) -> RequestView:
    """Return the request of the largest priority number, of several the one that arrived last. O(n)."""
    return max(requests, key=urgency)


class WaitingView(Protocol):
    """The waiting queue of a replica, in the order of its queueing policy.

    A preempted request goes back to the front where that order is first come, first served, else by its key.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[RequestView]: ...

    @property
    def first(self) -> RequestView:
        """The request to consider next; an ``IndexError`` if none waits."""
        ...


class TenantsView(Protocol):
    """The tenants of a replica, as a queueing policy sees them that chooses among them."""

    @property
    def waiting(self) -> Collection[str]:
        """Tenants who have requests waiting, in the order in which they came to have some."""
        ...

    def output_tokens(self, tenant: str) -> int:
        """Output tokens that the replica has generated for this tenant so far."""
        ...

    def decoding(self, tenant: str) -> int:
        """How many requests of this tenant decode: the output tokens that a step adds."""
        ...


class KVView(Protocol):
    """The replica's paged KV memory."""

    @property
    def block_size(self) -> int:
        """Tokens a block."""
        ...

    @property
    def total_blocks(self) -> int:
        """Blocks in all."""
        ...

    @property
    def free_blocks(self) -> int:
        """Blocks that an allocation can have now, cached but unreferenced ones included."""
        ...


class LimitsView(Protocol):
    """Engine limits, as the scenario or the engine's defaults set them."""

    @property
    def max_num_seqs(self) -> int:
        """Most requests that run at a time on the replica."""
        ...

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of one step (the token budget or chunk size of chunked policies)."""
        ...

    @property
    def max_model_len(self) -> int:
        """Longest context served, tokens."""
        ...


class ReplicaView(Protocol):
    """What a batching policy sees when the replica can start a step.

    The view is live: after each decision of the plan it shows the replica as that decision left it.

    With pipeline parallelism as many batches are in flight as there are stages; requests of the other batches
    in flight can't be scheduled now, and ``running``, ``prefilling`` and the decoding counts leave them out.
    """

    @property
    def now_s(self) -> float:
        """The time."""
        ...

    @property
    def limits(self) -> LimitsView:
        """Engine limits."""
        ...

    @property
    def kv(self) -> KVView:
        """KV memory."""
        ...

    @property
    def waiting(self) -> WaitingView:
        """Waiting queue."""
        ...

    @property
    def swapped(self) -> Sequence[RequestView]:
        """Requests whose KV was swapped out to host memory, oldest first."""
        ...

    @property
    def num_running(self) -> int:
        """Requests that hold KV on this replica, in all batches in flight."""
        ...

    @property
    def num_steps(self) -> int:
        """Steps that this replica did so far."""
        ...

    @property
    def num_schedulable(self) -> int:
        """Running requests that this step may schedule."""
        ...

    @property
    def running(self) -> Iterator[RequestView]:
        """Schedulable running requests in the order of their admission. O(batch): not for the usual path."""
        ...

    @property
    def youngest(self) -> RequestView:
        """The schedulable running request admitted last."""
        ...

    @property
    def prefilling(self) -> Sequence[RequestView]:
        """Schedulable running requests whose prefill isn't complete, in the order of their admission."""
        ...

    @property
    def num_decoding(self) -> int:
        """Schedulable running requests that are ready to decode."""
        ...


class StepPlan(Protocol):
    """The next step under construction: the only way in which a batching policy acts.

    Every method applies its decision at once (KV is allocated, queues change) and says whether it could. A
    plan left empty means that nothing runs until something changes.
    """

    @property
    def tokens(self) -> int:
        """Tokens in the step so far, decodes counted as one each."""
        ...

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens in the step so far."""
        ...

    @property
    def num_decodes(self) -> int:
        """Decodes in the step so far."""
        ...

    @property
    def num_preempted(self) -> int:
        """Requests preempted or swapped out in this plan."""
        ...

    @property
    def num_admitted(self) -> int:
        """Waiting requests admitted in this plan."""
        ...

    def decode_shortfall(self) -> int:
        """Blocks that :meth:`decode_all` lacks (0: it would succeed)."""
        ...

    def decode_all(self) -> int:
        """Decode one token of every request that is ready; return how many.

        Raises
        ------
        PolicyError
            If blocks lack: see :meth:`decode_shortfall` and :meth:`preempt` first.
        """
        ...

    def decode_some(self, requests: Sequence[RequestView]) -> int:
        """Decode one token of each of these requests only; O(batch). The others keep KV and wait a step."""
        ...

    def decode_blocks(self, request: RequestView) -> int:
        """Blocks that the next token of a request that is ready to decode takes: 0 or 1."""
        ...

    def uncached_tokens(self, request: RequestView) -> int:
        """Tokens to compute if a waiting request were admitted now: without prefix-cache hits, at least 1."""
        ...

    def prefill(self, request: RequestView, tokens: int, *, reserve_tokens: int = 0, keep_free_blocks: int = 0) -> bool:
        """Compute the next ``tokens`` prompt tokens of a waiting or prefilling request in this step.

        A waiting request is admitted by this, its cached prefix taken first. KV is allocated for what is then
        computed, or for a context of ``reserve_tokens`` if that is more. False, with nothing changed, if
        after that fewer than ``keep_free_blocks`` blocks were free (admission watermark) or blocks lack.

        Raises
        ------
        PolicyError
            If ``tokens`` isn't between 1 and what remains, or the request can't be scheduled in this step.
        """
        ...

    def preempt(self, request: RequestView, *, swap: bool = False, wait: bool = True) -> None:
        """Take a running request out: its KV is freed and recomputed later, or swapped out to host memory.

        A swapped-out request goes to ``view.swapped``, another one to the front of the waiting queue. Where
        host memory for swapping is full the request is recomputed instead, and the result counts it.

        With ``wait`` the step starts when the swap is done; without it the copy goes on while others compute, and the
        request's blocks are free only when it is done.
        """
        ...

    def swap_in(self, request: RequestView, *, keep_free_blocks: int = 0, wait: bool = True) -> bool:
        """Bring a swapped-out request back to running; False if blocks lack or its copy out isn't done.

        With ``wait`` the step starts when the swap is done, and the request can decode in it. Without it the request
        takes its blocks and its place now, and is among the running ones when its copy is done.
        """
        ...

    def pad(self, tokens: int) -> None:
        """Add tokens that the dense layers compute for nobody (padding, finished slots of a static batch)."""
        ...


class StepTimer(Protocol):
    """Times steps of an engine that serves nobody yet."""

    def __call__(self, chunks: Sequence[tuple[int, int]], decodes: int, context_tokens: int) -> float | None:
        """Return the time of a step, seconds; None where it isn't known.

        Parameters
        ----------
        chunks
            Prompt chunks as (new tokens, tokens in KV before them).
        decodes, context_tokens
            Decodes, and tokens that each has in KV.
        """
        ...


class RunningRequestView(Protocol):
    """A running request of a replica, as of the last step that ended."""

    @property
    def request_id(self) -> int:
        """Row of the request in the trace."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens whose keys and values the replica holds for it."""
        ...

    @property
    def predicted_output_tokens(self) -> float:
        """The predictor's estimate of the output length; NaN without a predictor."""
        ...

    @property
    def priority(self) -> int:
        """Smaller is more urgent; 0 where the trace has none."""
        ...

    @property
    def is_decoding(self) -> bool:
        """Whether its prefill is complete."""
        ...


class ReplicaLoadView(Protocol):
    """What a replica reports of its load, as of the last step that ended: for whoever stands outside and may ask."""

    @property
    def replica(self) -> int:
        """Which replica it is."""
        ...

    @property
    def takes_requests(self) -> bool:
        """Whether routers may choose it; one that is up and takes none is being drained."""
        ...

    @property
    def block_size(self) -> int:
        """Tokens of a KV block."""
        ...

    @property
    def total_blocks(self) -> int:
        """KV blocks in all."""
        ...

    @property
    def used_blocks(self) -> int:
        """KV blocks that running requests hold."""
        ...

    @property
    def free_blocks(self) -> int:
        """The other ones, those with cached contents included."""
        ...

    @property
    def max_num_seqs(self) -> int:
        """Most requests that run at a time."""
        ...

    @property
    def num_running(self) -> int:
        """Requests that hold KV."""
        ...

    @property
    def num_waiting(self) -> int:
        """Requests that were sent here and don't run: in the queue, or swapped out."""
        ...

    @property
    def num_preempted(self) -> int:
        """Those of them that ran before."""
        ...

    @property
    def waiting_blocks(self) -> int:
        """KV blocks that all of them need to start."""
        ...

    @property
    def first_waiting_blocks(self) -> int:
        """KV blocks that the one who is to start next needs; 0 if nobody waits."""
        ...

    def running(self) -> Sequence[RunningRequestView]:
        """Return the running requests in the order of their admission. O(batch)."""
        ...


class ClusterView(Protocol):
    """What a routing policy sees: the replicas that take requests now. Arrays have one element a replica, read-only.

    A router stands outside the engines: it knows what it sent and what ended, as a load balancer does.
    """

    @property
    def now_s(self) -> float:
        """The time."""
        ...

    @property
    def num_replicas(self) -> int:
        """Number of replicas."""
        ...

    @property
    def replica_ids(self) -> Sequence[int]:
        """Which replicas they are: replicas may come and go, and one keeps its number. Ascending."""
        ...

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        """Requests sent to each replica that have not ended."""
        ...

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        """Prompt tokens plus predicted output tokens (0 without a predictor) of those requests."""
        ...

    @property
    def loads(self) -> Sequence[ReplicaLoadView]:
        """What the replicas report of themselves: for routers that replicas report to; costs more than the others."""
        ...

    @property
    def rng(self) -> np.random.Generator:
        """The router's own stream of random numbers."""
        ...


class ArrivalView(Protocol):
    """An arriving request as a router sees it."""

    @property
    def request_id(self) -> int:
        """Row of the request in the trace."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        ...

    @property
    def predicted_output_tokens(self) -> float:
        """The predictor's estimate of the output length; NaN without a predictor."""
        ...

    @property
    def session_id(self) -> int:
        """Conversation that the request belongs to; -1 for none."""
        ...

    @property
    def block_hashes(self) -> Sequence[int]:
        """Chained identities of the prompt's blocks of ``block_size_tokens`` tokens; empty where unknown.

        Chained: equal identities mean equal tokens up to and including that block.
        """
        ...

    @property
    def block_size_tokens(self) -> int:
        """Tokens a block of ``block_hashes``."""
        ...

    @property
    def tenant(self) -> str:
        """Whose request it is; empty where the trace has none."""
        ...

    @property
    def priority(self) -> int:
        """Smaller is more urgent; 0 where the trace has none."""
        ...


class CachedBlockView(Protocol):
    """A run of KV blocks with one identity in the prefix cache that no running request refers to."""

    @property
    def num_blocks(self) -> int:
        """KV blocks in it."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens in it."""
        ...

    @property
    def depth_tokens(self) -> int:
        """Tokens of the prefix before it."""
        ...

    @property
    def hits(self) -> int:
        """How often it was found by a request since it was cached."""
        ...

    @property
    def cached_order(self) -> int:
        """Grows with the time at which it was first written."""
        ...

    @property
    def released_order(self) -> int:
        """Grows with the time at which the last request that referred to it let it go."""
        ...


# ------------------------------------------------------------------------------------------------------ kinds


@dataclass
class BatchingPolicy(Policy):
    """Composes each engine step. One instance a replica; it may keep state between steps.

    Class attributes
    ----------------
    queueing
        Name of the queueing policy used where the scenario names none. An instance whose parameters need another sets
        it in `reset`; the scenario can't name a third then.
    admits_in_order
        True if a request never starts before one that stands before it in the waiting queue. The engine then
        knows that an arrival behind a blocked request changes nothing.
    preempts_for_waiting
        True if it may preempt a running request to make room for one that waits: an arrival then matters although all
        places are taken. An instance whose parameters decide that sets it in `reset`.
    repeats_admissions
        True if `stable_steps` is to be asked of a step that admitted requests too: whether the next one would go on
        with the same chunks of them and admit nobody.
    supports_pipeline
        False if the system has no pipeline parallelism; a scenario with several stages is then refused.
    takes_over
        False if requests whose KV was computed on another replica can't join its running batch, because it plans the
        batch or the memory of a request from its admission to its end; disaggregation and migration are then refused.
    defaults
        Engine limits where the scenario sets none, by the keys of its ``engine`` part, such as ``max_num_seqs``,
        ``max_num_batched_tokens`` and ``prefix_caching``; an unknown key is an error when a run is built.
    """

    kind: ClassVar[str] = "batching"
    queueing: ClassVar[str] = "fcfs"
    admits_in_order: ClassVar[bool] = False
    preempts_for_waiting: ClassVar[bool] = False
    repeats_admissions: ClassVar[bool] = False
    supports_pipeline: ClassVar[bool] = True
    takes_over: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {}

    def refuses(self, request: RequestView, view: ReplicaView) -> str:
        """Return the reason for which the system would never serve this request, empty if it would.

        Asked at arrival (the request is then rejected) and when a preempted request would queue again with what it has
        generated (it then fails). A prompt beyond ``max_model_len`` or the whole KV memory is refused by the engine.
        """
        return ""

    def profile(self, step_s: StepTimer, limits: LimitsView, kv_tokens: int) -> None:
        """Measure the engine before it serves anybody, as systems do that predict step times; called once a replica.

        Parameters
        ----------
        step_s
            Answers how long a step takes.
        kv_tokens
            Tokens that fit the KV memory.
        """

    def compose(self, view: ReplicaView, plan: StepPlan) -> None:
        """Fill ``plan`` with the next step. Called whenever a batch can start."""
        raise NotImplementedError

    def stable_steps(self, view: ReplicaView, plan: StepPlan) -> int:
        """For how many steps, this one included, the policy would decide as it just did, all else equal.

        Asked after ``compose``, only where the plan preempted and swapped nothing, decodes all or none of the ready
        requests, and admitted nobody or ``repeats_admissions``. "All else equal" means: no arrival, no completion of
        a request or of a prefill, every decode one token longer, every chunk of the same size again, free blocks
        falling. The engine ends the run by itself at each of those events and before blocks run out; UNBOUNDED is
        then the usual answer, 1 always right.
        """
        return 1


@dataclass
class QueueingPolicy(Policy):
    """Orders the waiting queue of a replica.

    Class attributes
    ----------------
    in_arrival_order
        True if every key is the same, so that the order is that of arrival; a preempted request then goes to the front.
    by_tenant
        True if it chooses the tenant whose turn it is, each time that somebody is looked for, instead of giving keys:
        :meth:`choose` and the methods after it are then asked, and :meth:`key` is not. Within a tenant the order is
        that of arrival, preempted requests first. Costs O(tenants) a look.
    """

    kind: ClassVar[str] = "queueing"
    in_arrival_order: ClassVar[bool] = False
    by_tenant: ClassVar[bool] = False

    def key(self, request: RequestView) -> float:
        """Return the sort key, fixed when queued: smallest first, ties in the order of arrival."""
        raise NotImplementedError

    def choose(self, tenants: TenantsView) -> str:
        """Return the tenant, one of ``tenants.waiting`` (not empty), whose first request is the next to consider."""
        raise NotImplementedError

    def named_tenants(self) -> Sequence[str]:
        """Return the tenants that its parameters name, so that the run can say which of them the trace hasn't."""
        return ()

    def came(self, tenant: str, tenants: TenantsView) -> None:
        """Hear that a request comes of a tenant who has none waiting; ``tenants.waiting`` is still without it."""

    def left(self, tenant: str, tenants: TenantsView) -> None:
        """Hear that the last waiting request of a tenant started; ``tenants.waiting`` is already without it."""

    def admitted(self, request: RequestView, tenants: TenantsView) -> None:
        """Hear that a request starts for the first time (after a preemption it isn't said again)."""

    def stable_steps(self, tenants: TenantsView) -> int:
        """For how many steps, the one just composed included, :meth:`choose` would say the same.

        All else equal: nobody comes, starts or ends, and each step adds ``tenants.decoding(t)`` output tokens to tenant
        t, or none to anybody. 1 is always right.
        """
        return 1


@dataclass
class RoutingPolicy(Policy):
    """Chooses the replica of an arriving request."""

    kind: ClassVar[str] = "routing"

    def route(self, request: ArrivalView, cluster: ClusterView) -> int:
        """Return the index of the replica, 0 to ``cluster.num_replicas - 1``."""
        raise NotImplementedError

    def figures(self) -> Mapping[str, float]:
        """Return figures of its own for the result, such as messages that it would have sent; by name with unit."""
        return {}


class AdmissionView(ClusterView, Protocol):
    """What an admission policy sees: the replicas as a router does, and how the requests that were let in get on.

    A gateway knows the latter because answers are streamed through it.
    """

    @property
    def waiting_requests(self) -> int:
        """Requests let in that have no first token yet."""
        ...

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens of them."""
        ...

    @property
    def started_tokens(self) -> int:
        """Prompt tokens of all requests that got their first token so far; only grows."""
        ...

    def decoding(self, since_s: float) -> int:
        """Return how many requests got their first token at this time or later and have not ended."""
        ...

    @property
    def mean_decode_s(self) -> float:
        """Mean time from first to last token of the requests that finished so far, seconds; NaN before the first."""
        ...


@dataclass
class AdmissionPolicy(Policy):
    """Lets a request in, or rejects it. Asked of each attempt, before it is routed; it may keep state."""

    kind: ClassVar[str] = "admission"

    def admit(self, request: ArrivalView, cluster: AdmissionView) -> str:
        """Return why the request is rejected, in words without its number; empty: it is let in.

        ``cluster`` has at least one replica.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Move:
    """Let a running request go on at another replica, its KV moved there.

    Attributes
    ----------
    request_id
        Which; it must decode at ``source``, and not be on its way already.
    source, destination
        Replicas by number; the destination must take requests.
    """

    request_id: int
    source: int
    destination: int


class ReschedulingView(Protocol):
    """What a rescheduling policy sees of the replicas of one pool that are up."""

    @property
    def now_s(self) -> float:
        """The time."""
        ...

    @property
    def replicas(self) -> Sequence[ReplicaLoadView]:
        """Their loads, by number ascending, those that are being drained included."""
        ...

    def moving(self, replica: int) -> int:
        """Return how many requests are on their way from a replica."""
        ...

    def is_moving(self, request_id: int) -> bool:
        """Tell whether a request is on its way between replicas."""
        ...


@dataclass
class ReschedulingPolicy(Policy):
    """Chooses running requests that are to go on at another replica. One instance a pool; it may keep state."""

    kind: ClassVar[str] = "rescheduling"

    def interval(self) -> float:
        """Return the time between two rounds, seconds."""
        return 1.0

    def decide(self, view: ReschedulingView) -> Sequence[Move]:
        """Return the moves to begin now; asked in every round."""
        raise NotImplementedError

    def follow(self, move: Move, view: ReschedulingView) -> Move | None:
        """Return what to move next between the two replicas of a move that has ended; None: wait for the next round."""
        return None


class EndedView(Protocol):
    """A request that ended, as a scaling policy may see it."""

    @property
    def end_s(self) -> float:
        """When it ended."""
        ...

    @property
    def ttft_s(self) -> float:
        """First token minus arrival; infinite where it got none."""
        ...

    @property
    def tpot_s(self) -> float:
        """Mean time of the output tokens after the first; 0 where there are none."""
        ...


class ScalingView(Protocol):
    """What a scaling policy sees of one pool."""

    @property
    def now_s(self) -> float:
        """The time."""
        ...

    @property
    def min_replicas(self) -> int:
        """Fewest replicas that the pool may have."""
        ...

    @property
    def max_replicas(self) -> int:
        """Most replicas that the pool may have."""
        ...

    @property
    def replicas(self) -> Sequence[ReplicaLoadView]:
        """Loads of those that serve, by number ascending, without those that start or are being drained."""
        ...

    @property
    def num_starting(self) -> int:
        """Replicas that were asked for and don't serve yet."""
        ...

    @property
    def num_draining(self) -> int:
        """Replicas that take no requests any more and end what they have."""
        ...

    @property
    def num_unrouted(self) -> int:
        """Requests that wait because no replica takes any."""
        ...

    @property
    def longest_wait_s(self) -> float:
        """How long the request has waited that has waited longest for its first token, seconds; 0 if none does."""
        ...

    def ended(self, window_s: float) -> Sequence[EndedView]:
        """Return the pool's requests that ended in the last so many seconds, in that order."""
        ...


@dataclass
class ScalingPolicy(Policy):
    """Chooses how many replicas a pool has. One instance a pool; it may keep state."""

    kind: ClassVar[str] = "scaling"

    def interval(self) -> float:
        """Return the time between two decisions, seconds."""
        return 10.0

    def decide(self, view: ScalingView) -> int:
        """Return how many replicas the pool is to have, those that start included; it is held within its bounds."""
        raise NotImplementedError

    def stop(self, view: ScalingView) -> int:
        """Return the number of the replica to drain, one of ``view.replicas``; that with the fewest requests."""
        return min(view.replicas, key=lambda load: (load.num_running + load.num_waiting, -load.replica)).replica


class RanksView(Protocol):
    """What a balancing policy sees of the attention data parallel ranks of one replica, numbered from 0.

    Arrays have one element a rank and are read-only.
    """

    @property
    def now_s(self) -> float:
        """The time."""
        ...

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        ...

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        """Requests sent to each rank that have not ended."""
        ...

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        """Prompt tokens plus predicted output tokens (0 without a predictor) of those requests."""
        ...

    def waiting(self, rank: int) -> int:
        """Return how many requests wait in a rank's queue."""
        ...

    def running(self, rank: int) -> int:
        """Return how many requests run on a rank."""
        ...


@dataclass
class BalancingPolicy(Policy):
    """Chooses the attention data parallel rank, within a replica, of a request that the router sent there."""

    kind: ClassVar[str] = "balancing"

    def choose(self, request: ArrivalView, ranks: RanksView) -> int:
        """Return the rank, 0 to ``ranks.num_ranks - 1``."""
        raise NotImplementedError


@dataclass
class ParallelismPolicy(Policy):
    """Places routed experts, and copies of them, on expert parallel ranks; once, before a run begins."""

    kind: ClassVar[str] = "parallelism"

    def place(self, loads: Sequence[float], num_ranks: int, num_nodes: int, redundant: int) -> list[list[int]]:
        """Return the experts of each rank, equally many for all; every expert somewhere.

        Parameters
        ----------
        loads
            Share of the tokens' visits of each expert.
        num_ranks, num_nodes
            Ranks that share the experts, consecutive ones in a node, and nodes.
        redundant
            Copies to place beside the experts; ``len(loads) + redundant`` is a multiple of ``num_ranks``.
        """
        raise NotImplementedError


@dataclass
class KVEvictionPolicy(Policy):
    """Chooses which cached, unreferenced blocks go first when KV memory is needed.

    Class attributes
    ----------------
    in_release_order
        True if every rank is the ``released_order``: the engine then keeps that order without asking for ranks, and
        doesn't call :meth:`evicted`.
    """

    kind: ClassVar[str] = "kv_eviction"
    in_release_order: ClassVar[bool] = False

    def rank(self, block: CachedBlockView) -> float:
        """Return the rank of a block that became unreferenced; the smallest rank is evicted first.

        Ties are broken by ``released_order``; a request's blocks are released last block first, so that the
        end of a prefix goes before its beginning.
        """
        raise NotImplementedError

    def evicted(self, rank: float) -> None:
        """Hear that a block of this rank was evicted (for policies that age)."""


@dataclass
class KVBudgetPolicy(Policy):
    """Says what the engine keeps of each request's keys and values, and what that costs.

    It answers once, when a run is built: what it returns is data (`policies.budget`), and all that anybody sees of it.
    What a simulator can't see of it, the accuracy of the answers first, belongs into the class's docstring.
    """

    kind: ClassVar[str] = "kv_budget"

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return the budget for a model."""
        raise NotImplementedError
