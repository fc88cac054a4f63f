"""MSMedCap: three captions of a medical scan side by side, and where the models looked.

``msmedcap.load("demo").set_scan(path)``, then ``.captions()``, ``.maps()`` and ``.segment()``.
Importing the package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

__version__ = "0.1.0"


def load(models: str = "demo", **options: Any) -> Predictor:
    """A :class:`~msmedcap.predictor.Predictor` for ``demo``, ``full`` or a model folder (options: ``device``, ``load_8bit``)."""
    from msmedcap.predictor import load as load_predictor

    return load_predictor(models, **options)
