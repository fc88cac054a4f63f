"""What is drawn for training: every source in its share, and scans alone where the paper says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmedcap.training.pool import Pool, load_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return load_pool(None, tmp_path_factory.mktemp("pool"), phantom_count=6, scene_count=3)


def test_scenes_are_drawn_unless_scans_alone_are_asked_for(pool: Pool) -> None:
    every = {pool.sources[row] for row in pool.rows(0, 400, seed=0).tolist()}
    alone = {pool.sources[row] for row in pool.rows(0, 400, seed=0, kinds="M").tolist()}
    assert every == {"phantoms", "scenes"} and alone == {"phantoms"}


def test_a_step_always_draws_the_same(pool: Pool) -> None:
    assert pool.rows(7, 50, seed=1).tolist() == pool.rows(7, 50, seed=1).tolist() != pool.rows(8, 50, seed=1).tolist()


def test_a_second_call_reads_the_pool_back(pool: Pool, tmp_path: Path) -> None:
    made = load_pool(None, tmp_path, phantom_count=6, scene_count=3)
    read = load_pool(None, tmp_path, phantom_count=99, scene_count=99)  # the kept one counts
    assert len(read.store) == len(made.store) == 9 and read.facts == made.facts == pool.facts
