"""The picture area in Chromium: what is drawn, measured and sent, by mouse, by touch and by keyboard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import viewer_harness
from chromium import AREA, colours, on_stage, settle
from serving import serve_blocks
from viewer_harness import Bench

from msmedcap.demo.viewer.encoding import fading
from msmedcap.explain.maps import Map

pytestmark = pytest.mark.slow
TITLED = "document.querySelector('.mm-v-title').textContent !== 'No map'"
SIZES = """() => ['.mm-viewer', '.mm-v-stage', '.mm-v-bar', '.mm-v-map', '.mm-v-strip'].map(name => {
    const box = document.querySelector(name).getBoundingClientRect();
    return [box.x, box.y, box.width, box.height]; })"""
NUMBERED = "wanted => document.querySelector('.mm-v-bar option').textContent.endsWith('(400 / 40)') === wanted"
# The widest choice of a list, and the room for it.
CHOICES = """list => { const look = getComputedStyle(list), pen = document.createElement('canvas').getContext('2d');
    pen.font = look.font;
    return [Math.max(...[...list.options].map(one => pen.measureText(one.text).width)),
        list.clientWidth - parseFloat(look.paddingLeft) - parseFloat(look.paddingRight)]; }"""
INSIDE = """node => [...node.querySelectorAll('button, select, input')]
    .every(one => one.getBoundingClientRect().right <= node.getBoundingClientRect().right + 1)"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("scans"))
    made.url = serve_blocks(made.page)
    yield made
    made.page.close()


@dataclass
class Area:
    """The page with the picture area, as a visitor handles it; places are in the picture's pixels."""

    page: object
    bench: Bench

    def open(self, name: str) -> Area:
        self.bench.log.clear()
        before = self.page.locator(".mm-viewer").get_attribute("data-view")
        self.page.click(f"#open-{name}")
        self.page.wait_for_function(
            "old => !['', old].includes(document.querySelector('.mm-viewer').dataset.view)", arg=before
        )
        self.settle()
        return self

    def settle(self) -> None:
        """Until what was set is drawn."""
        settle(self.page)

    def stage(self) -> tuple[float, float, float, float]:
        box = self.page.locator(".mm-v-stage").bounding_box()
        return box["x"], box["y"], box["width"], box["height"]

    def fitted(self, x: float, y: float) -> tuple[float, float]:
        """Where the fitted picture shows (x, y): reckoned here from its size and spacing, not asked of the page."""
        left, top, wide, high = self.stage()
        scan = self.bench.scan
        row, column = scan.spacing or (1.0, 1.0)
        width, height = scan.width * column, scan.height * row
        scale = min(wide / width, high / height)
        return left + (wide - width * scale) / 2 + x * column * scale, top + (
            high - height * scale
        ) / 2 + y * row * scale

    def now(self, x: float, y: float) -> tuple[float, float]:
        """Where (x, y) is shown after zooming and moving."""
        left, top, _, _ = self.stage()
        dx, dy = on_stage(self.page, x, y)
        return left + dx, top + dy

    def tool(self, name: str) -> None:
        self.page.click(f".mm-v-bar [data-name={name}]")

    def drag(self, start, end, button: str = "left") -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down(button=button)
        self.page.mouse.move(*end, steps=5)
        self.page.mouse.up(button=button)
        self.settle()

    def press(self, *keys: str) -> None:
        self.page.focus(".mm-v-stage")
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def told(self, name: str, count: int = 1) -> dict:
        """The data of the last event of that name, once there are ``count``."""
        for _ in range(600):
            found = [data for kind, data in list(self.bench.log) if kind == name]
            if len(found) >= count:
                return found[-1]
            self.page.wait_for_timeout(50)
        raise AssertionError(f"no {name} among {self.bench.log}")

    def greys(self, *places) -> list[list[int]]:
        """The colours drawn at places of the picture, as it lies now."""
        return colours(self.page, *places).tolist()

    def text(self, part: str) -> str:
        return self.page.locator(f".mm-v-{part}").first.inner_text()

    def count(self, selector: str) -> int:
        return self.page.locator(f".mm-v-svg {selector}").count()


