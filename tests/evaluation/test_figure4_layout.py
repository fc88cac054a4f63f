"""The page of Fig. 4: every word on it, none over another, none small, marks that can be told apart without colour."""

from __future__ import annotations

import itertools
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from msmedcap.evaluation.figure4 import layout, text
from msmedcap.evaluation.figure4.layout import Panel
from msmedcap.evaluation.figure4.marks import SIGNS, Said, Span

WORDS = "Axial CT of the abdomen."
MARKED = Said(WORDS, (Span(0, 5, True), Span(6, 8, True), Span(16, 23, False)), ("pelvis",), "F1 0.67")
LONG = Said(" ".join(f"word{i}" for i in range(200)))


def panel(said: Said = MARKED, *, ratio: float = 1.5, section: str = "", systems: int = 3) -> Panel:
    picture = np.full((20, 30, 3), 128, dtype=np.uint8)
    texts = {"Ground truth": Said("Coronal CT of the pelvis."), **{f"System{i}": said for i in range(systems)}}
    return Panel(picture, ratio, "medpix", texts, section)


def plain(lines: list[text.Line]) -> str:
    return " ".join("".join(piece.text for piece in line if not piece.kind.endswith("sign")) for line in lines)


@pytest.mark.parametrize("width", [20.0, 45.0, 90.0, 400.0])
def test_lines_fit_and_hold_every_word(width: float) -> None:
    lines = text.break_lines(MARKED, width, 8)
    assert re.sub(r"\s", "", plain(lines)) == WORDS.replace(" ", "")
    for line in lines:
        assert line[-1].x + line[-1].width <= width + 1e-6
        for before, after in itertools.pairwise(line):
            assert after.x == pytest.approx(before.x + before.width)


def test_each_fact_has_its_sign_after_it_and_stays_whole() -> None:
    (line,) = text.break_lines(MARKED, 400, 8)
    assert [(piece.text, piece.kind) for piece in line if piece.text.strip()] == [
        ("Axial", "right"),
        ("✓", "right sign"),
        ("CT", "right"),
        ("✓", "right sign"),
        (" of the ", ""),
        ("abdomen", "wrong"),
        ("✗", "wrong sign"),
        (".", ""),
    ]


def test_a_fact_of_several_words_is_one_stretch() -> None:
    said = Said("a pleural effusion here", (Span(2, 18, False),))
    (line,) = text.break_lines(said, 400, 8)
    assert [piece.text for piece in line] == ["a ", "pleural effusion", "✗", " here"]
    narrow = text.break_lines(said, 45, 8)
    assert sum(piece.kind == "wrong sign" for line in narrow for piece in line) == 1


def test_neighbouring_facts_are_not_run_together() -> None:
    (line,) = text.break_lines(Said("left kidney", (Span(0, 4, True), Span(5, 11, True))), 400, 8)
    assert [piece.text for piece in line] == ["left", "✓", " ", "kidney", "✓"]


def test_a_long_text_is_cut_visibly() -> None:
    lines = text.break_lines(LONG, 100, 8, most=4)
    assert len(lines) == 4 and plain(lines).endswith(text.CUT)
    assert lines[-1][-1].x + lines[-1][-1].width <= 100 + 1e-6
    assert not plain(text.break_lines(MARKED, 100, 8, most=4)).endswith(text.CUT)


def test_a_word_wider_than_the_line_is_broken() -> None:
    lines = text.break_lines(Said("x" * 100, (Span(0, 100, False),)), 50, 8)
    assert len(lines) > 2 and plain(lines).replace(" ", "") == "x" * 100
    assert lines[-1][-1].kind == "wrong sign"


