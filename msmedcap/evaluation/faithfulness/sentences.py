"""What the study found, in a sentence for whoever looks at a map.

Comes in: the models and the system whose map is shown. Goes out: a sentence for each method, from ``faithfulness.json`` beside the
weights; none where it is absent or damaged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msmedcap.checkpoints import folder_of
from msmedcap.config import UserError
from msmedcap.evaluation.faithfulness.tables import SEEN, beats

log = logging.getLogger(__name__)

FILE = "faithfulness.json"
CHEST = "chest X-rays"  # what the names of the groups of chest films begin with
_FEW = 10  # films of a word: with fewer nothing follows
_SHORT = {"pointed": "pointing", "deletion": "deletion"}
_WHAT = {"pointed": "pointing at the finding", "deletion": "deleting what the word hangs on"}


def measured(models: str, *, system: str = "MSMedCap") -> dict[str, str]:
    """By method, how its maps did on made scans whose finding ``system`` sees, for which words and on chest X-rays.

    Empty where that was not measured.
    """
    try:
        file = folder_of(models) / FILE
        told = json.loads(file.read_text(encoding="utf-8"))
        entry = told["groups"].get(SEEN, {}).get(system)
        if entry is None:
            return {}
        films = {
            group.removeprefix(CHEST).strip(" ,"): systems[system]["methods"]
            for group, systems in told["groups"].items()
            if group.startswith(CHEST) and system in systems
        }
        return _sentences(entry, films, mostly(told.get("kinds", {}).get(system, ())))
    except (FileNotFoundError, UserError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s of %s cannot be used, so nothing is said of how maps were measured: %s", FILE, models, error)
        return {}


def mostly(kinds: Sequence[Sequence[Any]]) -> str:
    """What more than half of the made scans whose finding is seen are of; empty where there is no such majority.

    ``kinds`` are (kind of phantom as ``"MRI head: mass"``, how many were made, how many seen).
    """
    seen: dict[str, int] = {}
    for kind, _, count in kinds:
        of = str(kind).partition(":")[0]
        seen[of] = seen.get(of, 0) + int(count)
    most = max(seen, key=lambda of: seen[of], default="")
    return most if 2 * seen.get(most, 0) > sum(seen.values()) else ""


def _sentences(entry: Mapping[str, Any], films: Mapping[str, Mapping[str, Any]], most: str) -> dict[str, str]:
    """``entry`` is the system's among the seen phantoms, ``films`` its methods by what was to be pointed at on chest X-rays."""
    methods, which = entry["methods"], f" (most such scans are {most})" if most else ""
    dumb = {name: methods[name]["pointed"][0] for name in ("random", "centre")}
    return {
        method: f"Measured for the finding's word on {own['cases']} made scans whose finding the model uses{which}: "
        f"the hottest place lies on it in {own['pointed'][0]:.0%} (random map {dumb['random']:.0%}, centre "
        f"{dumb['centre']:.0%}). {_verdict(own)} {_films({what: film.get(method, {}) for what, film in films.items()})} "
        "For other words nothing was measured."
        for method, own in methods.items()
        if "pointed over" in own and method != "truth"
    }


def _films(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """What was found on chest X-rays, by what was to be pointed at there."""
    judged = {what: own for what, own in groups.items() if own.get("cases")}
    if not judged:
        return "On chest X-rays it was not measured."
    told = []
    for what, own in judged.items():
        clear = " and in ".join(short for measure, short in _SHORT.items() if beats(own, measure))
        told.append(f"for {what} ({own['cases']} films) it {f'beats both in {clear}' if clear else 'is not shown to be better'}")
    few = max(own["cases"] for own in judged.values()) < _FEW
    return f"On chest X-rays, {'; '.join(told)}." + (" Too few to conclude from." if few else "")


def _verdict(own: Mapping[str, Any]) -> str:
    """Which measures both dumb maps are beaten in, clearly."""
    clear = [what for measure, what in _WHAT.items() if beats(own, measure)]
    if len(clear) == len(_WHAT):
        return f"It beats a random and a centred map in {clear[0]} and in {clear[1]}."
    if clear:
        return f"It beats a random and a centred map in {clear[0]} only."
    return "It is not shown to be better than a random and a centred map."
