"""Measures cases on the GPU at hand: makes each ready, finds its quickest tile, takes its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.calibration.microbenchmarks import device
from simulator.calibration.microbenchmarks.case import Case
from simulator.calibration.microbenchmarks.operators import collectives
from simulator.calibration.microbenchmarks.run import PREPARE
from simulator.calibration.microbenchmarks.sampling import Plan, Sample, quickest, sample


class GpuBench:
    """Measures on one machine.

    Parameters
    ----------
    machine
        Its GPU.
    plan
        How long is measured.
    """

    def __init__(self, machine: device.Machine, plan: Plan) -> None:
        self._machine = machine
        self._plan = plan
        self._monitor = device.NvmlMonitor()

    def measure(self, case: Case) -> Sample:
        """Measure one case on the first GPU.

        Raises
        ------
        RuntimeError
            If it can't run: no memory, or no tile that fits.
        """
        device.release()
        work = PREPARE[case.operator](case, self._machine.gpu)
        batches = [(variant.label, device.batch_of(work, variant)) for variant in work.variants]
        best = 0
        if len(batches) > 1:
            best, _ = quickest(batches, self._plan.tune_s, work.sets)
        taken = sample(batches[best][1], self._plan, self._monitor, sets=work.sets)
        return replace(taken, variant=batches[best][0])

    def measure_collectives(self, cases: Sequence[Case], ranks: int) -> list[Sample]:
        """Measure collectives of that many GPUs.

        Raises
        ------
        RuntimeError
            If a rank failed, with what it said.
        """
        try:
            return collectives.measure(cases, ranks, self._plan)
        except Exception as error:  # whatever torch.multiprocessing makes of a rank's end
            said = str(error).strip().splitlines() or [type(error).__name__]  # the rank's traceback
            raise RuntimeError(f"collectives of {ranks} ranks: {said[-1]}") from error
