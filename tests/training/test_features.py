"""The feature cache: the same features as encoding directly, never another encoder's, and plain words when it cannot go on."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from msmedcap.config import UserError, ViewSpec
from msmedcap.data.captions import swap_sides
from msmedcap.data.store import Augmentation, draw, random_views
from msmedcap.models.frozen import freeze
from msmedcap.training.features import (
    FeatureCache,
    cache_features,
    claims,
    dataset_cache,
    demand_room,
    list_caches,
    shelf,
)
from msmedcap.training.pool import Pool, load_pool
from tests import sizes
from tests.training import writing
from tests.training.writing import COUNT, IDS, SPEC, Toy, expected, views_of

ALL = torch.arange(COUNT)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return load_pool(None, tmp_path_factory.mktemp("pool"), phantom_count=30, scene_count=6)


class Asked:
    """``views_of`` that remembers which rows it was asked for; those in ``bad`` cannot be read."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.rows: list[int] = []
        self.bad = torch.tensor(bad, dtype=torch.int64)

    def __call__(self, rows: Tensor) -> dict[str, Tensor]:
        self.rows += rows.tolist()
        return {**views_of(rows), "bad": torch.isin(rows, self.bad)}


def filled(folder: Path, **options: object) -> FeatureCache:
    cache = writing.cache(folder, **options)  # type: ignore[arg-type]
    cache.fill(views_of, batch=4, progress=False)
    return cache


def test_a_batch_is_what_both_encoders_say_of_the_views_in_the_order_asked_for(tmp_path: Path) -> None:
    parts, views = sizes.frozen(), sizes.views(10)
    encoders = {"clip": parts.clip, "sam": parts.sam}
    specs = {view.name: view for view in sizes.config().views}
    cache = FeatureCache(tmp_path, IDS[:10], encoders=encoders, specs=specs, shard_bytes=1)
    cache.fill(lambda rows: {name: view[rows] for name, view in views.items()}, batch=4, progress=False)
    rows = torch.tensor([7, 0, 3, 3, 9])
    batch = cache.batch(rows)
    for name, encoder in encoders.items():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            whole = torch.cat([encoder(part) for part in views[name].split(4)]).bfloat16().float()
        assert torch.equal(batch[name], whole[rows])
        assert len(list(tmp_path.glob(f"{name}-*/*.safetensors"))) == 3
    alone = cache.batch(rows, only=["sam"], dtype=torch.bfloat16)
    assert list(alone) == ["sam"] and alone["sam"].dtype == torch.bfloat16


def test_the_pool_gives_the_drawn_views_features_and_captions_with_the_sides_they_show(pool: Pool, tmp_path: Path) -> None:
    parts, config, count = sizes.frozen(), sizes.config(), len(pool.store)
    cache = cache_features(pool, {"clip": parts.clip, "sam": parts.sam}, config, tmp_path, draws=2, strength=0.8)
    rows = torch.tensor([33, 2, 31, 32])
    for k, augmentation in enumerate((Augmentation(0.0, 0.0), Augmentation(0.8, 0.5))):
        features, texts = cache.batch(rows, seed=4 + k)
        drawn = [(part, draw(len(part), augmentation, 7_919 * k + int(part[0]))) for part in torch.arange(count).split(32)]
        for name, encoder in (("clip", parts.clip), ("sam", parts.sam)):
            # Views in full precision, as the encoders were trained; only the encoders run in half.
            views = [random_views(pool.store, part, config.view(name), chosen) for part, chosen in drawn]
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                whole = torch.cat([encoder(view).bfloat16() for view in views])
            assert torch.equal(features[name], whole[rows].float())
        flipped = torch.cat([chosen.flipped for _, chosen in drawn])[rows].tolist()
        plain = [cache.captions[row] for row in rows.tolist()]
        assert texts == [swap_sides(text) if flip else text for text, flip in zip(plain, flipped, strict=True)]
        assert any(flipped) == bool(k)


def test_a_second_run_over_the_pool_encodes_nothing_and_another_pool_finds_nothing(pool: Pool, tmp_path: Path) -> None:
    encoder, calls = sizes.frozen().clip, []
    encoder.register_forward_hook(lambda *_: calls.append(1))

    def run(pictures: Pool) -> int:
        calls.clear()
        cache_features(pictures, {"clip": encoder}, sizes.config(), tmp_path, draws=2, strength=0.8)
        return len(calls)

    assert run(pool) == 2 * (2 + 1)  # two parts of each draw, and one look at the shape
    assert run(pool) == 0
    pool.store.pixels[5] += 1
    assert run(pool) == 2 * (2 + 1)


