"""The batches of a training: drawn by weight, the same for everyone, with bad pictures replaced and sides kept true."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from msmedcap.config import UserError
from msmedcap.data.sets import read_dataset
from msmedcap.data.shards import write_shards
from msmedcap.data.store import Augmentation, Draw, draw
from msmedcap.training.config import DataPart
from msmedcap.training.mixture import BLOCK, Mixture
from msmedcap.training.task_data import Batch, Batches, changed, remember
from tests import sizes
from tests.training.pictures import coco, table

SPECS = {spec.name: spec for spec in sizes.config().views}


def part(path: Path, **options: object) -> DataPart:
    return DataPart("table", str(path), **options)  # type: ignore[arg-type]


def mixture(folder: Path, **options: object) -> Mixture:
    """Twelve pictures of weight 3 and five of weight 1."""
    parts = [part(table(folder / "a", **options), weight=3.0), part(table(folder / "b", 5), weight=1.0)]  # type: ignore[arg-type]
    return Mixture(parts, seed=5)


def same(a: Batch, b: Batch) -> bool:
    return a.captions == b.captions and all(torch.equal(a.inputs[k], b.inputs[k]) for k in SPECS)


def test_parts_are_drawn_by_weight_and_each_picture_once_before_any_comes_again(tmp_path: Path) -> None:
    data = mixture(tmp_path)
    rows = data.rows(0, 2 * BLOCK).tolist()
    of_part = [data.part_of(row) for row in rows]
    assert Counter(of_part) == {0: 15_000, 1: 5_000}
    assert abs(of_part[:1000].count(0) - 750) < 60  # mixed, not one after the other
    for number, (start, size) in enumerate(((0, 12), (12, 5))):
        own = [row for row, belongs in zip(rows, of_part, strict=True) if belongs == number]
        cycles = [own[i : i + size] for i in range(0, len(own) - size, size)]
        assert all(sorted(cycle) == list(range(start, start + size)) for cycle in cycles)
        assert len({tuple(cycle) for cycle in cycles}) > 10


def test_a_part_of_little_weight_is_drawn_and_one_of_none_is_refused(tmp_path: Path) -> None:
    files = [table(tmp_path / str(i), 3) for i in range(3)]
    data = Mixture([part(file, weight=w) for file, w in zip(files, (1e-9, 1.0, 2.0), strict=True)])
    drawn = Counter(data.part_of(row) for row in data.rows(0, BLOCK).tolist())
    assert drawn[0] == 1 and sum(drawn.values()) == BLOCK and drawn[2] == pytest.approx(BLOCK * 2 / 3, abs=2)
    with pytest.raises(UserError, match="must be above 0"):
        part(files[0], weight=0.0)


def test_draws_depend_on_their_number_and_the_seed_alone(tmp_path: Path) -> None:
    data, again = mixture(tmp_path), mixture(tmp_path)
    late = again.rows(BLOCK - 3, 9)
    assert torch.equal(late, data.rows(0, BLOCK + 6)[-9:])
    assert not torch.equal(Mixture(data.parts, seed=6).rows(0, 40), data.rows(0, 40))


def test_two_processes_share_the_batch_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"size": 6, "count": 4, "seed": 1, "augment": 0.7}
    with Batches(mixture(tmp_path, bad=(2, 3)), SPECS, **options) as batches:  # type: ignore[arg-type]
        alone = [batches(k) for k in range(4)]
    halves: list[list[Batch]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        with Batches(mixture(tmp_path, bad=(2, 3)), SPECS, **options) as batches:  # type: ignore[arg-type]
            halves.append([batches(k) for k in range(4)])
    for one, first, second in zip(alone, *halves, strict=True):
        joined = {k: torch.cat([first.inputs[k], second.inputs[k]]) for k in SPECS}
        assert same(one, Batch(joined, first.captions + second.captions))


def test_any_batch_is_the_same_wherever_a_run_goes_on(tmp_path: Path) -> None:
    options = {"size": 4, "count": 9, "augment": 1.0}
    with Batches(mixture(tmp_path), SPECS, **options) as batches:  # type: ignore[arg-type]
        through = [batches(k) for k in range(9)]
    with Batches(mixture(tmp_path), SPECS, **options) as batches:  # type: ignore[arg-type]
        assert all(same(batches(k), through[k]) for k in (5, 6, 2, 8))
    assert through[0].inputs["clip"].shape == (4, 3, 32, 32) and through[0].inputs["sam"].shape == (4, 3, 64, 64)


def test_a_bad_picture_gives_way_to_the_next_good_one_and_is_counted_once(tmp_path: Path) -> None:
    data = Mixture([part(table(tmp_path / "a", bad=(3, 4, 11))), part(table(tmp_path / "b", 5))])
    (tmp_path / "a" / "7.png").unlink()
    found = {row: data.open(row).pixels for row in (3, 4, 7, 11)}
    for row, wanted in ((3, 5), (4, 5), (7, 8), (11, 0)):  # the last gives way to the first of its own part
        assert np.array_equal(found[row], data.open(wanted).pixels)
    assert data.open(4).captions == data.case(5).references
    assert data.skipped.count == 4 and "3.png" in str(data.skipped)


def test_a_part_without_a_good_picture_is_one_sentence(tmp_path: Path) -> None:
    data = Mixture([part(table(tmp_path, 3, bad=(0, 1, 2)))])
    with (
        pytest.raises(UserError, match="None of the pictures of table can be read"),
        Batches(data, SPECS, size=2, count=1) as batches,
    ):
        batches(0)
    (tmp_path / "none.csv").write_text("image,caption,split\n0.png,,train\n")
    with pytest.raises(UserError, match="no pictures in table"):
        Mixture([part(tmp_path / "none.csv")])


def test_of_five_captions_each_visit_draws_one(tmp_path: Path) -> None:
    data = Mixture([DataPart("coco2014", str(coco(tmp_path)), kind="G")])
    with Batches(data, SPECS, size=6, count=10) as batches:
        visits = [sorted(batches(k).captions, key=lambda text: text[-2]) for k in range(10)]
    for number in range(6):  # a batch is a round through all six
        drawn = [visit[number] for visit in visits]
        assert {text[-2] for text in drawn} == {str(number)} and len(set(drawn)) > 2


def still(**changes: Tensor) -> Draw:
    plain = draw(1, Augmentation(0.0, 0.0), 0)
    return Draw(**{**{name: getattr(plain, name) for name in plain.__dataclass_fields__}, **changes})


def test_a_change_of_nothing_changes_nothing_and_a_mirror_mirrors() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    assert np.array_equal(changed(pixels, still()), pixels)
    mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    assert np.array_equal(changed(pixels, still(affine=mirror)), pixels[:, ::-1])
    # A shift is in halves of the longest side: a quarter of 8 pixels looks two pixels to the right.
    shift = torch.tensor([[[1.0, 0.0, 0.25], [0.0, 1.0, 0.0]]])
    assert np.array_equal(changed(pixels, still(affine=shift))[:, :-2], pixels[:, 2:])


def test_mirrored_pictures_have_the_sides_in_their_captions_swapped(tmp_path: Path) -> None:
    data = Mixture([part(table(tmp_path, captions=["Mass on the left."]))])
    with Batches(data, SPECS, size=12, count=4, augment=1.0) as batches:
        said = Counter(text for k in range(4) for text in batches(k).captions)
    assert set(said) == {"Mass on the left.", "Mass on the right."} and min(said.values()) > 10


def test_a_cache_gives_the_features_of_the_same_pictures(tmp_path: Path) -> None:
    data, parts = mixture(tmp_path, bad=(2, 3)), sizes.frozen()
    encoders = {"clip": parts.clip}
    specs = {"clip": SPECS["clip"]}
    cache = remember(data, encoders, specs, tmp_path / "cache")
    with (
        Batches(data, specs, size=8, count=3, features=cache) as cached,
        Batches(mixture(tmp_path, bad=(2, 3)), specs, size=8, count=3) as seen,
    ):
        for k in range(3):
            a, b = cached(k), seen(k)
            assert a.captions == b.captions
            with torch.no_grad():
                wanted = parts.clip(b.inputs["clip"])
            assert (a.inputs["clip"] - wanted).abs().mean() < 0.02 * wanted.abs().mean()
        assert cached.bad == 2
    with pytest.raises(ValueError, match="as it is"):
        Batches(data, specs, size=8, count=3, features=cache, augment=0.5)


def test_shards_are_a_source_like_any_other(tmp_path: Path) -> None:
    file = table(tmp_path / "table")
    write_shards(read_dataset("table", file, "train"), tmp_path / "shards", size=5, progress=False)
    stored, plain = Mixture([DataPart("shards", str(tmp_path / "shards"))]), Mixture([part(file)])
    assert len(stored) == len(plain) == 12 and torch.equal(stored.rows(0, 30), plain.rows(0, 30))
    for row in range(12):
        a, b = stored.open(row), plain.open(row)
        assert np.array_equal(a.pixels, b.pixels) and a.captions == b.captions
    with pytest.raises(UserError, match="before shards are written"):
        Mixture([DataPart("shards", str(tmp_path / "shards"), select="paper-roco-train")])
    (tmp_path / "shards" / "shard-000001.tar").unlink()
    assert len(Mixture([DataPart("shards", str(tmp_path / "shards"))])) == 7


def test_the_fingerprint_changes_with_the_data(tmp_path: Path) -> None:
    first = Mixture([part(table(tmp_path / "a"))]).fingerprint
    assert first == Mixture([part(table(tmp_path / "b"))]).fingerprint  # not with the place
    assert first != Mixture([part(table(tmp_path / "c", captions=["Other."]))]).fingerprint
    assert first != Mixture([part(table(tmp_path / "d", 11))]).fingerprint
