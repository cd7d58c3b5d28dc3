"""Which accelerator of the catalogue a device is, and what NVML's bits say."""

from __future__ import annotations

import pytest

from simulator.calibration.microbenchmarks.device import throttling
from simulator.calibration.microbenchmarks.hardware import catalogue_entry, spelled

GIB = 2**30


@pytest.mark.parametrize(
    ("device", "memory_gib", "name"),
    [
        ("NVIDIA H200", 139.8, "h200"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100-sxm"),
        ("NVIDIA H100 PCIe", 79.1, "h100-pcie"),
        ("NVIDIA H100 NVL", 93.1, "h100-nvl"),
        ("NVIDIA A100-SXM4-80GB", 79.1, "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", 79.1, "a100-80gb-pcie"),
        ("NVIDIA GeForce RTX 4090", 23.5, "rtx-4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 94.9, "rtx-pro-6000"),
        ("NVIDIA L40S", 44.4, "l40s"),
        ("NVIDIA L4", 22.0, "l4"),
        ("NVIDIA A10G", 22.3, "a10g"),
        ("Tesla T4", 14.6, "t4"),
        ("NVIDIA B200", 178.4, "b200"),
    ],
)
def test_devices_of_the_catalogue(device: str, memory_gib: float, name: str) -> None:
    found = catalogue_entry(device, int(memory_gib * GIB))
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("device", "memory_gib"),
    [
        ("NVIDIA A100-PCIE-40GB", 39.4),  # "a100" is another board, with 80 GB
        ("NVIDIA H200 NVL", 139.8),  # another board of the same chip
        ("NVIDIA H20", 95.0),  # not an H200
        ("NVIDIA H200", 70.0),  # a part of one
        ("NVIDIA GeForce RTX 5090", 31.3),
    ],
)
def test_devices_that_the_catalogue_does_not_have(device: str, memory_gib: float) -> None:
    assert catalogue_entry(device, int(memory_gib * GIB)) is None


def test_names_are_spelled_as_in_the_catalogue() -> None:
    assert spelled("NVIDIA A100-PCIE-40GB") == "a100-pcie-40gb"


def test_throttling_in_words() -> None:
    assert throttling(0x1) == ()  # idle
    assert throttling(0x4 | 0x40) == ("power cap", "hardware thermal slowdown")
