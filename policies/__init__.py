"""Policies: what a serving system decides. One policy, one small file, one documented class.

See :mod:`policies.protocols` for what each kind sees and decides, and ``CONTRIBUTING.md`` for how to add one.
"""
