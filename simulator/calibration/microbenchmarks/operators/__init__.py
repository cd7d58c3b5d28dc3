"""What is measured of each operator: its grid of shapes (pure), and a case made ready on the GPU.

A module here has ``cases(limits)`` and ``prepare(case, gpu)``; only the latter imports torch and triton.
"""
