"""A training step is timed in every precision, and leaves the network as it is."""

from __future__ import annotations

import torch
from bench_networks import toy_images, toy_model

from misure.bench.training_step import training_steps
from misure.training.config import Recipe


def test_steps_are_timed_beside_three_passes_of_the_same_batch() -> None:
    model, images = toy_model(torch.float32), toy_images(2, torch.float32)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    masks = (images[:, 0] > 0.5).long()
    steps = training_steps(model, images, masks, Recipe(batch_size=3), ["32", "bf16"]).set_index("precision")
    assert list(steps.index) == ["32", "bf16"]
    assert (steps["batch_size"] == 3).all()
    assert (steps[["step", "three_passes", "ratio"]] > 0).all(axis=None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    assert not model.module.training