@pytest.fixture
def area(come, bench):
    page = come(bench.url, size=(1280, 860))
    page.wait_for_selector(".mm-viewer")
    return Area(page, bench)


@pytest.fixture
def ct(area):
    return area.open("ct")


def test_the_picture_is_drawn_as_the_models_see_it(ct):
    places = [(100.5, 60.5), (30.5, 25.5), (5.5, 5.5), (150.5, 100.5)]
    picture = ct.bench.scan.picture()
    assert ct.greys(*places) == [picture[int(y), int(x)].tolist() for x, y in places]
    assert {tuple(grey) for grey in ct.greys(*places)} >= {(255, 255, 255), (0, 0, 0)}


def test_pixels_are_as_tall_as_their_spacing_says(ct):
    left, top = ct.fitted(0, 0)
    right, bottom = ct.fitted(200, 120)
    assert (bottom - top) / (right - left) == pytest.approx(240 / 200)
    x, y = ct.fitted(25.5, 21.5)
    ct.page.mouse.move(x, y)
    ct.settle()
    assert ct.text("place") == "x 25  y 21  900 HU"


def test_values_are_read_exactly(ct):
    for x, y, value in ((5, 5, -995), (150, 110, -850), (100, 60, 60)):
        ct.page.mouse.move(*ct.fitted(x + 0.5, y + 0.5))
        ct.settle()
        assert ct.text("place") == f"x {x}  y {y}  {value} HU".replace("-", "\u2212")


def test_the_wheel_zooms_where_the_pointer_is_and_a_drag_moves(ct):
    spot = ct.fitted(30.5, 25.5)
    ct.page.mouse.move(*spot)
    for _ in range(4):
        ct.page.mouse.wheel(0, -200)
    ct.settle()
    assert ct.now(30.5, 25.5) == pytest.approx(spot, abs=3)  # a wheel tells whole pixels, now five times as large
    assert "%" in ct.text("view") and ct.text("place").startswith("x 30  y 25")
    before = ct.now(60, 60)
    ct.drag((500, 300), (540, 330))
    assert np.subtract(ct.now(60, 60), before).tolist() == pytest.approx([40, 30], abs=0.5)
    ct.press("0")
    assert ct.now(30.5, 25.5) == pytest.approx(spot, abs=0.5)
    ct.press("+", "ArrowRight")
    assert ct.now(30.5, 25.5) != pytest.approx(spot, abs=2)
    ct.press("z")
    assert ct.text("view").endswith("100 %")


def test_two_fingers_zoom_and_move(ct):
    fire = """([name, id, x, y]) => document.querySelector('.mm-v-stage').dispatchEvent(new PointerEvent(name,
        {pointerId: id, pointerType: 'touch', clientX: x, clientY: y, button: 0, isPrimary: id === 11, bubbles: true}))"""
    ct.page.evaluate("() => { Element.prototype.setPointerCapture = () => {}; }")
    x, y = ct.fitted(100, 60)
    before = ct.now(0, 0)[0] - ct.now(200, 0)[0]
    for step in (
        ["pointerdown", 11, x - 50, y],
        ["pointerdown", 12, x + 50, y],
        ["pointermove", 12, x + 150, y],
        ["pointermove", 11, x - 150, y],
    ):
        ct.page.evaluate(fire, step)
    for name in (11, 12):
        ct.page.evaluate(fire, ["pointerup", name, x, y])
    ct.settle()
    assert (ct.now(0, 0)[0] - ct.now(200, 0)[0]) / before == pytest.approx(3, rel=0.02)
    assert ct.now(100, 60) == pytest.approx((x, y), abs=1)
    assert ct.bench.log == []