def test_what_lies_there_is_not_encoded_again_whatever_set_it_came_with(tmp_path: Path) -> None:
    filled(tmp_path, ids=IDS[:10])
    asked, cache = Asked(), writing.cache(tmp_path, ids=IDS[5:15])
    assert cache.missing().tolist() == [5, 6, 7, 8, 9]
    cache.fill(asked, batch=4, progress=False)
    assert sorted(asked.rows) == [5, 6, 7, 8, 9]
    kept = cache.batch(torch.tensor([9, 0]))["toy"]
    # Row 0 of the second set is row 5 of the first, which showed its own number.
    assert torch.equal(kept, expected(torch.tensor([9, 5])))


def test_samples_of_one_picture_share_its_features(tmp_path: Path) -> None:
    asked = Asked()
    cache = writing.cache(tmp_path, ids=["a", "a", "b", "a", "b", "c"])
    cache.fill(asked, batch=4, progress=False)
    assert asked.rows == [0, 2, 5]
    assert torch.equal(cache.batch(torch.arange(6))["toy"], expected(torch.tensor([0, 0, 2, 0, 2, 5])))


def test_a_changed_encoder_reuses_nothing_and_says_what_may_be_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, weight=0.5)
    old = list_caches(tmp_path)[0]
    with caplog.at_level(logging.WARNING):
        new = writing.cache(tmp_path, weight=0.25)
    assert str(old.folder) in caplog.text and "GB" in caplog.text
    assert len(new.missing()) == COUNT
    new.fill(views_of, batch=4, progress=False)
    assert torch.equal(new.batch(ALL)["toy"], expected(ALL, 0.25))
    assert torch.equal(writing.cache(tmp_path).batch(ALL)["toy"], expected(ALL, 0.5))
    assert old.bytes == sum(file.stat().st_size for file in old.folder.iterdir())
    assert {(c.encoder, c.size, c.draw) for c in list_caches(tmp_path)} == {("toy", 4, "plain")}


def test_what_goes_while_the_caches_are_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    whole = list_caches(tmp_path)
    # Another process names its part file anew, and somebody deletes a cache, after the listing saw them.
    part = whole[0].folder / "cache.0123.part"
    part.write_bytes(b"0123")
    gone = tmp_path / "gone" / shelf.ABOUT
    gone.parent.mkdir()
    gone.write_text("{}", encoding="utf-8")
    listed, found = Path.iterdir, Path.glob

    def iterdir(folder: Path) -> Iterator[Path]:
        files = list(listed(folder))
        part.unlink(missing_ok=True)
        return iter(files)

    def glob(folder: Path, pattern: str) -> Iterator[Path]:
        files = list(found(folder, pattern))
        gone.unlink(missing_ok=True)
        return iter(files)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(Path, "glob", glob)
    assert list_caches(tmp_path) == whole
    assert not part.exists() and not gone.exists()


def test_a_view_a_draw_a_type_or_a_config_of_its_own_has_a_cache_of_its_own(tmp_path: Path) -> None:
    wider = ViewSpec("toy", size=8, fit="squash", mean=SPEC.mean, std=SPEC.std)
    named = freeze(Toy())
    named.config = SimpleNamespace(activation="gelu")  # type: ignore[assignment]
    filled(tmp_path)
    for encoder, spec, name in (
        (Toy(), wider, "plain"), (Toy(), SPEC, "draw 1"), (Toy().double(), SPEC, "plain"), (named, SPEC, "plain")
    ):
        cache = FeatureCache(tmp_path, IDS, encoders={"toy": freeze(encoder)}, specs={"toy": spec}, draw=name)
        assert len(cache.missing()) == COUNT
    assert len(list_caches(tmp_path)) == 5


