"""What it costs to rent a GPU for an hour: published list prices, each with provider, date and source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from hardware_profiles._validate import ProfileReader, nearest, read_yaml
from hardware_profiles.loading import list_accelerators
from hardware_profiles.schema import ProfileError

_FILE = Path(__file__).parent / "prices.yaml"
_KEYS = ("gpu", "usd_per_gpu_hour", "provider", "region", "purchase", "seen", "source")
PURCHASES = ("on-demand", "spot", "reserved")
"""How a GPU may be bought."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A published price of one GPU for an hour.

    Attributes
    ----------
    gpu
        Catalogue name of the accelerator.
    usd_per_gpu_hour
        US dollars.
    provider, region, purchase
        Whose price, where, and how it is bought (one of `PURCHASES`).
    seen
        The day on which it was read, as ISO 8601.
    source
        Address of the provider's page.
    recorded
        Where that page's price was kept; empty where the page itself was read.
    """

    gpu: str
    usd_per_gpu_hour: float
    provider: str
    region: str
    purchase: str
    seen: str
    source: str
    recorded: str = ""


def load_offers(path: str | Path | None = None) -> tuple[Offer, ...]:
    """Return the offers of a file, in its order.

    Parameters
    ----------
    path
        A file of the catalogue's form; None: the catalogue's own.

    Raises
    ------
    ProfileError
        If it is malformed, or names a GPU that there is none of.
    """
    return _read(_FILE if path is None else Path(path))


@cache
def _read(path: Path) -> tuple[Offer, ...]:
    reader = read_yaml(path)
    reader.check_keys(("offers",))
    return tuple(_offer(reader, number, item) for number, item in enumerate(reader.items("offers"), 1))


def _offer(reader: ProfileReader, number: int, item: object) -> Offer:
    where = f"{reader.where}: offers, entry {number}"
    if not isinstance(item, dict):
        raise ProfileError(f"{where}: must be a mapping, got {item!r}")
    entry = ProfileReader(item, where)
    entry.check_keys(_KEYS, ("recorded",))
    gpu, purchase = entry.text("gpu"), entry.text("purchase")
    if gpu not in list_accelerators():
        raise entry.error("gpu", f"is unknown: {gpu!r}{nearest(gpu, list_accelerators())}")
    if purchase not in PURCHASES:
        raise entry.error("purchase", f"is unknown: {purchase!r}{nearest(purchase, PURCHASES)}")
    seen = item["seen"]
    if not isinstance(seen, date):
        raise entry.error("seen", f"must be a date such as 2026-09-25, got {seen!r}")
    return Offer(
        gpu,
        entry.number("usd_per_gpu_hour"),
        entry.text("provider"),
        entry.text("region"),
        purchase,
        seen.isoformat(),
        entry.text("source"),
        entry.text("recorded") if "recorded" in item else "",
    )


def providers(offers: Sequence[Offer]) -> list[str]:
    """Return the providers of offers, in their order."""
    return list(dict.fromkeys(offer.provider for offer in offers))


__all__ = ["PURCHASES", "Offer", "load_offers", "providers"]