def test_a_drag_with_the_right_button_changes_the_window_at_once_and_tells_it_at_the_end(ct):
    outside = (180.5, 110.5)  # -820 HU: black in the soft tissue window
    assert ct.greys(outside) == [[0, 0, 0]]
    x, y = ct.fitted(100, 60)
    ct.page.mouse.move(x, y)
    ct.page.mouse.down(button="right")
    ct.page.mouse.move(x, y - 500, steps=6)
    ct.settle()
    drawn = ct.greys(outside)[0][0]
    assert drawn > 0 and ct.bench.log == []
    ct.page.mouse.up(button="right")
    told = ct.told("window")
    assert told["width"] == pytest.approx(400, abs=1) and told["level"] < -600 and told["name"] is None
    expected = np.floor(np.clip((-820 - told["level"]) / told["width"] + 0.5, 0, 1) * 255 + 0.5)
    assert abs(drawn - expected) <= 1
    assert f"L {told['level']:.0f}".replace("-", "\u2212") in ct.text("top")
    ct.page.wait_for_function(
        "w => document.querySelector('.mm-viewer').dataset.view.includes(w)",
        arg=f":{told['width']:g},{told['level']:g}:",
    )
    ct.settle()
    assert abs(ct.greys(outside)[0][0] - expected) <= 1  # the server's picture of that window is the same


def test_number_keys_choose_windows(ct):
    names = list(ct.bench.scan.windows)
    lung = names.index("lung")
    ct.press(str(lung + 1))
    assert ct.greys((5.5, 5.5))[0][0] > 0  # air is no longer black, before the server answers
    told = ct.told("window")
    assert told == {"width": 1500, "level": -600, "name": "lung"}
    assert ct.text("top") == "W 1500  L \u2212600  lung"
    assert ct.page.locator(".mm-v-bar select").evaluate("list => list.selectedIndex") == lung
    ct.page.locator(".mm-v-bar select").select_option(index=names.index("bone"))
    assert ct.told("window", 2)["name"] == "bone"


def test_the_window_tool_works_by_keyboard(ct):
    ct.press("w", "ArrowRight", "Shift+ArrowUp")
    told = ct.told("window")
    assert (told["width"], told["level"]) == (401, 30)


def test_invert_swaps_black_and_white_and_ends_with_the_scan(ct):
    before = ct.greys((30.5, 25.5), (100.5, 60.5))
    ct.press("i")
    assert ct.greys((30.5, 25.5), (100.5, 60.5)) == [[255 - c for c in grey] for grey in before]
    assert ct.page.locator("[data-name=invert]").get_attribute("aria-pressed") == "true"
    ct.open("photo").open("ct")
    assert ct.greys((30.5, 25.5), (100.5, 60.5)) == before


def test_the_ruler_measures_in_millimetres(ct):
    ct.tool("ruler")
    ct.drag(ct.fitted(50, 20), ct.fitted(80, 40))  # 30 columns of 1 mm, 20 rows of 2 mm
    assert ct.page.locator(".mm-v-svg .mm-v-length").text_content() == "50.0 mm"
    assert ct.text("measure") == "50.0 mm"
    ct.page.mouse.click(*ct.fitted(100, 20))
    ct.page.mouse.click(*ct.fitted(100, 30))
    ct.settle()
    assert ct.text("measure") == "20.0 mm" and ct.count(".mm-v-length") == 2
    ct.drag(ct.fitted(100, 30), ct.fitted(100, 35))  # an end is taken up and set anew
    assert ct.text("measure") == "30.0 mm" and ct.count(".mm-v-length") == 2
    ct.press("Delete")
    assert ct.text("measure") == "50.0 mm"
    ct.open("series")
    ct.tool("ruler")
    ct.drag(ct.fitted(10, 10), ct.fitted(40, 50))
    assert ct.text("measure") == "50 px (no spacing known)"


def test_lengths_on_a_radiograph_are_said_to_be_at_the_detector(area):
    area.open("xray").tool("ruler")
    area.drag(area.fitted(100, 100), area.fitted(100, 1100))
    length, note = area.text("measure").split(" mm ")
    assert abs(float(length) - 150) < 1 and note == "(at the detector)"