def test_it_refuses_a_disk_without_room_with_the_numbers_and_before_any_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = freeze(Toy(tokens=2**17))  # 2 MB each
    cache = FeatureCache(tmp_path, IDS * 100, encoders={"toy": wide}, specs={"toy": SPEC})
    assert cache.bytes_in_all() == cache.bytes_to_write() == COUNT * 2**21
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
    asked = Asked()
    with pytest.raises(UserError, match=r"0\.08 GB more.*0\.05 GB are free.*--features"):
        cache.fill(asked, option="--features", progress=False)
    assert not asked.rows
    with pytest.raises(UserError, match=r"0\.17 GB more"):
        demand_room([cache, cache], option="--cache")


def test_a_full_cache_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    asked, again = Asked(), writing.cache(tmp_path)
    again.fill(asked, progress=False)
    assert not asked.rows and torch.equal(again.batch(ALL)["toy"], expected(ALL))


def test_a_disk_that_fills_up_on_the_way_is_told_and_leaves_no_half_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shelf, "save_file", full)
        with pytest.raises(UserError, match="No space left"):
            filled(tmp_path)
    assert {file.name for file in tmp_path.glob("*/*")} == {"cache.json"}
    assert torch.equal(filled(tmp_path).batch(ALL)["toy"], expected(ALL))


def test_pictures_that_cannot_be_read_are_marked_refused_and_tried_again_only_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = writing.cache(tmp_path)
    cache.fill(Asked(bad=(3, 17)), batch=4, progress=False)
    assert "2 of 40 samples" in caplog.text
    again, asked = writing.cache(tmp_path), Asked()
    again.fill(asked, batch=4, progress=False)
    for one in (cache, again):
        assert one.bad_rows().tolist() == [3, 17] and len(one.good_rows()) == COUNT - 2 and not asked.rows
        with pytest.raises(ValueError, match="1 of these samples have no features, such as picture-17"):
            one.batch(torch.tensor([4, 17]))
        assert torch.equal(one.batch(one.good_rows())["toy"], expected(one.good_rows()))

    again.fill(Asked(bad=(3,)), batch=4, retry=True, progress=False)
    cache.refresh()
    for one in (again, cache, writing.cache(tmp_path)):
        assert one.bad_rows().tolist() == [3]
        assert torch.equal(one.batch(torch.tensor([17]))["toy"], expected(torch.tensor([17])))


def test_a_damaged_shard_is_told_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    shards = sorted(tmp_path.rglob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:-5])
    asked, cache = Asked(), writing.cache(tmp_path)
    assert shards[0].name in caplog.text
    cache.fill(asked, batch=4, progress=False)
    assert len(asked.rows) == writing.SHARD and torch.equal(cache.batch(ALL)["toy"], expected(ALL))


def test_a_shard_that_goes_while_a_training_reads_it_is_told(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    for shard in tmp_path.rglob("*.safetensors"):
        shard.unlink()
    with pytest.raises(UserError, match="can no longer be read"):
        cache.batch(ALL)


def test_a_disk_without_locks_works_all_the_same_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(claims.fcntl, "lockf", writing.no_lock)
    assert torch.equal(filled(tmp_path).batch(ALL)["toy"], expected(ALL))
    assert "No locks available" in caplog.text


def test_a_dataset_is_cached_in_one_call(tmp_path: Path) -> None:
    cache = dataset_cache(COUNT, views_of, {"toy": freeze(Toy())}, {"toy": SPEC}, tmp_path, ids=IDS)
    assert torch.equal(cache.batch(ALL)["toy"], expected(ALL)) and len(cache) == COUNT
    with pytest.raises(ValueError, match="40 rows need as many ids, not 3"):
        dataset_cache(COUNT, views_of, {"toy": freeze(Toy())}, {"toy": SPEC}, tmp_path, ids=IDS[:3])


@pytest.mark.parametrize(
    ("encoder", "views", "error", "words"),
    [
        (nn.Dropout(), views_of, ValueError, "Freeze the encoders first: toy"),
        (freeze(Toy(float("nan"))), views_of, FloatingPointError, "toy encoder gives values"),
        (freeze(Toy()), lambda rows: {"toy": views_of(rows)["toy"][1:]}, ValueError, r"views are \[3, 3, 4, 4\]"),
    ],
)
def test_what_would_spoil_a_cache_is_refused(
    tmp_path: Path, encoder: nn.Module, views: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        FeatureCache(tmp_path, IDS, encoders={"toy": encoder}, specs={"toy": SPEC}).fill(views, batch=4)  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("*.safetensors"))
