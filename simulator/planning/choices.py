"""The GPUs that a plan may use: which, at what price, how many at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hardware_profiles import load_accelerator
from hardware_profiles.prices import Offer, load_offers, providers
from simulator.errors import InputError, did_you_mean

_KEYS = ("at_most", "price", "node")


@dataclass(frozen=True)
class Choice:
    """One type of GPU.

    Attributes
    ----------
    gpu
        Catalogue name, or the path of a profile.
    price
        US dollars (or whatever the given prices are in) for one GPU and hour.
    offer
        Where the price comes from; None: the caller gave it.
    at_most
        How many GPUs of it there may be; None: as many as it takes.
    node
        Server type; None: GPUs joined at their scale-up bandwidth.
    """

    gpu: str
    price: float
    offer: Offer | None = None
    at_most: int | None = None
    node: str | None = None

    @property
    def source(self) -> str:
        """Where the price comes from, in words."""
        if self.offer is None:
            return "given"
        offer = self.offer
        return f"{offer.provider}, {offer.purchase}, {offer.region}, seen {offer.seen}: {offer.source}"


def choices_of(
    gpus: Sequence[str] | Mapping[str, Mapping[str, Any] | None],
    *,
    prices: Mapping[str, float] | None = None,
    at_most: Mapping[str, int] | None = None,
    provider: str | None = None,
    offers: Sequence[Offer] | None = None,
) -> list[Choice]:
    """Return the GPUs to choose from.

    Parameters
    ----------
    gpus
        Names, or names with ``price``, ``at_most`` and ``node`` each.
    prices, at_most
        By name; they go before the others.
    provider
        Whose list prices are taken; None: the first offer of each GPU.
    offers
        List prices; None: the catalogue's.

    Raises
    ------
    InputError, hardware_profiles.ProfileError
        For an unknown GPU or provider, a bad limit, or a GPU that nothing gives a price for.
    """
    listed = load_offers() if offers is None else offers
    if provider is not None and provider not in providers(listed):
        raise InputError(f"unknown provider {provider!r}{did_you_mean(provider, providers(listed))}")
    given: Mapping[str, Mapping[str, Any] | None] = gpus if isinstance(gpus, Mapping) else dict.fromkeys(gpus)
    if not given:
        raise InputError("which GPUs? name at least one, as in: --gpus h100-sxm,l40s")
    names = {gpu: load_accelerator(gpu).name for gpu in given}
    found = []
    prices = _by_name(prices or {}, names, "price")
    at_most = _by_name(at_most or {}, names, "limit")
    for gpu, details in given.items():
        own = dict(details or {})
        for key in own:
            if key not in _KEYS:
                raise InputError(f"gpus: {gpu}: unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
        price, limit = prices.get(gpu, own.get("price")), at_most.get(gpu, own.get("at_most"))
        _check(gpu, price, limit)
        offer = None if price is not None else _offer(names[gpu], provider, listed)
        if offer is not None:
            price = offer.usd_per_gpu_hour
        assert price is not None
        name = gpu if gpu.endswith((".yaml", ".yml")) else names[gpu]
        found.append(Choice(name, float(price), offer, limit, own.get("node")))
    doubled = [each.gpu for each in found]
    for name in doubled:
        if doubled.count(name) > 1:
            raise InputError(f"{name} is named twice among the GPUs")
    return found


def _by_name(given: Mapping[str, Any], names: Mapping[str, str], what: str) -> dict[str, Any]:
    """Return values by the name under which a GPU was given."""
    found = {}
    for key, value in given.items():
        same = [gpu for gpu, name in names.items() if key in (gpu, name) or load_accelerator(key).name == name]
        if not same:
            raise InputError(f"a {what} for {key}, which is not among the GPUs: {', '.join(names)}")
        found[same[0]] = value
    return found


def _check(gpu: str, price: object, limit: object) -> None:
    if price is not None and (isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < 1e6):
        raise InputError(f"the price of {gpu} must be a number above 0 (for one GPU and hour), got {price!r}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(f"at most how many {gpu}? a whole number of at least 1, got {limit!r}")


def _offer(name: str, provider: str | None, offers: Sequence[Offer]) -> Offer:
    of_gpu = [offer for offer in offers if offer.gpu == name]
    for offer in of_gpu:
        if provider in (None, offer.provider):
            return offer
    others = ", ".join(providers(of_gpu))
    other = f", or another --provider: {others}" if others else ""
    whose = "in the catalogue" if provider is None else f"of {provider} in the catalogue"
    raise InputError(f"there is no price for {name} {whose}: give one (--price {name}=1.2, USD per GPU hour){other}")


__all__ = ["Choice", "choices_of"]
