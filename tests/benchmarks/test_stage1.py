"""The stage-1 benchmark runs at test size, and its two sides do the same work."""

from __future__ import annotations

import torch

from benchmarks import stage1
from msmedcap import systems


def test_it_has_a_row_for_every_branch_and_dtype() -> None:
    rows = list(stage1.rows(device=torch.device("cpu"), quick=True))
    assert [("clip" in r.what, "bfloat16" in r.what) for r in rows] == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    ]
    assert all(r.ours > 0 and r.peer is not None and r.peer > 0 for r in rows)
    assert [r.goal for r in rows] == ["", "", "≤ 0.6", "≤ 0.6"]


def test_both_sides_give_one_loss_and_leave_no_gradient() -> None:
    for view in ("clip", "sam"):
        task = stage1.build_task(view, systems.test()).eval()
        batch = stage1.draw_batch(task, systems.test(), 4, torch.device("cpu"))
        torch.testing.assert_close(task(batch)["loss"], stage1.unshared(task, batch), rtol=1e-5, atol=1e-5)
        for shared in (True, False):
            stage1.step(task, batch, torch.float32, shared=shared)
            assert all(p.grad is None for p in task.parameters())


def test_the_full_size_is_the_papers() -> None:
    shapes = {}
    for view in ("clip", "sam"):
        with torch.device("meta"):
            task = stage1.build_task(view, systems.full())
        shapes[view] = stage1.draw_batch(task, systems.full(), 1, torch.device("cpu"))[0].shape[1:]
        assert task.branch.config.qformer.hidden == 768 and len(task.branch.qformer.model.encoder.layer) == 12
    assert shapes == {"clip": (257, 1408), "sam": (4096, 256)}
