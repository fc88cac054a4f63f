"""SEG-SAM judged on pictures with masks: every object is asked for by a box and by clicks, and everything said is compared.

Comes in: a models folder, segmenters trained on its encoder, a set of masks. Goes out: :class:`Results`, and a page of tables.
"""

from msmedcap.evaluation.segmentation.judge import PROMPTS, Judged, Results, judge
from msmedcap.evaluation.segmentation.presence import fit_presence
from msmedcap.evaluation.segmentation.tables import write_page

__all__ = ["PROMPTS", "Judged", "Results", "fit_presence", "judge", "write_page"]
