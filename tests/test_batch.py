"""Many scans caption as each does by itself, in order, whatever is wrong with their neighbours, and in flat memory."""

from __future__ import annotations

import io
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msmedcap import batch, captioning, memory
from msmedcap.batch import BatchItem
from msmedcap.checkpoints import Models
from msmedcap.config import UserError, ViewSpec
from msmedcap.data.scans import ScanError, open_scan
from msmedcap.data.scans.errors import NoPictureError
from msmedcap.data.views import make_view
from msmedcap.predictor import Predictor, load
from msmedcap.systems import SYSTEMS
from tests import sizes

BAD = {3: b"no picture", 7: b""}


def png(seed: int) -> bytes:
    """A noisy grey picture of its own size; some of 16 bits, which have windows to choose from."""
    draw = np.random.default_rng(seed)
    height, width = draw.integers(20, 90, 2)
    deep = seed % 3 == 0
    pixels = draw.integers(0, 4000 if deep else 256, (height, width), dtype=np.uint16 if deep else np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


SCANS = [BAD.get(i, png(i)) for i in range(21)]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(str(sizes.write_folder(tmp_path_factory.mktemp("models"))), device="cpu")


@pytest.fixture
def models(predictor: Predictor) -> Models:
    return predictor._shared


def alone(predictor: Predictor, sources: list, **options) -> list[BatchItem]:  # type: ignore[no-untyped-def, type-arg]
    """What the predictor says of each scan by itself."""
    items = []
    view = {name: options.pop(name) for name in ("window", "frame") if name in options}
    for index, source in enumerate(sources):
        one = predictor.fresh()
        try:
            captions = one.set_scan(source, **view).captions(**options)
            items.append(BatchItem(index, captions, one.window, tuple(one.warnings)))
        except ValueError as error:
            items.append(BatchItem(index, error=error))
    return items


def told(items: list[BatchItem]) -> list[tuple[object, ...]]:
    """All of the items that does not depend on the clock."""
    return [(i.index, list(i.captions.items()), i.window, i.warnings, type(i.error), str(i.error)) for i in items]


def breaking(*args: object) -> None:
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "paper"},
        {"systems": ["SAM-BLIP2", "MSMedCap"], "prompt": "a photo of"},
        {"window": "percentile"},
        {"window": "1200,700", "systems": ["BLIP2"]},
    ],
)
@pytest.mark.parametrize(("size", "workers"), [(16, 2), (3, 1)])
def test_each_scan_as_by_itself(predictor: Predictor, options: dict, size: int, workers: int) -> None:  # type: ignore[type-arg]
    wanted = told(alone(predictor, SCANS, **options))
    assert told(list(predictor.caption_many(SCANS, batch=size, workers=workers, **options))) == wanted
    assert [index for index, *_, error, _ in wanted if error is not None and issubclass(error, ScanError)] == list(BAD)
    assert len({str(captions) for _, captions, *_ in wanted}) > 3


def test_token_by_token(models: Models) -> None:
    """The tokens and their probabilities, not only the texts, of a batch are those of one scan."""
    asked = captioning.ask(models, systems=None, preset="fast", prompt=None)
    opt, decoding = models.frozen.opt, asked.decoding
    seen: dict[int, list] = {1: [], 15: []}  # type: ignore[type-arg]
    for size, found in seen.items():
        for start in range(0, 15, size):
            seeds = range(start, start + size)
            features = captioning.Features(models, lambda spec, seeds=seeds: torch.stack([view_of(i, spec) for i in seeds]))
            for reading in captioning.read(models, asked, features, count=size):
                found += opt.say(list(reading.prefixes.values()), decoding)
    assert [s.ids for s in seen[1]] == [s.ids for s in seen[15]] and len(seen[1]) == 45
    for one, many in zip(seen[1], seen[15], strict=True):
        np.testing.assert_allclose(one.log_probs, many.log_probs, atol=1e-4)


def view_of(seed: int, spec: ViewSpec) -> torch.Tensor:
    return make_view(open_scan(png(seed)).picture(), spec)


