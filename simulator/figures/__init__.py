"""Figures of results, for notebooks and reports: functions that return a Matplotlib figure.

Each takes a result (what `simulator.run` or `simulator.load_result` returns) or a tidy table, and ``ax`` to draw on
axes of your own; without, it makes a figure that a notebook shows and that ``figure.savefig`` writes. Nothing here
touches pyplot.
"""