def test_marks_differ_without_colour() -> None:
    luminance = {kind: np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for kind, colour in text.COLOURS.items()}
    assert max(luminance.values()) < 0.35  # dark enough to read on white
    assert SIGNS["right"] != SIGNS["wrong"]
    figure = layout.lay_out([panel()], "")
    straight, waves = [], []
    for line in figure.axes[0].lines:
        (waves if len(line.get_xdata()) > 2 else straight).append(line)
    assert {line.get_color() for line in waves} == {text.WRONG}
    assert text.RIGHT in {line.get_color() for line in straight} and text.WRONG not in {
        line.get_color() for line in straight
    }


@pytest.mark.parametrize(
    "panels",
    [
        [panel()],
        [panel(section="Ahead"), panel(section="Ahead", ratio=0.4), panel(LONG, section="Behind", ratio=3.0)],
        [panel(Said("")) for _ in range(5)],
    ],
    ids=["one", "sections", "empty captions"],
)
def test_words_are_on_the_page_large_and_apart(panels: list[Panel]) -> None:
    figure = layout.lay_out(panels, "Chosen by a rule. $x_1$ & 100 %.")
    assert figure.get_figwidth() == pytest.approx(7.16, abs=0.01)
    (axes,) = figure.axes
    renderer = figure.canvas.get_renderer()
    words = [t for t in axes.texts if t.get_text().strip()]
    assert min(t.get_fontsize() for t in words if t.get_text() not in SIGNS.values()) >= 8
    boxes = [t.get_window_extent(renderer).shrunk(0.96, 0.6) for t in words]
    assert "Chosen by a rule. $x_1$ & 100 %." in {t.get_text() for t in words}
    for t, box in zip(words, boxes, strict=True):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, t.get_text()
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, t.get_text()
    for (a, first), (b, second) in itertools.combinations(zip(words, boxes, strict=True), 2):
        assert not first.overlaps(second), (a.get_text(), b.get_text())
    pictures = [image.get_window_extent(renderer) for image in axes.images]
    assert len(pictures) == len(panels)
    assert not any(picture.overlaps(box) for picture in pictures for box in boxes)


def test_the_whole_picture_is_shown_in_its_shape() -> None:
    for ratio in (0.3, 1.0, 4.0):
        figure = layout.lay_out([panel(ratio=ratio)], "")
        (image,) = figure.axes[0].images
        box = image.get_window_extent(figure.canvas.get_renderer())
        assert box.width / box.height == pytest.approx(ratio, rel=0.01)


def test_panels_are_lettered_and_sections_headed() -> None:
    figure = layout.lay_out([panel(section="One"), panel(section="Two"), panel(section="Two")], "", columns=3)
    words = [t.get_text() for t in figure.axes[0].texts]
    assert [word for word in words if word in ("One", "Two", "a", "b", "c")] == ["One", "a", "Two", "b", "c"]
    with pytest.raises(ValueError, match="at least one"):
        layout.lay_out([], "")


def test_the_legend_shows_its_own_marks() -> None:
    legend = layout.legend()
    assert [(legend.text[s.start : s.end], s.right) for s in legend.spans] == [
        ("blue with a line", True),
        ("vermilion with a wave", False),
    ]


def test_png_and_pdf(tmp_path: Path) -> None:
    files = layout.save(layout.lay_out([panel()], "A note."), tmp_path / "figure4")
    assert [file.name for file in files] == ["figure4.png", "figure4.pdf"]
    with Image.open(files[0]) as picture:
        assert picture.width == pytest.approx(7.16 * 300, abs=2)
        assert picture.info["dpi"][0] == pytest.approx(300, abs=0.1)
    pdf = files[1].read_bytes()
    assert b"/Type /Font" in pdf and b"/TrueType" in pdf or b"/CIDFontType2" in pdf
    streams = [
        zlib.decompress(s)
        for s in re.findall(rb"FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
        if s[:1] == b"x"
    ]
    letters = [re.sub(rb"\)\s*-?[\d.]+\s*\(|\x00", b"", stream) for stream in streams]  # kerning parts them
    assert any(b"(abdomen)" in stream for stream in letters)
    assert b"/ToUnicode" in pdf
