"""Early diagnostics: each is silent on what is well and speaks on what is not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from msmedcap.training import diagnostics
from msmedcap.training.diagnostics import (
    NOTHING,
    bad_gradient,
    not_a_number,
    not_falling,
    query_spread,
    similarity_spread,
    symptom,
)


def test_query_spread_is_one_minus_the_mean_cosine_of_two() -> None:
    states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    unit = F.normalize(states, dim=-1)
    cosines = torch.stack([unit[:, i] @ unit[:, j].T for i in range(5) for j in range(5) if i != j]).diagonal(dim1=1, dim2=2)
    assert float(query_spread(states)) == pytest.approx(1 - float(cosines.mean()), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_that_are_one_vector_have_no_spread_whatever_its_length(dtype: torch.dtype) -> None:
    one = torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(0)) * 30
    lengths = 2.0 ** torch.arange(32).remainder(5)[:, None]
    states = (one.to(dtype) * lengths.to(dtype))
    assert float(query_spread(states)) < NOTHING / 10
    moved = states + 0.05 * 30 * torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert float(query_spread(moved)) > 10 * NOTHING


def test_a_single_query_is_not_dead() -> None:
    assert symptom({"query_spread": float(query_spread(torch.ones(2, 1, 8)))}) is None


def test_similarities_that_are_all_equal_have_no_spread() -> None:
    assert float(similarity_spread(torch.full((4, 8), 0.731))) < NOTHING / 10
    assert float(similarity_spread(torch.full((4, 8), 0.731) + 1e-3 * torch.eye(4, 8))) > 10 * NOTHING


def test_symptoms_are_named_and_only_they() -> None:
    assert "queries are dead" in str(symptom({"loss": 1.0, "query_spread": 0.0, "itc_spread": 0.1}))
    assert "contrast has collapsed" in str(symptom({"loss": 1.0, "query_spread": 0.2, "itc_spread": 0.0}))
    assert symptom({"loss": 0.0, "query_spread": 0.2, "itc_spread": 0.1}) is None
    assert symptom({"loss": 0.0}) is None


def test_a_loss_that_is_no_number_names_its_parts() -> None:
    assert not_a_number({"loss": 3.0, "itc": math.inf}) is None
    assert not_a_number({"loss": math.nan, "itc": 1.0, "itm": math.nan}) == "the loss is nan (itm is nan); lower the learning rate"


def test_a_bad_gradient_is_named() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    layers[0].weight.grad, layers[1].bias.grad = torch.ones(2, 2), torch.tensor([1.0, math.inf])
    assert bad_gradient(1.0, layers.named_parameters()) is None
    assert str(bad_gradient(math.inf, layers.named_parameters())).startswith("the gradient of 1.bias is not finite")
    layers[1].bias.grad = None
    assert str(bad_gradient(math.nan, layers.named_parameters())).startswith("the gradient's norm is nan")


def test_a_falling_loss_is_told_from_one_that_stays() -> None:
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0)) * 0.1
    assert not_falling((3 - torch.arange(100) * 0.005 + noise).tolist()) is None
    assert not_falling([2.0 - 0.001 * step for step in range(100)]) is None
    assert "has not fallen over 100 steps" in str(not_falling([2.0] * 100))
    assert "has not fallen" in str(not_falling((2 + torch.arange(100) * 0.005 + noise).tolist()))


def test_what_stops_a_run_is_a_users_mistake() -> None:
    assert issubclass(diagnostics.TrainingFailed, diagnostics.UserError)
