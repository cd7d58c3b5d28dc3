"""Triton kernels that are measured: one module a kernel, each with its launcher, its tiles and a PyTorch reference.

Importing a module of this package imports torch and triton; the rest of the microbenchmarks does so only when it runs.
"""
