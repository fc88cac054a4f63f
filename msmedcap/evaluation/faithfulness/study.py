"""The study from the first case to the last: what is judged, in which order, kept line by line so that it can go on.

Comes in: loaded models, a seed and the chest set's folder. Goes out: a file of JSON lines: ``screened`` phantoms (does the
system see the finding?), ``judged`` maps and ``redrawn`` weights. A line that is there is not made again.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msmedcap.checkpoints import Models
from msmedcap.evaluation.faithfulness.cases import Case, chest_cases, phantom_cases
from msmedcap.evaluation.faithfulness.judge import REFERENCES, SEEN, Judge, Judged
from msmedcap.evaluation.faithfulness.sanity import Redrawn, sanity

log = logging.getLogger(__name__)

CHOOSING = 6
"""How many seen phantoms the default is chosen on, at most."""


@dataclass(frozen=True)
class Plan:
    """How much is judged: phantoms whose finding is seen, by half; unseen ones; chest cases of each word; sanity cases."""

    seen: Mapping[str, int]
    unseen: int
    screened: int
    chest: int
    sane: int
    seed: int = 61

    @staticmethod
    def of(cases: int) -> Plan:
        """``cases`` seen phantoms in the reported half and fewer of the rest; a larger plan goes on from a smaller one."""
        half, quarter = max(1, cases // 2), max(1, cases // 4)
        seen = {"choice": min(half, CHOOSING), "report": cases}
        return Plan(seen, unseen=min(quarter, 4), screened=40 * cases, chest=half, sane=min(2, cases))


class Study:
    """One run into ``raw``; what lies there is taken as done."""

    def __init__(self, models: Models, methods: Sequence[str], raw: Path, plan: Plan) -> None:
        self._models, self._methods, self._raw, self._plan = models, tuple(methods), raw, plan
        self.judged: list[Judged] = []
        self.redrawn: list[Redrawn] = []
        self._screened: dict[tuple[str, str], tuple[str, bool]] = {}
        for line in raw.read_text(encoding="utf-8").splitlines() if raw.is_file() else ():
            self._take(json.loads(line))

    def phantoms(self, system: str) -> None:
        """Judge the phantoms: screened in turn until there are as many of each sort as planned."""
        judge, wanted = Judge(self._models, system, self._methods), Counter(self._plan.seen)
        wanted["unseen"] = self._plan.unseen
        for case in phantom_cases(self._plan.screened, seed=self._plan.seed):
            if not any(wanted.values()):
                break
            if (system, case.id) not in self._screened:
                before, after = judge.sees(case)
                self._keep({"screened": [system, case.id, case.kind, after < SEEN * before]})
            seen = self._screened[system, case.id][1]
            # Whether a map points at what is not seen is worth knowing, but nothing is chosen by it.
            sort = case.half if seen else "unseen" if case.half == "report" else ""
            if wanted[sort] > 0:
                wanted[sort] -= 1
                self._judge(judge, system, case)

    def chest(self, system: str, folder: Path) -> None:
        """Judge the chest films, as many of each word as planned, the first by name."""
        judge = Judge(self._models, system, self._methods)
        count: Counter[str] = Counter()
        for case in chest_cases(folder):
            count[case.set] += 1
            if count[case.set] <= self._plan.chest:
                self._judge(judge, system, case)

    def sanity(self, system: str) -> None:
        """Compare maps with those of weights drawn anew, on the first phantoms of the reported half."""
        if any(row.system == system for row in self.redrawn):
            return
        cases = [c for c in phantom_cases(self._plan.screened, seed=self._plan.seed) if c.half == "report"][: self._plan.sane]
        for row in sanity(self._models, system, self._methods, cases):
            self._keep({"redrawn": dataclasses.asdict(row)})

    def kinds(self) -> dict[str, list[tuple[str, int, int]]]:
        """For each system, of every kind of phantom how many were screened, and of how many it sees the finding."""
        found = {}
        for system in dict.fromkeys(name for name, _ in self._screened):
            own = [told for (name, _), told in self._screened.items() if name == system]
            made, seen = Counter(kind for kind, _ in own), Counter(kind for kind, is_seen in own if is_seen)
            found[system] = [(kind, made[kind], seen[kind]) for kind in sorted(made)]
        return found

    def _judge(self, judge: Judge, system: str, case: Case) -> None:
        done = {row.method for row in self.judged if (row.system, row.case) == (system, case.id)}
        if not done.issuperset((*self._methods, *REFERENCES)):
            self._keep({"judged": [dataclasses.asdict(row) for row in judge.judge(case, done=done)]})
            log.info("%s: %s (%s)", system, case.id, case.kind)

    def _keep(self, line: dict[str, Any]) -> None:
        with self._raw.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "screened" in line:
            system, id, kind, seen = line["screened"]
            self._screened[system, id] = (kind, seen)
        self.judged += [Judged(**row) for row in line.get("judged", ())]
        if "redrawn" in line:
            self.redrawn.append(Redrawn(**line["redrawn"]))
