"""Reports: from any result, one HTML file that needs nothing else."""

from simulator.reports.document import Bullets, Code, Document, Facts, Plot, Section, Table, Text
from simulator.reports.making import Report, report
from simulator.reports.rendering import render

__all__ = [
    "Bullets",
    "Code",
    "Document",
    "Facts",
    "Plot",
    "Report",
    "Section",
    "Table",
    "Text",
    "render",
    "report",
]
