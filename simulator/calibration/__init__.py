"""Calibration: kernel measurements in one schema, where they come from, and how well they are interpolated."""
