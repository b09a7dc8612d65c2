"""Figures: PNG for documents, SVG for print.

One style for all of them, which colour-blind readers and grey printers can read.

    run.py          of a run, or of several sources side by side
    sweep.py        tokens per inference and speed against nodes, topk, depth, temperature
    phases.py       time of a step by phase
    drafting.py     tokens per inference against what drafting costs
    quality.py      speed against judged quality
    reliability.py  accepted share of nodes against their predicted probability
    style.py        colours, markers, hatches, legends, files
"""

from bench.reporting.figures.drafting import draw_drafting
from bench.reporting.figures.phases import draw_phases
from bench.reporting.figures.quality import draw_quality
from bench.reporting.figures.reliability import draw_reliability
from bench.reporting.figures.run import draw_all
from bench.reporting.figures.style import Figure

__all__ = [
    "Figure", "draw_all", "draw_drafting", "draw_phases", "draw_quality", "draw_reliability",
]  # fmt: skip
