"""What the study found, in a sentence for whoever looks at a map.

Comes in: the models and the system whose map is shown. Goes out: a sentence for each method, from ``faithfulness.json`` beside the
weights; none where it is absent or damaged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from msmedcap.checkpoints import folder_of
from msmedcap.config import UserError
from msmedcap.evaluation.faithfulness.tables import SEEN, beats

log = logging.getLogger(__name__)

FILE = "faithfulness.json"
_WHAT = {"pointed": "pointing at the finding", "deletion": "deleting what the word hangs on"}


def measured(models: str, *, system: str = "MSMedCap") -> dict[str, str]:
    """By method, how its maps did on made scans whose finding ``system`` sees; empty where that was not measured."""
    try:
        file = folder_of(models) / FILE
        told = json.loads(file.read_text(encoding="utf-8"))
        entry = told["groups"].get(SEEN, {}).get(system)
        return {} if entry is None else _sentences(entry)
    except (FileNotFoundError, UserError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s of %s cannot be used, so nothing is said of how maps were measured: %s", FILE, models, error)
        return {}


def _sentences(entry: Mapping[str, Any]) -> dict[str, str]:
    methods = entry["methods"]
    dumb = {name: methods[name]["pointed"][0] for name in ("random", "centre")}
    return {
        method: f"Measured on {own['cases']} made scans whose finding the model uses: the hottest place lies on it in "
        f"{own['pointed'][0]:.0%} (random map {dumb['random']:.0%}, centre {dumb['centre']:.0%}). {_verdict(own)}"
        for method, own in methods.items()
        if "pointed over" in own and method != "truth"
    }


def _verdict(own: Mapping[str, Any]) -> str:
    """Which measures both dumb maps are beaten in, clearly."""
    clear = [what for measure, what in _WHAT.items() if beats(own, measure)]
    if len(clear) == len(_WHAT):
        return f"It beats a random and a centred map in {clear[0]} and in {clear[1]}."
    if clear:
        return f"It beats a random and a centred map in {clear[0]} only."
    return "It is not shown to be better than a random and a centred map."
