"""The check whether a scan is unlike the training data: fitted, its limit set, and tried on pictures that should alarm it.

Comes in: a models folder and the data folder its demo weights were made with. Goes out: ``unlike.safetensors`` and ``unlike.json``
beside the weights (:mod:`msmedcap.explain.unlike` reads them), with the false alarms on pictures held back and what was detected.
"""

from msmedcap.evaluation.unlike.fit import SHARE, fit_unlike
from msmedcap.evaluation.unlike.strange import strange_pictures

__all__ = ["SHARE", "fit_unlike", "strange_pictures"]
