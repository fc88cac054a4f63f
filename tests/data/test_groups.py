"""Near-duplicates: the same film again joins the group, another film does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from msmedcap.data.groups import MAX_DISTANCE, hamming, near_duplicate_groups, perceptual_hash


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize((200, 240), Image.Resampling.BICUBIC)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_copies_join_and_others_do_not(tmp_path: Path) -> None:
    film = picture(0)
    brighter = film.point([min(255, int(v * 0.8 + 30)) for v in range(256)])
    paths = [
        saved(picture(7), tmp_path / "other.png"),
        saved(film, tmp_path / "film.png"),
        saved(film, tmp_path / "film.jpg", quality=35),
        saved(film.resize((90, 108)), tmp_path / "small.jpg", quality=80),
        saved(brighter, tmp_path / "brighter.png"),
        saved(film.convert("RGB"), tmp_path / "colour.png"),
        saved(picture(8), tmp_path / "third.jpg"),
        saved(ImageOps.mirror(film), tmp_path / "mirror.png"),
    ]
    assert near_duplicate_groups(paths) == [0, 1, 1, 1, 1, 1, 6, 7]


def test_many_films_are_far_apart(tmp_path: Path) -> None:
    bits = np.stack([perceptual_hash(saved(picture(s), tmp_path / f"{s}.png")) for s in range(30)]).astype(np.float32)
    distance = hamming(bits, bits)
    assert distance[~np.eye(30, dtype=bool)].min() > MAX_DISTANCE


def test_chains_make_one_group(tmp_path: Path) -> None:
    a, b = (np.asarray(picture(s), np.float32) for s in (1, 2))
    blends = [(a * (1 - t) + b * t).astype(np.uint8) for t in np.linspace(0, 1, 21)]
    paths = [saved(Image.fromarray(blend), tmp_path / f"{i:02}.png") for i, blend in enumerate(blends)]
    ends = near_duplicate_groups([paths[0], paths[-1]])
    assert ends == [0, 1]
    assert near_duplicate_groups(paths) == [0] * 21


def test_no_pictures_no_groups() -> None:
    assert near_duplicate_groups([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_hamming_counts_differing_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, (4, 31)).astype(np.float32), rng.integers(0, 2, (6, 31)).astype(np.float32)
    assert np.array_equal(hamming(a, b), (a[:, None] != b[None]).sum(-1))


def test_a_file_that_is_no_picture_is_a_group_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "words.jpg").write_text("words")
    whole = saved(picture(0), tmp_path / "whole.png")
    again = saved(picture(0), tmp_path / "again.jpg")
    paths = [tmp_path / "empty.png", whole, tmp_path / "words.jpg", tmp_path / "missing.png", again]
    assert near_duplicate_groups(paths) == [0, 1, 2, 3, 1]


def test_groups_reach_over_the_blocks_that_are_compared_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [saved(picture(seed % 5), tmp_path / f"{i}.png") for i, seed in enumerate((0, 1, 2, 3, 4, 1, 0, 4))]
    monkeypatch.setattr("msmedcap.data.groups._BLOCK", 3)
    assert near_duplicate_groups(paths) == [0, 1, 2, 3, 4, 1, 0, 4]
