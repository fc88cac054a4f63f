"""Two processes that meet over gloo against one that holds the whole batch: the same losses, the same gradients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from msmedcap.models.branch import Branch
from msmedcap.training import alignment, gathering
from msmedcap.training.alignment import AlignmentTask
from msmedcap.training.captioning import CaptioningTask
from msmedcap.training.defaults import AlignmentOptions
from msmedcap.training.diagnostics import ITC_SPREAD
from msmedcap.training.processes import share
from tests import sizes

# The same caption in both halves, one twice in one half, and no half as long as the other.
CAPTIONS = [
    "Mass.",
    "Mass.",
    "Axial CT of the head.",
    "Nodule on the right.",
    "Axial CT of the chest. Nodule on the right.",
    "Mass.",
    "Ultrasound of the breast. Malignant mass.",
    "Frontal X-ray of the chest. Findings of pneumonia.",
]
STEPS = (0, 1, 2)


@dataclass(frozen=True)
class Found:
    """What each step said and, at its end, the gradients."""

    losses: list[dict[str, float]]
    gradients: dict[str, Tensor]


def alignment_task(view: str) -> AlignmentTask:
    """Hard negatives from the second step on."""
    parts = sizes.frozen()
    branch = Branch(sizes.config().branches[view], parts.encoder(view), llm_width=32, text=True)
    task = AlignmentTask(branch, parts.opt.tokenizer, options=AlignmentOptions(hard_after=1))
    sizes.randomise(task, 4).train()
    with torch.no_grad():
        task.temp.fill_(0.07)
    return task


def tokens(view: str) -> Tensor:
    branch = Branch(sizes.config().branches[view], sizes.frozen().encoder(view), llm_width=32)
    return branch.encode(sizes.views(len(CAPTIONS))[view])


def alone_and_together(name: str) -> Found:
    """This process's part of the work called ``name``; under a process group through torch's data-parallel wrapper."""
    mine = share(len(CAPTIONS))
    captions = CAPTIONS[mine]
    if name == "captioning":
        captioner = sizes.captioner("MSMedCap", sizes.frozen()).train()
        task: nn.Module = CaptioningTask(captioner, "The scan shows:")
        features = {view: rows[mine] for view, rows in captioner.encode(sizes.views(len(CAPTIONS))).items()}
        batches: list[object] = [(features, captions)]
    elif name == "one caption":
        task = alignment_task("clip")
        batches = [(tokens("clip")[mine], ["Mass."] * len(captions), step) for step in STEPS]
    else:
        task = alignment_task(name)
        batches = [(tokens(name)[mine], captions, step) for step in STEPS]
    model = DistributedDataParallel(task) if gathering.count() > 1 else task
    losses = []
    for batch in batches:
        said = model(batch)
        said["loss"].backward()
        # Each process's spread is that of its own rows.
        losses.append({key: float(value.detach()) for key, value in said.items() if key != ITC_SPREAD})
    return Found(losses, {key: p.grad.clone() for key, p in task.named_parameters() if p.grad is not None})


NAMES = ("clip", "sam", "captioning", "one caption", "crowded")


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    found = {}
    for name in NAMES:
        if name == "crowded":
            alignment.LIMIT = 1
        found[name] = alone_and_together("clip" if name == "crowded" else name)
    torch.save({name: (f.losses, f.gradients) for name, f in found.items()}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Found]]:
    """Both processes' findings."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=2, join=True)
    files = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return [{name: Found(*found) for name, found in file.items()} for file in files]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_find_the_losses_and_gradients_of_one(name: str, together: list[dict[str, Found]]) -> None:
    alone = alone_and_together("clip" if name == "crowded" else name)
    for process in together:
        for here, there in zip(alone.losses, process[name].losses, strict=True):
            assert there == pytest.approx(here, rel=1e-5, abs=1e-6)
        assert process[name].gradients.keys() == alone.gradients.keys()
        for key, wanted in alone.gradients.items():
            torch.testing.assert_close(
                process[name].gradients[key], wanted, atol=3e-5, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_the_work_would_notice_processes_that_keep_to_themselves() -> None:
    # Pairs across the halves must be drawn, and the halves' own losses must not happen to average to the whole's.
    task, half = alignment_task("clip"), len(CAPTIONS) // 2
    features = tokens("clip")
    for step in STEPS:
        with torch.no_grad():
            whole = task((features, CAPTIONS, step))
            parts = [task((features[rows], CAPTIONS[rows], step)) for rows in (slice(0, half), slice(half, None))]
        for loss in ("itc", "itm", "itg"):
            assert float(whole[loss]) != pytest.approx(sum(float(p[loss]) for p in parts) / 2, rel=1e-3), loss


def test_alone_nothing_is_asked_of_anybody() -> None:
    rows = torch.arange(6.0).view(3, 2).requires_grad_()
    assert gathering.gather(rows) is rows
    assert (gathering.count(), gathering.rank()) == (1, 0)
    assert torch.equal(gathering.total(rows), rows)
    assert gathering.shown({"loss": rows})["loss"] is rows
