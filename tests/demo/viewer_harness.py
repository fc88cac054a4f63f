"""A page with nothing but the picture area, on made scans: what the area's browser tests drive. Not a test itself.

Every event is answered as the real page answers it, and written down in the order it came (:attr:`Bench.log`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from msmedcap.data.scans import Scan, Window, open_scan, write_dicom
from msmedcap.demo.panels import LAST, OWN
from msmedcap.demo.viewer import area as viewer
from msmedcap.demo.viewer.state import Sent, viewer_message, viewer_state
from msmedcap.explain.maps import Map


def made_ct(path: Path) -> Scan:
    """A CT slice of 120 rows by 200 columns, 2 mm by 1 mm a pixel: a disc of 60 HU, value = column elsewhere - 1000."""
    y, x = np.mgrid[0:120, 0:200].astype(np.float32)
    values = x - 1000
    values[(2 * (y - 60)) ** 2 + (x - 100) ** 2 < 60**2] = 60
    values[20:30, 20:40] = 900
    write_dicom(
        path, values, modality="CT", body_part="CHEST", spacing=(2.0, 1.0), window=Window(400, 40), intercept=-1024
    )
    return open_scan(path)


def made_xray(path: Path) -> Scan:
    """A radiograph of 2000 rows by 1600 columns, 0.15 mm a pixel, with a line of single bright pixels down column 800."""
    y, x = np.mgrid[0:2000, 0:1600].astype(np.float32)
    values = 2000 + 800 * np.sin(x / 160) * np.cos(y / 200)
    values[::2, 800] = 4000
    write_dicom(
        path,
        np.rint(values),
        modality="DX",
        body_part="CHEST",
        spacing=(0.15, 0.15),
        window=Window(3000, 2000),
        view_position="PA",
    )
    return open_scan(path)


def made_series(path: Path) -> Scan:
    """Twelve frames of 64 by 80 without spacing, a square that wanders right."""
    values = np.zeros((12, 64, 80), np.float32)
    for index, frame in enumerate(values):
        frame[20:40, 5 * index : 5 * index + 20] = 100
        frame += index
    write_dicom(path, values, modality="MR", body_part="BRAIN", spacing=None, window=Window(120, 60))
    return open_scan(path)


def made_photo(path: Path) -> Scan:
    """A colour picture of 50 by 90."""
    from PIL import Image

    pixels = np.zeros((50, 90, 3), np.uint8)
    pixels[..., 0], pixels[:, 45:, 2], pixels[25:, :, 1] = 200, 90, 30
    Image.fromarray(pixels).save(path, "PNG")
    return open_scan(path)


def made_table(path: Path) -> Scan:
    """A radiograph of 60 by 80 whose file gives a lookup table: values 0-255, all white from 100 on."""
    import pydicom

    values = np.tile(np.linspace(0, 255, 80, dtype=np.float32).round(), (60, 1))
    write_dicom(path, values, modality="DX", body_part="HAND", spacing=(1.0, 1.0), window=None)
    dataset, item = pydicom.dcmread(path), pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 16])
    item.add_new("LUTData", "US", [65535 if value >= 100 else 0 for value in range(256)])
    dataset.VOILUTSequence = [item]
    dataset.save_as(path)
    return open_scan(path)


def heat(scan: Scan) -> Map:
    """A map that grows from left (2) to right (10)."""
    ramp = np.linspace(2, 10, scan.width, dtype=np.float32)
    return Map("attention", "clip", 3, None, (2.0, 10.0), np.tile(ramp, (scan.height, 1)))


def square(x: float, y: float, half: float = 12) -> dict[str, Any]:
    """An outline around (x, y)."""
    ring = [[x - half, y - half], [x + half, y - half], [x + half, y + half], [x - half, y + half]]
    return {"name": "Left Lung", "colour": "#56B4E9", "dash": False, "polygons": [ring]}


class Bench:
    """What one visitor's session would hold, and the page."""

    def __init__(self, folder: Path) -> None:
        makers = {"ct": made_ct, "xray": made_xray, "series": made_series, "photo": made_photo, "table": made_table}
        self.scans = {name: make(folder / name) for name, make in makers.items()}
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.open("ct")
        with gr.Blocks(analytics_enabled=False) as self.page:
            with gr.Column() as self.column:
                self.area = viewer.viewer_component()
            self.said = gr.HTML("", elem_id="said", apply_default_css=False)
            with gr.Row():
                for name in self.scans:
                    gr.Button(name, elem_id=f"open-{name}").click(
                        self._opener(name), None, [self.area, self.said], **OWN
                    )
                gr.Button("hide", elem_id="hide").click(lambda: gr.Column(visible=False), None, self.column, **OWN)
                gr.Button("show", elem_id="show").click(lambda: gr.Column(visible=True), None, self.column, **OWN)
                gr.Button("map", elem_id="map").click(self._map, None, [self.area, self.said], **OWN)
                gr.Button("close", elem_id="close").click(lambda: {self.area: None}, None, [self.area], **OWN)
            for name in ("prompt", "place", "window", "frame", "again", "full", "missing"):
                getattr(self.area, name)(self._hear(name), None, [self.area, self.said], **LAST)

    def open(self, name: str) -> None:
        self.scan, self.sent, self.window, self.frame = self.scans[name], Sent(), None, 0
        self.window, _ = self.scan.resolve_window(None)
        self.shown: Map | None = None
        self.prompts: dict[str, Any] = {"points": [], "box": None}
        self.place: tuple[float, float] | None = None

    def state(self, *, full: bool = False) -> dict[str, Any]:
        picture = self.scan.picture(self.window, self.frame)
        outlines = [square(x, y) for x, y, label in self.prompts["points"] if label]
        return viewer_state(
            self.scan,
            picture,
            window=self.window,
            frame=self.frame,
            sent=self.sent,
            shown=self.shown,
            outlines=outlines,
            place=self.place,
            full=full,
            **self.prompts,
        )

    def _updates(self, *, full: bool = False) -> dict[Any, Any]:
        return {self.area: viewer_message(self.state(full=full)), self.said: f"<p>{len(self.log)}</p>"}

    def _opener(self, name: str) -> Any:
        def act() -> dict[Any, Any]:
            self.open(name)
            return self._updates()

        return act

    def _map(self) -> dict[Any, Any]:
        self.shown = heat(self.scan)
        return self._updates()

    def _hear(self, name: str) -> Any:
        def act(event: gr.EventData) -> dict[Any, Any]:
            data = dict(event._data or {})
            self.log.append((name, data))
            if name == "prompt":
                self.prompts = {"points": data["points"], "box": data["box"]}
            elif name == "place":
                self.place = (data["x"], data["y"])
            elif name == "window":
                self.window = data["name"] or f"{data['width']:g},{data['level']:g}"
            elif name == "frame":
                self.frame = data["index"]
            elif name == "missing":
                self.sent.forget()
            return self._updates(full=name == "full")

        return act
