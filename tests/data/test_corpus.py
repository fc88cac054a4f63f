"""The text corpus: every set's own layout, training patients only, captions led by facts."""

from __future__ import annotations

import json
from pathlib import Path

from msmedcap.data.captions import plain_caption
from msmedcap.data.corpus import led_captions, paragraphs
from msmedcap.data.sets import split_of

SHEET = {"modality": "CT", "plane": "axial", "part": "head", "finding": "mass"}


def test_paragraphs_of_every_set_and_of_training_patients_alone(tmp_path: Path) -> None:
    roco = tmp_path / "roco_text" / "data" / "validation" / "radiology"
    roco.mkdir(parents=True)
    (roco / "captions.txt").write_text("ROCO_1\t A  chest\tX-ray \nROCO_2\tAn MRI\n")
    medpix = tmp_path / "medpix" / "train"
    medpix.mkdir(parents=True)
    names = [f"MPX{i}" for i in range(40)]
    rows = [
        {"U_id": n, "Case": {"Findings": f"{n} first\r\nsecond", "History": None}, "Topic": {"Title": f"{n} title"}}
        for n in names
    ]
    (medpix / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "medicat_sample").mkdir()
    (tmp_path / "medicat_sample" / "sample.jsonl").write_text(json.dumps({"s2_caption": "Figure 1:\n a scan"}) + "\n")
    found = list(paragraphs(tmp_path))
    assert found[:2] == ["A chest X-ray", "An MRI"] and found[-1] == "Figure 1: a scan"
    trained = {n for n in names if split_of(n, {"val": 0.1, "train": 0.9}) == "train"}
    assert 0 < len(trained) < 40
    assert {t.split()[0] for t in found[2:-1] if t.startswith("MPX")} == trained
    assert found.count("second") == len(trained)


def test_nothing_there_is_no_text(tmp_path: Path) -> None:
    assert list(paragraphs(tmp_path)) == []


def test_every_led_caption_ends_with_prompt_and_caption_and_most_are_led() -> None:
    sheets = [SHEET] * 300
    found = list(led_captions(sheets, "The scan shows:", seed=1))
    ending = f"The scan shows: {plain_caption(SHEET)}"
    assert all(text.endswith(ending) for text in found)
    leads = [text.removesuffix(ending).strip() for text in found]
    assert 0.8 < sum(map(bool, leads)) / 300 < 0.97
    led = [lead for lead in leads if lead]
    assert all(all(value in lead for value in SHEET.values()) for lead in led)
    assert len(set(led)) > 10  # in any order
    assert found == list(led_captions(sheets, "The scan shows:", seed=1)) != list(led_captions(sheets, "The scan shows:", seed=2))
