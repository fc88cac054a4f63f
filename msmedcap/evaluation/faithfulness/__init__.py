"""The maps of words, measured: do they point at the finding, and does the word go when what they point at goes?

Comes in: a models folder, made scans whose truth is known, and the real chest masks. Goes out: a row for every map of every case
(:mod:`.judge`), the choice of the default method on one half of the cases and its numbers on the other (:mod:`.tables`).
"""

from msmedcap.evaluation.faithfulness.cases import Case, chest_cases, phantom_cases
from msmedcap.evaluation.faithfulness.judge import Judge, Judged
from msmedcap.evaluation.faithfulness.sanity import Redrawn, sanity
from msmedcap.evaluation.faithfulness.sentences import measured
from msmedcap.evaluation.faithfulness.study import Plan, Study
from msmedcap.evaluation.faithfulness.tables import about, choose, summary, write_json, write_page

__all__ = [
    "Case", "Judge", "Judged", "Plan", "Redrawn", "Study", "about", "chest_cases", "choose", "measured", "phantom_cases", "sanity",
    "summary", "write_json", "write_page",
]