def test_points_are_added_removed_and_taken_back(ct):
    ct.tool("on")
    ct.page.mouse.click(*ct.fitted(100, 60))
    (point,) = ct.told("prompt")["points"]
    assert point == pytest.approx([100, 60, 1], abs=0.3)
    ct.page.wait_for_selector(".mm-v-svg .mm-v-outline", state="attached")  # the server's outline
    ct.page.mouse.move(*ct.fitted(95.5, 55.5))
    ct.settle()
    assert ct.text("place") == "x 95  y 55  60 HU  Left Lung"
    ct.tool("beside")
    ct.page.mouse.click(*ct.fitted(30, 90))
    assert [p[2] for p in ct.told("prompt", 2)["points"]] == [1, 0]
    assert ct.count(".mm-v-on") == 1 and ct.count(".mm-v-beside") == 1
    ct.page.mouse.click(*ct.fitted(100, 60))  # an existing one goes
    assert [p[2] for p in ct.told("prompt", 3)["points"]] == [0]
    ct.page.wait_for_selector(".mm-v-svg .mm-v-outline", state="detached")
    ct.press("Control+z")
    assert len(ct.told("prompt", 4)["points"]) == 2
    ct.tool("undo")
    assert len(ct.told("prompt", 5)["points"]) == 1
    ct.tool("clear")
    assert ct.told("prompt", 6) == {"points": [], "box": None}
    ct.settle()
    assert ct.count(".mm-v-point") == 0
    ct.page.mouse.click(*(np.add(ct.fitted(0, 60), (-20, 0))))  # beside the picture: nothing
    ct.page.wait_for_timeout(300)
    assert len([1 for name, _ in ct.bench.log if name == "prompt"]) == 6


def test_clicks_in_quick_succession_are_all_kept(ct):
    ct.tool("on")
    for x in range(20, 180, 20):
        ct.page.mouse.click(*ct.fitted(x, 100))
    ct.page.wait_for_function(f"{AREA}.prompts.pending.length === 0")  # the server has answered to the last
    assert len(ct.told("prompt")["points"]) == 8
    assert ct.count(".mm-v-on") == 8


def test_a_dragged_box_lands_on_the_right_pixels(ct):
    ct.tool("box")
    ct.drag(ct.fitted(40, 20), ct.fitted(160, 100))
    assert ct.told("prompt")["box"] == pytest.approx([40, 20, 160, 100], abs=0.3)
    ct.press("+", "+", "+")
    ct.drag(ct.now(120, 90), ct.now(80, 30))  # zoomed, and from the lower right
    assert ct.told("prompt", 2)["box"] == pytest.approx([80, 30, 120, 90], abs=0.3)
    ct.page.mouse.click(*ct.now(90, 50))
    ct.page.mouse.click(*ct.now(110, 70))  # two clicks do as well
    assert ct.told("prompt", 3)["box"] == pytest.approx([90, 50, 110, 70], abs=0.3)
    ct.press("0")
    ct.drag(ct.fitted(150, 80), np.add(ct.fitted(200, 120), (40, 10)))  # beyond the edge: clipped
    assert ct.told("prompt", 4)["box"] == pytest.approx([150, 80, 200, 120], abs=0.3)
    ct.press("Control+z")
    assert ct.told("prompt", 5)["box"] == pytest.approx([90, 50, 110, 70], abs=0.3)


