"""Compact fits of kernel times: a few hundred numbers that answer for every shape.

``seconds = max(bound, base x ratio)``. The base and the bound come from the accelerator's data sheet and the shape
(`simulator.calibration.fitting.forms`); the ratio is piecewise multilinear in the logarithms of the shape
(`simulator.calibration.fitting.lattice`), its nodes found by robust, regularised least squares on measurements
(`simulator.calibration.fitting.solving`).
"""
