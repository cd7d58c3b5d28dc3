"""Microbenchmarks of ours: kernels of LLM serving, measured on the GPU at hand (``simulate calibrate run``).

Pure parts (shapes, outlier rule, resuming, rows, budget) import neither torch nor triton and are tested without a
GPU; the parts that touch the device import them when they run.
"""
