"""Kernel tables of the installed package ``aiconfigurator-core``, read into the measurement schema.

The package (NVIDIA, Apache-2.0, optional extra ``aiconfigurator``) holds times of single kernels, measured engine by
engine and system by system. Only those Parquet tables are read: never the package's code, whose import is heavy, and
never its end-to-end sample of serving measurements, against which this project is validated.
"""

from __future__ import annotations

from simulator.calibration.aiconfigurator.importing import Import, LeftOut, Taken, import_report, import_tables
from simulator.calibration.aiconfigurator.package import backends, systems

__all__ = ["Import", "LeftOut", "Taken", "backends", "import_report", "import_tables", "systems"]
