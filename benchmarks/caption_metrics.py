"""What it takes to score many captions by BLEU, METEOR, ROUGE-L and CIDEr: seconds and peak memory, the toolkit's beside them.

Captions are ROCO's radiology captions where they are found (``MSMEDCAP_DATA``, else ``shared/data`` beside the checkout), else made
of radiology words as unevenly frequent as in a language. Every pair is new: the halves of two captions joined, so that no text
occurs twice. Each measurement is a process of its own, whose peak counts; Java's is counted apart.

    python -m benchmarks.caption_metrics 50000                 one measurement, as a line of JSON
    python -m benchmarks.caption_metrics 50000 --toolkit       the toolkit's, without METEOR
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports torch, whose memory is not to be counted here
    from benchmarks.timing import Row

GROUP = "caption metrics"
ROOT = Path(__file__).resolve().parent.parent
NO_METEOR = ("BLEU", "ROUGE-L", "CIDEr")
_WORDS = """
    the of in and a left right axial ct scan showing with mri image chest computed tomography arrow abdomen mass lung radiograph
    showed pelvis lesion coronal fracture bone anterior posterior artery ultrasound lateral magnetic resonance weighted contrast
    sagittal enhancement large view upper lobe femoral liver renal spine brain small effusion catheter nodule dilated bowel
"""


def rows(*, device: object, quick: bool) -> Iterator[Row]:
    """Seconds and memory for few and for many pairs, without and with METEOR, and the toolkit's own for the few."""
    from benchmarks.timing import Row

    few, many = (50, 200) if quick else (5_000, 50_000)
    ours, peer = measured(few), measured(few, "--toolkit")
    yield Row(GROUP, f"{few:,} pairs, BLEU, ROUGE-L, CIDEr", ours["seconds"], peer["seconds"], note=f"{ours['captions']} captions")
    yield Row(GROUP, f"{few:,} pairs, peak memory", ours["mb"], peer["mb"], unit="MB")
    ours = measured(many)
    yield Row(GROUP, f"{many:,} pairs, BLEU, ROUGE-L, CIDEr", ours["seconds"], goal="minutes")
    yield Row(GROUP, f"{many:,} pairs, peak memory", ours["mb"], unit="MB", note=f"Java {ours['java_mb']:.0f} MB")
    ours = measured(many, "--meteor")
    yield Row(GROUP, f"{many:,} pairs, BLEU, METEOR, ROUGE-L, CIDEr", ours["seconds"], goal="minutes")
    yield Row(GROUP, f"{many:,} pairs with METEOR, peak memory", ours["mb"], unit="MB", note=f"Java {ours['java_mb']:.0f} MB")


def measured(pairs: int, *options: str) -> dict[str, Any]:
    """One measurement in its own process."""
    command = [sys.executable, "-m", "benchmarks.caption_metrics", str(pairs), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def made_pairs(count: int, *, seed: int = 0) -> tuple[list[list[str]], list[str], str]:
    """References, candidates that share half of their caption, and what the captions are."""
    chance = random.Random(seed)
    captions, kind = _captions(chance)
    references, candidates = [], []
    for _ in range(count):
        first, second, third = (chance.choice(captions).split() for _ in range(3))
        head = first[: (len(first) + 1) // 2]
        references.append([" ".join(head + second[len(second) // 2 :])])
        candidates.append(" ".join(head + third[len(third) // 2 :]))
    return references, candidates, kind


def _captions(chance: random.Random) -> tuple[list[str], str]:
    folder = Path(os.environ.get("MSMEDCAP_DATA", ROOT.parent / "shared" / "data"))
    file = folder / "roco_text" / "data" / "validation" / "radiology" / "captions.txt"
    if file.is_file():
        with file.open(encoding="utf-8", newline="\n") as lines:
            return [line.split("\t", 1)[1].strip() for line in lines], "real"
    single = _WORDS.split()
    words = single + [f"{a}{b}" for a in single for b in single]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [" ".join(chance.choices(words, weights, k=chance.randint(5, 40))) + "." for _ in range(8000)], "made-up"


def _toolkit(references: list[list[str]], candidates: list[str]) -> None:
    """The same metrics by the toolkit's own classes, all held in memory as it does."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    truths = tokenizer.tokenize({i: [{"caption": text} for text in case] for i, case in enumerate(references)})
    texts = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(candidates)})
    for scorer in (Bleu(4), Rouge(), Cider()):
        scorer.compute_score(truths, texts)


def main() -> None:
    """Measure once, in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caption_metrics", description="Score made pairs once; prints JSON.")
    parser.add_argument("pairs", type=int)
    parser.add_argument("--meteor", action="store_true", help="METEOR too")
    parser.add_argument("--toolkit", action="store_true", help="the toolkit's own classes, without METEOR")
    args = parser.parse_args()
    references, candidates, kind = made_pairs(args.pairs)
    start = time.perf_counter()
    if args.toolkit:
        _toolkit(references, candidates)
    else:
        from msmedcap.evaluation import ngrams

        ngrams.score(references, candidates, metrics=ngrams.GROUPS if args.meteor else NO_METEOR)
    seconds = time.perf_counter() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy, java_busy = (usage.ru_utime + usage.ru_stime for usage in used)
    found = {"pairs": args.pairs, "captions": kind, "seconds": seconds, "cpu_seconds": busy, "java_cpu_seconds": java_busy}
    print(json.dumps(found | {"mb": used[0].ru_maxrss / 1024, "java_mb": used[1].ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