def test_a_map_lies_over_the_scan_with_opacity_and_threshold(ct):
    plain = ct.greys((20.5, 100.5), (180.5, 100.5))
    ct.page.click("#map")
    ct.page.wait_for_function(TITLED)
    ct.settle()
    both = ct.greys((20.5, 100.5), (180.5, 100.5))
    assert both[1] != plain[1] and both[1][0] > both[1][2]  # inferno is warm at the top
    assert [ct.page.locator(".mm-v-scale span").nth(i).inner_text() for i in (0, 1)] == ["2", "10"]
    ct.page.locator("[aria-label=Threshold]").evaluate(
        "knob => { knob.value = 50; knob.dispatchEvent(new Event('input')); }"
    )
    ct.settle()
    assert ct.greys((20.5, 100.5), (180.5, 100.5)) == [plain[0], both[1]]
    assert ct.page.locator(".mm-v-range output").nth(1).inner_text() == "6"
    ct.page.locator("[aria-label=Opacity]").evaluate(
        "knob => { knob.value = 100; knob.dispatchEvent(new Event('input')); }"
    )
    ct.page.select_option("[aria-label='Colours of the map']", "viridis")
    ct.settle()
    (drawn,) = ct.greys((180.5, 100.5))
    assert np.abs(np.subtract(drawn, fading("viridis")[round(180.5 / 200 * 255), :3])).max() <= 4
    ct.tool("on")
    ct.page.mouse.click(*ct.fitted(100, 60))
    ct.page.wait_for_selector(".mm-v-svg .mm-v-outline", state="attached")
    ct.settle()
    assert ct.greys((180.5, 100.5)) == [drawn]  # settings and map outlive an update
    ct.press("o")
    assert ct.greys((180.5, 100.5)) == [plain[1]] and not ct.page.locator(".mm-v-svg .mm-v-outline").is_visible()


def test_a_map_leaves_the_scan_as_it_is_where_it_says_nothing(ct, monkeypatch):
    def word(scan):
        values = np.zeros((scan.height, scan.width), np.float32)
        values[:, 60:120], values[:, 140:] = 0.1, 0.5
        return Map("word", "sam", None, "mass.", (0.0, 1.0), values, place=0, method="occlusion")

    monkeypatch.setattr(viewer_harness, "heat", word)
    places = [(20.5, 105.5), (80.5, 105.5), (170.5, 105.5)]
    plain = np.array(ct.greys(*places))
    ct.page.click("#map")
    ct.page.wait_for_function(TITLED)
    low, some, much = np.abs(np.array(ct.greys(*places)) - plain).max(1)
    assert low == 0 and 0 < some < much
    scale = ct.page.locator(".mm-v-scale")
    assert scale.inner_text().split() == ["0", "1", "peak", "0.5"]
    assert scale.get_attribute("aria-label") == "Colour scale from 0 to 1; peak 0.5"
    assert scale.locator("b").evaluate("mark => mark.style.left") == "50%"
    assert "rgba(" in scale.locator("i").evaluate("ramp => getComputedStyle(ramp).backgroundImage")


def test_a_map_that_is_no_word_s_has_no_peak_on_its_scale(ct):
    ct.page.click("#map")
    ct.page.wait_for_function(TITLED)
    ct.settle()
    assert not ct.page.locator(".mm-v-peak").is_visible() and not ct.page.locator(".mm-v-scale b").is_visible()


@pytest.mark.parametrize("width", [1280, 980, 390])
def test_the_window_s_name_is_never_cut(ct, width):
    ct.page.set_viewport_size({"width": width, "height": 860})
    ct.page.wait_for_function(NUMBERED, arg=width > 960)
    wide, room = ct.page.locator(".mm-v-bar select").evaluate(CHOICES)
    assert wide <= room


def test_the_before_after_slider_hides_overlays_on_its_left(ct):
    plain = ct.greys((80.5, 110.5), (180.5, 110.5))
    ct.page.click("#map")
    ct.page.wait_for_function(TITLED)
    ct.settle()
    both = ct.greys((80.5, 110.5), (180.5, 110.5))
    ct.press("v")
    assert ct.greys((80.5, 110.5), (180.5, 110.5)) == [plain[0], both[1]]
    wipe = ct.page.locator(".mm-v-wipe")
    assert wipe.evaluate("node => node === document.activeElement")
    ct.page.keyboard.press("Home")
    ct.settle()
    assert ct.greys((80.5, 110.5), (180.5, 110.5)) == both and wipe.get_attribute("aria-valuenow") == "0"
    left, top, wide, high = ct.stage()
    ct.drag((left + 2, top + high / 2), (left + wide - 3, top + high / 2))
    assert ct.greys((80.5, 110.5), (180.5, 110.5)) == plain


