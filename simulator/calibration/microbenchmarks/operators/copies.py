"""Copies: within device memory, over PCIe from and to pinned and pageable memory, and blocks of the KV cache."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from simulator.calibration.microbenchmarks.case import Case, Variant, Work, sets_beyond_cache, shape, variants
from simulator.calibration.microbenchmarks.operators.base import Gpu, Limits

SIZES = tuple(4**i * 1024 for i in range(11))
"""Bytes: 1 KiB to 1 GiB."""

QUICK_SIZES = (65536, 4**5 * 1024, 4**9 * 1024)
"""Bytes: 64 KiB, 1 MiB, 256 MiB."""

LINKS = ("h2d pinned", "d2h pinned", "h2d pageable", "d2h pageable")
"""Copies between host and device, as ``kernel`` names them."""

BLOCK_BYTES = (16384, 65536, 262144)
"""Bytes of a block of the KV cache: 16 tokens of one layer's keys or values, 4 to 64 KiB a token in all."""

BLOCKS = (1, 8, 64, 512, 4096)
QUICK_BLOCKS = (8, 512)


def cases(limits: Limits) -> list[Case]:
    """Return the grids of all."""
    sizes = QUICK_SIZES if limits.quick else SIZES
    found = [Case("copy", "hbm", shape(message_bytes=size), bytes=2.0 * size) for size in sizes]
    found += [Case("copy", link, shape(message_bytes=size), bytes=float(size)) for link in LINKS for size in sizes]
    blocks = [(b, n) for b in BLOCK_BYTES for n in BLOCKS]
    if limits.quick:
        blocks = [(65536, n) for n in QUICK_BLOCKS]
    found += [
        Case(operator, f"triton, blocks of {b} bytes", shape(message_bytes=b * n), "bf16", bytes=2.0 * b * n)
        for operator in ("kv_gather", "kv_scatter")
        for b, n in blocks
    ]
    return [case for case in found if limits.fits(2 * case.bytes)]


def over_pcie(case: Case) -> bool:
    """Tell whether a case's bytes cross PCIe."""
    return case.operator == "copy" and case.kernel in LINKS


def prepare(case: Case, gpu: Gpu) -> Work:
    """Make a case of any of them ready."""
    if case.operator != "copy":
        return _prepare_blocks(case, gpu)
    if over_pcie(case):
        return _prepare_link(case, gpu)
    import torch

    size = case["message_bytes"]
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    source = [torch.randint(256, (size,), dtype=torch.uint8, device=gpu.device) for _ in range(sets)]
    target = [torch.empty_like(each) for each in source]
    return Work((Variant("", lambda i: target[i].copy_(source[i])),), sets)


def _prepare_link(case: Case, gpu: Gpu) -> Work:
    import torch

    size, pinned = case["message_bytes"], case.kernel.endswith("pinned")
    host = torch.randint(256, (size,), dtype=torch.uint8)
    if pinned:
        host = host.pin_memory()
    device = torch.randint(256, (size,), dtype=torch.uint8, device=gpu.device)
    source, target = (host, device) if case.kernel.startswith("h2d") else (device, host)
    # Pageable copies go through a staging buffer by the host's own hand, so its clock is what counts.
    launch = Variant("", lambda i: target.copy_(source, non_blocking=pinned))
    return Work((launch,), 1, "stream" if pinned else "host")


def _prepare_blocks(case: Case, gpu: Gpu) -> Work:
    import torch

    from simulator.calibration.microbenchmarks.kernels.kv_blocks import BLOCKS as TRIED
    from simulator.calibration.microbenchmarks.kernels.kv_blocks import kv_gather, kv_scatter

    block_bytes = block_bytes_of(case)
    count, elements = case["message_bytes"] // block_bytes, block_bytes // 2
    sets = sets_beyond_cache(case.bytes, gpu.cache_bytes)
    pool = 2 * count * sets  # blocks that are copied lie among as many that aren't
    cache = torch.empty((pool, elements), dtype=torch.bfloat16, device=gpu.device).normal_()
    pieces = [torch.empty((count, elements), dtype=torch.bfloat16, device=gpu.device).normal_() for _ in range(sets)]
    order = torch.randperm(pool, device=gpu.device).to(torch.int32)
    indices = [order[i * count : (i + 1) * count].contiguous() for i in range(sets)]
    copy = kv_gather if case.operator == "kv_gather" else kv_scatter
    return Work(
        variants(
            ((str(block), block) for block in TRIED),
            lambda i, block: copy(cache, indices[i], pieces[i], block=block),
        ),
        sets,
    )


def block_bytes_of(case: Case) -> int:
    """Return the bytes of a block of a case of KV blocks."""
    return int(case.kernel.split()[-2])
