"""The catalogue's prices, and files of one's own."""

from __future__ import annotations

import pytest

from hardware_profiles import ProfileError
from hardware_profiles.prices import PURCHASES, load_offers, providers

OFFER = (
    "{gpu: h200, usd_per_gpu_hour: 4.0, provider: p, region: r, purchase: spot, seen: 2026-01-02, source: 'https://x'}"
)


def test_every_offer_of_the_catalogue_says_where_it_is_from():
    offers = load_offers()
    assert {"a100-80gb", "h100-sxm", "h200", "l40s"} <= {each.gpu for each in offers}
    for each in offers:
        assert 0.05 < each.usd_per_gpu_hour < 20
        assert each.purchase in PURCHASES
        assert each.source.startswith("https://")
        assert each.provider and each.region and each.seen
    assert len({(each.gpu, each.provider, each.purchase) for each in offers}) == len(offers)
    assert providers(offers)[0] == "runpod-secure"


def test_a_file_of_ones_own_is_read(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text(f"offers: [{OFFER}]")
    (found,) = load_offers(file)
    assert (found.gpu, found.usd_per_gpu_hour, found.purchase, found.seen) == ("h200", 4.0, "spot", "2026-01-02")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gpu: h200", "gpu: h2000", "is unknown: 'h2000'.*h200"),
        ("4.0", "-1", "above 0"),
        ("spot", "stolen", "'purchase' is unknown"),
        ("2026-01-02", "yesterday", "must be a date"),
        ("provider: p, ", "", "'provider' is missing"),
    ],
)
def test_a_bad_offer_is_refused_with_its_place(tmp_path, old, new, said):
    file = tmp_path / "prices.yaml"
    file.write_text(f"offers: [{OFFER.replace(old, new)}]")
    with pytest.raises(ProfileError, match=f"entry 1.*{said}"):
        load_offers(file)