def test_frames_scroll_by_slider_key_and_wheel(area):
    area.open("series")
    first = area.greys((10.5, 30.5), (70.5, 30.5))
    area.press("End")
    assert area.told("frame") == {"index": 11}
    area.page.wait_for_function("document.querySelector('.mm-viewer').dataset.view.endsWith(':11')")
    area.settle()
    last = area.greys((10.5, 30.5), (70.5, 30.5))
    assert first[0][0] > first[1][0] and last[0][0] < last[1][0]
    assert area.page.locator(".mm-v-frames output").inner_text() == "12 / 12"
    area.press("PageUp")
    assert area.told("frame", 2) == {"index": 10}
    area.tool("scroll")
    area.page.mouse.move(*area.fitted(40, 30))
    area.page.mouse.wheel(0, -100)
    assert area.told("frame", 3) == {"index": 9}
    area.page.wait_for_function("document.querySelector('.mm-viewer').dataset.view.endsWith(':9')")
    area.page.locator(".mm-v-frames input").evaluate(
        "knob => { knob.value = 3; knob.dispatchEvent(new Event('input')); }"
    )
    assert area.told("frame", 4) == {"index": 2}


def test_everything_is_set_by_keyboard_alone(ct):
    ct.press("p", "ArrowRight", "ArrowDown", "Enter")
    (point,) = ct.told("prompt")["points"]
    assert 100 < point[0] < 104 and 60 < point[1] < 64 and point[0] % 1 == point[1] % 1 == 0.5  # from the middle
    ct.page.wait_for_timeout(600)  # longer than a word on the cursor is held back
    assert ct.text("said").startswith("Point on the structure set at")
    ct.press("b", "Enter", "Shift+ArrowRight", "Shift+ArrowDown", "Enter")
    x0, y0, x1, y1 = ct.told("prompt", 2)["box"]
    assert x1 - x0 == y1 - y0 >= 10
    ct.press("l", "ArrowLeft", "Enter")
    assert set(ct.told("place")) == {"x", "y"}
    ct.settle()
    assert ct.count(".mm-v-place-mark") == 1
    ct.press("m", "Enter", "Shift+ArrowRight", "Enter")
    assert "mm" in ct.text("measure")
    ct.press("p")
    ct.press("b", "Enter", "Escape")
    assert ct.count(".mm-v-draft") == 0
    ct.press("c")
    assert ct.told("again") == {}


