"""The two Java programs of the COCO caption toolkit, as ``pycocoevalcap`` brings them: Stanford's PTB tokeniser and METEOR 1.5.

Comes in: texts. Goes out: the tokens that the toolkit scores, and METEOR's counts for each case. Both programs get all their
input through one pipe and are read to the end, in a fixed language and encoding: unlike the toolkit's own classes, which write
into the installed package, hold a conversation that can block, and follow the computer's locale. The numbers are the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msmedcap.config import UserError
from msmedcap.evaluation.metric import Array

METEOR_COUNTS = 23
"""Lengths, function words (4); matches by kind, content or function, candidate or reference (16); chunks; matched words (2)."""
_CHUNKS = 20

# What the tokeniser takes for the end of a line: a caption must be one line, or all that follow would be shifted.
_LINE_ENDS = re.compile("[\n\r\v\f\u2028\u2029]")
_SETTINGS = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")
_METEOR_MEMORY = "-Xmx2G"


def tokenise(texts: Sequence[str]) -> list[str]:
    """The tokens of each of ``texts``, lower case, joined by blanks, punctuation left out, as the toolkit tokenises.

    The tokeniser reads the texts as one: whether the full stop of "part B." belongs to its last word depends on how the next text
    begins. So order matters, if little, and references and each system's candidates are given separately, as the toolkit does.
    Raises :class:`UserError` where Java or the toolkit is missing.
    """
    from_java = java()
    try:
        from pycocoevalcap.tokenizer import ptbtokenizer
    except ImportError:
        raise UserError(_NO_TOOLKIT) from None
    command = [from_java, *_SETTINGS, "-cp", ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR,
               "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "UTF-8"]  # fmt: skip
    folder = Path(ptbtokenizer.__file__).parent
    lines = _answers(command, [_LINE_ENDS.sub(" ", text) for text in texts], folder, "The PTB tokeniser")
    ignored = frozenset(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.rstrip().split(" ") if word not in ignored) for line in lines]


def meteor_counts(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> Array:
    """METEOR's counts ``[N,23]`` of tokenised candidates against their tokenised references, the best reference of each case.

    As METEOR sums them: a candidate that is its reference, word by word, is no chunk, for it is not broken into any.
    Raises :class:`UserError` where Java or the toolkit is missing, or where METEOR gets too little memory.
    """
    from_java = java()
    try:
        from pycocoevalcap.meteor import meteor
    except ImportError:
        raise UserError(_NO_TOOLKIT) from None
    asked = [" ||| ".join(("SCORE", *texts, text)) for texts, text in zip(references, candidates, strict=True)]
    unique = list(dict.fromkeys(asked))
    command = [from_java, _METEOR_MEMORY, *_SETTINGS, "-jar", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    lines = _answers(command, unique, Path(meteor.__file__).parent, "METEOR")
    counts = np.empty((len(unique), METEOR_COUNTS))
    for row, line in zip(counts, lines, strict=True):
        row[:] = line.split()
    matches = counts[:, 4:20].reshape(-1, 8, 2).sum(1)
    counts[(matches == counts[:, :2]).all(1) & (counts[:, _CHUNKS] == 1), _CHUNKS] = 0
    places = {question: index for index, question in enumerate(unique)}
    return counts[[places[question] for question in asked]]


def java() -> str:
    """The Java program; raises :class:`UserError` that says how to get it."""
    found = shutil.which("java")
    if found is None:
        raise UserError(
            "BLEU, METEOR, ROUGE-L and CIDEr are computed as the COCO caption toolkit does, which needs Java: install it "
            "(Debian and Ubuntu: apt install default-jre-headless) or leave these metrics out."
        )
    return found


_NO_TOOLKIT = (
    "BLEU, METEOR, ROUGE-L and CIDEr need the COCO caption toolkit: install it (pip install pycocoevalcap) or leave them out."
)


def _answers(command: Sequence[str], lines: Sequence[str], folder: Path, name: str) -> list[str]:
    """What ``command``, run in ``folder``, answers to ``lines``: one line each."""
    done = subprocess.run(
        command, input="\n".join(lines).encode("utf-8", "replace"), capture_output=True, cwd=folder, check=False
    )
    answers = done.stdout.decode("utf-8").split("\n")
    if len(answers) == len(lines) + 1 and not answers[-1]:
        answers.pop()
    if done.returncode or len(answers) != len(lines) or any(answer.startswith("Error:") for answer in answers):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise UserError(f"{name} failed (exit {done.returncode}, {len(answers)} of {len(lines)} lines); its last words: {said[-1]}")
    return answers
