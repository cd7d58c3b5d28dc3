"""Virtual token counter: the tenant who was served least goes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import UNBOUNDED, PolicyError, QueueingPolicy, RequestView, TenantsView, param


@dataclass
class Vtc(QueueingPolicy):
    """The tenant with the least virtual counter goes next; a counter grows with the tokens that its tenant is served.

    A request adds ``input_weight`` for each prompt token when it starts, and ``output_weight`` for each output token
    as it comes, divided by its tenant's weight. A tenant who comes to wait after a pause is lifted to the least
    counter of those who wait, or, where nobody waits, to that of the tenant who last stopped waiting: nobody saves up
    service while idle, nor is anybody punished for service that nobody else wanted. Between two tenants (of weight 1)
    who both wait all the time the service differs by at most ``2 max(input_weight * longest prompt, output_weight *
    tokens of requests that run at once)``, as long as nobody is preempted.

    A request that is preempted and recomputed is not charged again for its prompt, and stands before the others of its
    tenant. Each replica keeps counters of its own. Not modelled: the variant that charges a predicted output length in
    advance, counters shared among replicas, prompt tokens found in the prefix cache (they are charged as the others).
    """

    name: ClassVar[str] = "vtc"
    source: ClassVar[str] = (
        "Sheng et al., Fairness in Serving Large Language Models, OSDI 2024, arXiv:2401.00588, algorithms 2 and 3 and"
        " section 4.3 (weighted); weights of 1 and 2 as in its artifact, slora/server/router/vtc_req_queue.py"
    )
    by_tenant: ClassVar[bool] = True

    input_weight: float = param(1.0, "service that a prompt token counts as", ge=0)
    output_weight: float = param(2.0, "service that an output token counts as", ge=0)
    tenant_weights: str = param("", "shares of tenants, as in 'gold=4, silver=2'; those not named have 1")

    def reset(self) -> None:
        """Begin with all counters at zero."""
        self._weights = _weights(self.tenant_weights)
        self._prompt_tokens: dict[str, int] = {}
        self._lift: dict[str, float] = {}
        self._last_left: str | None = None

    def named_tenants(self) -> tuple[str, ...]:
        """Return those that have weights of their own."""
        return tuple(self._weights)

    def counter(self, tenant: str, tenants: TenantsView) -> float:
        """Return a tenant's virtual counter: weighted tokens, over its weight, and what it was lifted by."""
        prompt = self._prompt_tokens.get(tenant, 0)
        served = self.input_weight * prompt + self.output_weight * tenants.output_tokens(tenant)
        return self._lift.get(tenant, 0.0) + served / self._weights.get(tenant, 1.0)

    def choose(self, tenants: TenantsView) -> str:
        """Return the tenant of the least counter; ties go to who came to wait first."""
        return min(tenants.waiting, key=lambda tenant: self.counter(tenant, tenants))

    def came(self, tenant: str, tenants: TenantsView) -> None:
        """Lift the counter of a tenant who comes to wait."""
        if tenants.waiting:
            level = min(self.counter(each, tenants) for each in tenants.waiting)
        elif self._last_left is not None:
            level = self.counter(self._last_left, tenants)
        else:
            return
        missing = level - self.counter(tenant, tenants)
        if missing > 0:
            self._lift[tenant] = self._lift.get(tenant, 0.0) + missing

    def left(self, tenant: str, tenants: TenantsView) -> None:
        """Remember who stopped waiting last."""
        self._last_left = tenant

    def admitted(self, request: RequestView, tenants: TenantsView) -> None:
        """Charge a request's prompt."""
        self._prompt_tokens[request.tenant] = self._prompt_tokens.get(request.tenant, 0) + request.prompt_tokens

    def stable_steps(self, tenants: TenantsView) -> int:
        """Return the steps until another tenant's counter is below that of the one whose turn it is."""
        turn = self.choose(tenants)
        own, rate = self.counter(turn, tenants), self._rate(turn, tenants)
        steps = UNBOUNDED
        for tenant in tenants.waiting:
            gains = rate - self._rate(tenant, tenants)
            if gains > 0:
                steps = min(steps, int((self.counter(tenant, tenants) - own) / gains))
        return max(1, steps)

    def _rate(self, tenant: str, tenants: TenantsView) -> float:
        """Return what a step of decodes adds to a tenant's counter."""
        return self.output_weight * tenants.decoding(tenant) / self._weights.get(tenant, 1.0)


def _weights(text: str) -> dict[str, float]:
    """Return the weights of tenants in ``a=2, b=0.5``."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        tenant, equals, weight = (each.strip() for each in part.rpartition("="))
        try:
            number = float(weight)
        except ValueError:
            number = 0.0
        if not (equals and tenant and 0 < number < float("inf")):
            raise PolicyError(
                "parameter 'tenant_weights' of policy 'vtc' must be like 'gold=4, silver=2', weights above 0, got "
                f"{part!r}"
            )
        found[tenant] = number
    return found