def test_the_toolbar_is_one_stop_and_arrows_move_inside_it(ct):
    stops = ct.page.locator(".mm-v-bar :is(button, select)[tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    ct.page.keyboard.press("ArrowRight")
    assert ct.page.evaluate("document.activeElement.dataset.name") == "window"
    ct.page.keyboard.press("Enter")
    ct.settle()  # the buttons follow with the next drawn picture
    assert ct.page.locator("[data-name=window]").get_attribute("aria-pressed") == "true"
    ct.page.keyboard.press("End")
    assert ct.page.evaluate("document.activeElement.dataset.name") == "help" and stops.count() == 1
    ct.page.keyboard.press("Enter")
    assert ct.page.locator(".mm-v-help").is_visible() and "Ctrl+Z" in ct.text("help")
    ct.page.keyboard.press("Escape")
    assert not ct.page.locator(".mm-v-help").is_visible()
    assert ct.page.evaluate("document.activeElement.className") == "mm-v-stage"


def test_full_screen_and_back(ct):
    ct.press("f")
    ct.page.wait_for_function("document.fullscreenElement || document.querySelector('.mm-v-pinned')")
    ct.page.wait_for_timeout(300)
    _, _, wide, high = ct.stage()
    assert wide >= 1280 - 20 and high > 860 * 0.75
    assert ct.page.locator("[data-name=full]").get_attribute("aria-pressed") == "true"
    ct.press("f")
    ct.page.wait_for_function("!document.fullscreenElement && !document.querySelector('.mm-v-pinned')")


def test_a_large_radiograph_is_read_pixel_by_pixel(area):
    area.open("xray")
    assert area.bench.log == []
    area.press("z")
    area.told("full")
    area.page.wait_for_function(f"{AREA}.pixels.store.has('full')")
    area.settle()
    places = [(800.5, y + 0.5) for y in range(990, 1000)]
    picture = area.bench.scan.picture()
    assert [grey[0] for grey in area.greys(*places)] == pytest.approx(
        [int(picture[int(y), int(x), 0]) for x, y in places], abs=1
    )
    assert (
        picture[990, 800, 0] == 255 and picture[991, 800, 0] < 200
    )  # a line of single pixels: lost in any smaller copy
    area.page.mouse.move(*area.now(800.5, 990.5))
    area.settle()
    assert area.text("place") == "x 800  y 990  value 4000"
    area.press("0", "z")
    area.page.wait_for_timeout(300)
    assert [name for name, _ in area.bench.log] == ["full"]  # asked once


def test_colours_have_no_window(area):
    area.open("photo")
    assert area.greys((10.5, 10.5), (80.5, 40.5)) == [[200, 0, 0], [200, 30, 90]]
    area.page.mouse.move(*area.fitted(80.5, 40.5))
    area.settle()
    assert area.text("place") == "x 80  y 40  RGB 200 30 90"
    assert area.page.locator("[data-name=window]").get_attribute("aria-disabled") == "true"
    assert area.page.locator(".mm-v-bar select").is_disabled()
    area.press("1", "w")
    assert area.bench.log == []


def test_zoom_and_tool_outlive_updates_of_the_same_scan_only(ct):
    ct.press("+", "+")
    ct.tool("on")
    place = ct.now(50, 50)
    ct.page.mouse.click(*ct.now(100, 60))
    ct.told("prompt")
    ct.page.wait_for_selector(".mm-v-svg .mm-v-outline", state="attached")
    assert (
        ct.now(50, 50) == pytest.approx(place)
        and ct.page.locator("[data-name=on]").get_attribute("aria-pressed") == "true"
    )
    ct.open("series")
    assert ct.now(20, 20) == pytest.approx(ct.fitted(20, 20), abs=0.5)
    assert ct.count(".mm-v-point") == 0


def test_nothing_moves_when_a_scan_opens_or_closes(area):
    empty = area.page.evaluate(SIZES)
    for name in ("ct", "series", "photo", "xray"):
        area.open(name)
        area.page.click("#map")
        area.page.wait_for_function(TITLED)
        assert area.page.evaluate(SIZES) == empty
    area.page.click("#close")
    area.page.wait_for_selector(".mm-viewer[data-empty=true]")
    area.settle()
    assert area.page.evaluate(SIZES) == empty
    assert area.page.locator(".mm-v-canvas").get_attribute("aria-label") == "Nothing is open"


PAINTED = "window.painted.splice(0).length > 0"
WATCH = """() => { const own = CanvasRenderingContext2D.prototype, draw = own.drawImage; window.painted = [];
    own.drawImage = function (...all) {
        if (this.canvas.closest('.mm-v-stage')) window.painted.push(1);
        return draw.apply(this, all); }; }"""


def test_the_picture_is_painted_anew_only_where_it_changes(ct):
    ct.page.evaluate(WATCH)
    ct.tool("on")
    ct.page.mouse.move(*ct.fitted(40, 40))
    ct.page.mouse.click(*ct.fitted(100, 60))
    ct.page.wait_for_selector(".mm-v-svg .mm-v-outline", state="attached")
    ct.settle()
    assert not ct.page.evaluate(PAINTED)  # lines over it alone
    for change in ("i", "i", "2", "+", "0"):
        ct.press(change)
        ct.settle()
        assert ct.page.evaluate(PAINTED), change
    ct.page.click("#map")
    ct.page.wait_for_function(TITLED)
    ct.settle()
    assert ct.page.evaluate(PAINTED)
    ct.page.evaluate(f"{AREA}.setLook({{opacity: 20}})")
    ct.settle()
    assert ct.page.evaluate(PAINTED)


def test_a_canvas_that_the_browser_took_away_is_painted_again(ct):
    canvas = "document.querySelector('.mm-v-stage canvas')"
    ct.page.evaluate(f"{canvas}.getContext('2d').clearRect(0, 0, 9999, 9999)")
    ct.tool("on")
    ct.settle()
    assert ct.greys((30.5, 25.5)) == [[0, 0, 0]]
    ct.page.evaluate(f"{canvas}.dispatchEvent(new Event('contextrestored'))")
    ct.settle()
    assert ct.greys((30.5, 25.5)) == [[255, 255, 255]]


def test_a_browser_that_lost_the_picture_asks_for_it(ct):
    ct.page.evaluate(f"{AREA}.pixels.store.clear()")
    ct.tool("on")
    ct.page.mouse.click(*ct.fitted(100, 60))
    ct.told("missing")
    ct.page.wait_for_function(f"{AREA}.pixels.store.has('picture')")
    ct.settle()
    assert ct.greys((30.5, 25.5)) == [[255, 255, 255]]


def test_a_lookup_table_of_the_file_is_shown_by_the_server_and_left_by_a_drag(area):
    area.open("table")
    assert area.text("top") == "file LUT"
    assert area.greys((10.5, 30.5), (70.5, 30.5)) == [[0, 0, 0], [255, 255, 255]]
    x, y = area.fitted(40, 30)
    area.drag((x, y), (x + 60, y), button="right")
    told = area.told("window")
    assert told["name"] is None and told["width"] > 256
    area.page.wait_for_function("document.querySelector('.mm-viewer').dataset.view.includes(',')")
    area.settle()
    assert area.greys((10.5, 30.5))[0][0] > 0  # a ramp now
    area.press("1")
    assert area.told("window", 2) == {"width": None, "level": None, "name": "file LUT"}
    area.page.wait_for_function("document.querySelector('.mm-viewer').dataset.view.includes('file LUT')")
    area.settle()
    assert area.greys((10.5, 30.5), (70.5, 30.5)) == [[0, 0, 0], [255, 255, 255]]


def test_what_was_seen_and_set_outlives_a_hidden_column(ct):
    ct.press("+", "+")
    ct.tool("ruler")
    ct.drag(ct.now(80, 50), ct.now(80, 60))
    place, grey = ct.now(50, 50), ct.greys((100.5, 60.5))
    ct.page.click("#hide")
    ct.page.wait_for_selector(".mm-v-stage", state="hidden")
    ct.page.click("#show")
    ct.page.wait_for_selector(".mm-viewer[data-empty=false]")
    ct.page.wait_for_function(f"document.querySelector('.mm-viewer') && {AREA}.geometry.stage[0] > 0")
    ct.settle()
    assert ct.now(50, 50) == pytest.approx(place, abs=1) and ct.greys((100.5, 60.5)) == grey
    assert ct.text("measure") == "20.0 mm" and ct.bench.log == []
    assert ct.page.locator("[data-name=ruler]").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_the_area_fits_every_screen(area, width):
    area.page.set_viewport_size({"width": width, "height": 850})
    area.open("series")
    assert area.page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (".mm-v-bar", ".mm-v-map"):
        assert area.page.locator(selector).evaluate(INSIDE)


def test_every_control_has_a_name(ct):
    nameless = """() => [...document.querySelectorAll('.mm-viewer :is(button, select, input, [role=slider], [role=application])')]
        .filter(node => !node.getAttribute('aria-label')).length"""
    assert ct.page.evaluate(nameless) == 0