def test_files_bytes_and_open_scans(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "scan"
    path.write_bytes(SCANS[0])
    items = list(predictor.caption_many([path, str(path), SCANS[0], open_scan(SCANS[0])]))
    assert len({str(item.captions) for item in items}) == 1 and set(items[0].captions) == set(SYSTEMS)
    assert all(set(item.seconds) == {"encode", "decode"} and item.seconds["encode"] > 0 for item in items)


@pytest.mark.parametrize("options", [{"preset": "slow"}, {"systems": ["BLIP3"]}, {"batch": 0}, {"workers": 0}])
def test_wrong_options_are_refused_at_once(predictor: Predictor, options: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError):
        predictor.caption_many([], **options)


def test_a_wrong_window_is_each_scans_own(predictor: Predictor) -> None:
    items = list(predictor.caption_many([SCANS[0], SCANS[1]], window="lung"))
    assert all(isinstance(item.error, ScanError) and "Hounsfield" in str(item.error) for item in items)


def test_no_scans_no_items(predictor: Predictor) -> None:
    assert list(predictor.caption_many([])) == []


def test_scans_are_taken_as_they_are_needed(predictor: Predictor) -> None:
    taken = []

    def sources() -> Iterator[bytes]:
        for index in range(1000):
            taken.append(index)
            yield SCANS[1]

    items = predictor.caption_many(sources(), batch=4, workers=2)
    for _ in range(20):
        next(items)
    assert len(taken) <= 20 + 4 * 6
    items.close()
    assert len(taken) < 50
    assert not [t for t in threading.enumerate() if t.name.startswith("captions")]


def test_pictures_are_dropped_when_their_views_are_made(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: list[weakref.ref] = []  # type: ignore[type-arg]
    alive, look = [], captioning.look

    def watched(*args, **options):  # type: ignore[no-untyped-def]
        alive.append(sum(ref() is not None for ref in pictures))
        found = look(*args, **options)
        pictures.append(weakref.ref(found.picture))
        return found

    monkeypatch.setattr(captioning, "look", watched)
    assert len(list(predictor.caption_many([SCANS[1]] * 40, workers=1))) == 40
    assert max(alive) <= 1


def test_workers_share_the_threads_and_give_them_back(
    predictor: Predictor, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen, generate = torch.get_num_threads(), [], models.frozen.opt.generate
    monkeypatch.setattr(
        models.frozen.opt, "generate", lambda *a, **k: seen.append(torch.get_num_threads()) or generate(*a, **k)
    )
    torch.set_num_threads(2)
    try:
        for count, share in ((3, 1), (1, 2)):  # a single scan has all threads
            seen.clear()
            list(predictor.caption_many(SCANS[:count]))
            assert set(seen) == {share}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_failure_of_many_is_tried_in_halves(
    predictor: Predictor, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory above four captions; one system of one scan is out of order even by itself."""
    scans = [png(i) for i in range(30, 46)]
    wanted = alone(predictor, scans)
    opt, rows = models.frozen.opt, []
    generate, poison = opt.generate, reading_of(models, scans[9]).prefixes["BLIP2"]

    def fragile(prefixes, decoding, *, on_tokens=None):  # type: ignore[no-untyped-def]
        rows.append(len(prefixes))
        if len(prefixes) > 6:
            raise RuntimeError("can't allocate memory")
        if any(p.shape == poison.shape and torch.allclose(p, poison, atol=1e-4) for p in prefixes):
            raise RuntimeError("out of order")
        return generate(prefixes, decoding, on_tokens=on_tokens)

    monkeypatch.setattr(opt, "generate", fragile)
    found = list(predictor.caption_many(scans, batch=16, workers=1))
    assert [f.captions for i, f in enumerate(found) if i != 9] == [w.captions for i, w in enumerate(wanted) if i != 9]
    assert found[9].captions == {k: v for k, v in wanted[9].captions.items() if k != "BLIP2"}
    assert [w for w in found[9].warnings if w.startswith("BLIP2 could not caption")]
    assert not [w for i, f in enumerate(found) if i != 9 for w in f.warnings if "could not" in w]
    # 1, 1, 2, 4, 8 scans: what did not fit once is not tried again at that size.
    assert rows.count(12) == 1 and 24 not in rows


def reading_of(models: Models, source: bytes) -> captioning.Reading:
    asked = captioning.ask(models, systems=None, preset="fast", prompt=None)
    one = Predictor(models, "test").set_scan(source)
    (reading,) = captioning.read(models, asked, one._encoded)
    return reading


def test_a_scan_without_numbers_disturbs_no_other(
    predictor: Predictor, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [png(i) for i in range(8)]
    wanted = alone(predictor, scans)
    one = Predictor(models, "test").set_scan(scans[5])
    shown = one._encoded("sam")
    read = models.captioners["SAM-BLIP2"].branches["sam"].read

    def poisoned(tokens: torch.Tensor) -> torch.Tensor:
        out = read(tokens)
        same = (tokens.transpose(1, 2).reshape(-1, *shown.shape[1:]) - shown).abs().amax((1, 2, 3)) < 1e-3
        return out.masked_fill(same[:, None, None], float("nan"))

    monkeypatch.setattr(models.captioners["SAM-BLIP2"].branches["sam"], "read", poisoned)
    found = list(predictor.caption_many(scans, workers=1))
    for index, (got, want) in enumerate(zip(found, wanted, strict=True)):
        left_out = "SAM-BLIP2" if index == 5 else ""
        assert got.captions == {k: v for k, v in want.captions.items() if k != left_out}
        assert bool([w for w in got.warnings if "could not caption" in w]) == (index == 5)


def test_where_nothing_works_every_scan_says_so(
    predictor: Predictor, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clip", "sam"):
        monkeypatch.setattr(models.frozen.encoder(name), "forward", breaking)
    items = list(predictor.caption_many([SCANS[1], SCANS[3], SCANS[2]]))
    assert [type(item.error) for item in items] == [UserError, NoPictureError, UserError]
    assert str(items[0].error) == captioning.NOTHING_READ


def test_what_a_batch_holds_follows_from_the_sizes(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def lane(preset: str, batch_size: int) -> tuple[int, int]:
        asked = captioning.ask(models, systems=None, preset=preset, prompt=None)
        made = batch._Lane(models, asked, breaking, batch_size)
        return made._read.most, made._write.most

    assert lane("fast", 16) == (16, 16)
    assert lane("fast", 1000) == (256, 1000)
    # 3 captions of 4 or 8 queries, the prompt and 6 tokens for each of 1 or 3 beams; keys and values of 2 layers of 32 floats.
    prompt = len(models.frozen.opt.prompt_ids("The scan shows:"))
    for preset, beams in (("fast", 1), ("paper", 3)):
        scan = 2 * 2 * 32 * 4 * (4 + 4 + 4 + 4 + 3 * (prompt + 6 * beams))
        monkeypatch.setattr(batch, "CACHE_BYTES", 5 * scan + scan // 2)
        assert lane(preset, 16) == (16, 5)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert lane("fast", 16) == (16, 1)
