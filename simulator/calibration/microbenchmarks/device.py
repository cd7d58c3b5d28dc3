"""The GPU at hand: what it is, batches of launches timed on it, and what NVML says of it while it works."""
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from hardware_profiles import Accelerator
from simulator.calibration.microbenchmarks.case import Variant, Work
from simulator.calibration.microbenchmarks.hardware import catalogue_entry, spelled
from simulator.calibration.microbenchmarks.operators.base import Gpu
from simulator.calibration.microbenchmarks.sampling import Batch, Reading
from simulator.errors import InputError

NO_GPU = "simulate calibrate run needs an NVIDIA GPU that PyTorch can see; none was found"
NO_PACKAGES = "simulate calibrate run needs torch and triton: pip install 'llm-cluster-simulator[calibrate]'"

FP8_CAPABILITY = (8, 9)
"""Compute capability from which tensor cores multiply fp8 (CUDA C++ Programming Guide, Ada and Hopper)."""

_THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Reasons of lower clocks by bit of ``nvmlDeviceGetCurrentClocksEventReasons`` (nvml.h); idleness isn't one of them."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPU that is measured, and the versions of what measures it.

    Attributes
    ----------
    gpu
        What cases are made ready on.
    name
        As PyTorch gives it.
    hardware
        Catalogue name; the device's own, spelled alike, where the catalogue has none.
    profile
        Data sheet from the catalogue; None where it has none.
    memory_bytes
        Total memory that the driver reports.
    fp8
        True: tensor cores multiply fp8.
    gpus
        GPUs that PyTorch sees.
    version
        Of everything that has a part in the times.
    """

    gpu: Gpu
    name: str
    hardware: str
    profile: Accelerator | None
    memory_bytes: int
    fp8: bool
    gpus: int
    version: str


def find_machine() -> Machine:
    """Return the machine's first GPU.

    Raises
    ------
    InputError
        If torch or triton isn't installed, there is no NVIDIA GPU, or Triton is set to its interpreter.
    """
    # Triton 3.9 warns where this isn't set: sums of products stay fused, as they always were.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    try:
        import torch
        import triton
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] not in ("torch", "triton"):
            raise
        raise InputError(NO_PACKAGES) from None
    if not torch.cuda.is_available() or torch.version.cuda is None:
        raise InputError(NO_GPU)
    from simulator.calibration.microbenchmarks.kernels.tiles import interpreting

    if interpreting():
        raise InputError("TRITON_INTERPRET is set: kernels would run on the CPU; unset it to measure the GPU")
    facts = torch.cuda.get_device_properties(0)
    profile = catalogue_entry(facts.name, facts.total_memory)
    return Machine(
        gpu=Gpu("cuda:0", facts.L2_cache_size, facts.multi_processor_count),
        name=facts.name,
        hardware=spelled(facts.name) if profile is None else profile.name,
        profile=profile,
        memory_bytes=facts.total_memory,
        fp8=(facts.major, facts.minor) >= FP8_CAPABILITY,
        gpus=torch.cuda.device_count(),
        version=_versions(torch.__version__, triton.__version__, torch.version.cuda),
    )


def _versions(torch_version: str, triton_version: str, cuda_version: str) -> str:
    import simulator

    said = [
        f"simulator {simulator.__version__}",
        f"torch {torch_version}",
        f"triton {triton_version}",
        f"CUDA {cuda_version}",
    ]
    nvml = _nvml()
    if nvml is not None:
        said.append(f"driver {_text(nvml.nvmlSystemGetDriverVersion())}")
    return ", ".join(said)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _nvml() -> Any:
    """Return NVML's module, started; None where it isn't there or doesn't start."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


class NvmlMonitor:
    """Reads energy, clock and throttling of the GPU that PyTorch calls ``cuda:0``, by its UUID or PCI address.

    What NVML can't tell (no such package, an old GPU, a container) is left out of the readings.
    """

    def __init__(self) -> None:
        self._nvml = _nvml()
        self._handle = self._find()

    def _find(self) -> Any:
        import torch

        if self._nvml is None:
            return None
        facts = torch.cuda.get_device_properties(0)
        try:
            # CUDA_VISIBLE_DEVICES renumbers what PyTorch sees, and not what NVML sees.
            return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{facts.uuid}")
        except (AttributeError, self._nvml.NVMLError):
            return None

    def read(self) -> Reading:
        """Return what the device says now."""
        if self._handle is None:
            return Reading()
        nvml, handle = self._nvml, self._handle
        millijoules = self._said(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        clock = self._said(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        reasons = self._said(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return Reading(
            energy_j=None if millijoules is None else millijoules * 1e-3,
            sm_mhz=None if clock is None else float(clock),
            throttled=throttling(int(reasons or 0)),
        )

    def _said(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self._nvml.NVMLError:
            return None


def throttling(bits: int) -> tuple[str, ...]:
    """Return why clocks are held down, in words, from NVML's bits."""
    return tuple(words for bit, words in _THROTTLING.items() if bits & bit)


def batch_of(work: Work, variant: Variant) -> Batch:
    """Return what runs batches of a variant and times them on the device.

    Launches of a graph are captured once for each batch size.
    """
    import torch

    if work.timed == "host":
        return _host_batch(work, variant)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    captured: dict[int, Any] = {}

    def launch_all(launches: int) -> None:
        for i in range(launches):
            variant.launch(i % work.sets)

    def graph(launches: int) -> Any:
        if launches not in captured:
            captured.clear()
            captured[launches] = capture(lambda: launch_all(launches), before=lambda: variant.launch(0))
        return captured[launches]

    def run(launches: int) -> float:
        if work.timed == "graph":
            replay = graph(launches).replay
            start.record()
            replay()
        else:
            start.record()
            launch_all(launches)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    return run


@cache
def _capture_stream() -> Any:
    """Return the one stream that graphs are captured on: cuBLAS keeps a workspace for each stream it has seen."""
    import torch

    return torch.cuda.Stream()


def capture(launch: Callable[[], Any], before: Callable[[], Any]) -> Any:
    """Return a CUDA graph of what ``launch`` launches.

    Not by ``torch.cuda.graph``, which collects garbage and empties PyTorch's cache each time: longer than most samples.

    Parameters
    ----------
    before
        Run outside the graph first, on the same stream: what compiles the kernel and takes workspaces.
    """
    import torch

    made, stream = torch.cuda.CUDAGraph(), _capture_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        before()
        torch.cuda.synchronize()
        made.capture_begin()
        try:
            launch()
        finally:
            made.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return made


def _host_batch(work: Work, variant: Variant) -> Batch:
    import torch

    def run(launches: int) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for i in range(launches):
            variant.launch(i % work.sets)
        torch.cuda.synchronize()
        return time.perf_counter() - began

    return run


def release() -> None:
    """Give back the memory of cases that are done, so that a large one finds it in one piece."""
    import torch

    torch.cuda.empty_cache()
