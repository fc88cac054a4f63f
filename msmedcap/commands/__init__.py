"""What the commands do, one function for each.

Comes in: the parsed arguments of :mod:`msmedcap.__main__`. Goes out: results through :class:`Output`, files where a command writes
some, and the exit status: :data:`DONE`, :data:`SKIPPED` (some scans could not be read; each was reported) or :data:`FAILED`
(nothing was done). Imports that need PyTorch stand inside the functions: ``--help`` must not wait for them.
"""

from msmedcap.commands.evaluation import run_evaluate, run_figure4, run_table1
from msmedcap.commands.folders import run_convert, run_download, run_pull, run_push, run_shards
from msmedcap.commands.output import DONE, FAILED, SKIPPED, Output, sentence
from msmedcap.commands.scans import run_caption, run_explain
from msmedcap.commands.segment import run_segment
from msmedcap.commands.training import run_demo_weights, run_train

__all__ = [
    "DONE", "FAILED", "SKIPPED", "Output", "run_caption", "run_convert", "run_demo_weights", "run_download", "run_evaluate",
    "run_explain", "run_figure4", "run_pull", "run_push", "run_segment", "run_shards", "run_table1", "run_train", "sentence",
]
