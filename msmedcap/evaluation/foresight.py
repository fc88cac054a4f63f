"""How long something will take, as one says it. Comes in: seconds. Goes out: words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time as one says it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
