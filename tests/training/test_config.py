"""Losses, optimisers and schedules of training recipes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from misure.errors import MisureError
from misure.training.config import LOSSES, OPTIMISERS, SCHEDULES, Recipe, dice_loss, squared_dice_loss


def test_dice_loss_by_hand():
    # Softmax of logits (0, log 3) is (1/4, 3/4); of (0, 0) it is (1/2, 1/2). Two pixels, truth (1, 0).
    logits = torch.tensor([[[[0.0, 0.0]], [[math.log(3), 0.0]]]])
    masks = torch.tensor([[[1, 0]]])
    overlap, total = 3 / 4, (3 / 4 + 1 / 2) + 1
    expected = 1 - (2 * overlap + 1) / (total + 1)
    assert dice_loss(logits, masks).item() == pytest.approx(expected, abs=1e-6)  # float32


def test_dice_loss_is_averaged_over_foreground_and_taken_over_the_batch():
    confident = 100.0
    masks = torch.tensor([[[1, 0]], [[0, 2]]])
    logits = torch.zeros(2, 3, 1, 2)
    logits[0, 1, 0, 0] = logits[0, 0, 0, 1] = logits[1, 0, 0, 0] = confident
    logits[1, 0, 0, 1] = confident  # class 2 is missed: Dice (0 + 1) / (0 + 1 + 1)
    assert dice_loss(logits, masks).item() == pytest.approx(1 - (1 + 0.5) / 2, abs=1e-6)  # float32


def test_transunets_dice_loss_by_hand():
    # As above; class 0 has probabilities (1/4, 1/2) and truth (0, 1), class 1 (3/4, 1/2) and (1, 0).
    logits = torch.tensor([[[[0.0, 0.0]], [[math.log(3), 0.0]]]])
    background = 2 * 0.5 / (1 / 16 + 1 / 4 + 1)
    foreground = 2 * 0.75 / (9 / 16 + 1 / 4 + 1)
    expected = 1 - (background + foreground) / 2
    # 1e-5 is the smoothing term, below it the two formulas differ.
    assert squared_dice_loss(logits, torch.tensor([[[1, 0]]])).item() == pytest.approx(expected, abs=2e-5)


def test_half_and_half_is_the_mean_of_its_parts():
    logits, masks = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0)), torch.randint(0, 4, (2, 5, 3))
    parts = nn.functional.cross_entropy(logits, masks) + squared_dice_loss(logits, masks)
    assert Recipe(loss="half_cross_entropy_half_dice").loss_of(logits, masks).item() == pytest.approx(
        parts.item() / 2, rel=1e-6
    )  # float32


@pytest.mark.parametrize("loss", LOSSES)
def test_a_perfect_prediction_has_next_to_no_loss(loss):
    masks = torch.arange(6).view(1, 2, 3) % 3
    logits = 60.0 * nn.functional.one_hot(masks, 3).movedim(-1, 1).float()
    assert Recipe(loss=loss).loss_of(logits, masks).item() == pytest.approx(0, abs=1e-6)  # float32


@pytest.mark.parametrize(
    ("recipe", "progress", "rates"),
    [
        (Recipe(lr=1.0, warmup=0.1), (0.0, 0.05, 0.1, 0.55, 1.0, 7.0), (0.02, 0.5, 1.0, 0.5, 0.0, 0.0)),
        (Recipe(lr=1.0, warmup=0.0), (0.0,), (1.0,)),
        (Recipe(lr=0.01, warmup=0.0, schedule="polynomial"), (0.0, 0.5, 1.0), (0.01, 0.01 * 0.5**0.9, 0.0)),
    ],
)
def test_schedules_by_hand(recipe, progress, rates):
    assert [recipe.lr_at(share) for share in progress] == pytest.approx(rates)


@given(progress=st.floats(0, 2), warmup=st.floats(0, 0.9), schedule=st.sampled_from(sorted(SCHEDULES)))
def test_the_schedule_stays_between_zero_and_the_peak(progress, warmup, schedule):
    assert 0 <= Recipe(lr=1.0, warmup=warmup, schedule=schedule).lr_at(progress) <= 1


def test_the_learning_rate_follows_the_batch_size():
    assert Recipe(lr=0.01, lr_batch_size=24, batch_size=6).peak_lr == pytest.approx(0.0025)
    assert Recipe(lr=0.01, batch_size=6).peak_lr == 0.01


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_take_the_recipes_numbers(name):
    recipe = Recipe(optimiser=name, lr=0.25, weight_decay=0.125)
    group = recipe.make_optimiser(nn.Linear(2, 2).parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert group.get("momentum", 0.9) == 0.9


@pytest.mark.parametrize("key", ["optimiser", "schedule", "loss", "strategy"])
def test_an_unknown_choice_is_named(key):
    with pytest.raises(MisureError, match=f"training.{key}=magic is not known: choose"):
        Recipe(**{key: "magic"})


@pytest.mark.parametrize("devices", [0, -1, 3, "two", 1.5, True])
def test_devices_share_batches_equally(devices):
    with pytest.raises(MisureError, match=f"training.devices={devices}"):
        Recipe(batch_size=4, devices=devices)
    assert [Recipe(batch_size=4, devices=n).devices for n in (1, 2, 4, "auto")] == [1, 2, 4, "auto"]
