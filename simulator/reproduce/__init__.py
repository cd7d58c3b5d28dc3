"""Published results beside the simulator's: one module a study in `simulator.reproduce.studies`, found by its name.

``simulate reproduce`` lists them, ``simulate reproduce NAME`` runs one; in Python `reproduce`. A figure that the
simulator does not reach is shown as it is, with what explains the difference: nothing is tuned to the papers.
"""

from __future__ import annotations

from simulator.reproduce.running import Reproduction, load_study, reproduce, study_names
from simulator.reproduce.runs import Run
from simulator.reproduce.study import Options, PaperFigure, Row, Study

__all__ = ["Options", "PaperFigure", "Reproduction", "Row", "Run", "Study", "load_study", "reproduce", "study_names"]
