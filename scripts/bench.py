"""Measure each explainer against its literal version; prints a table and writes outputs/bench.md and bench.csv.

The defaults take about a quarter of an hour on two slow CPU cores. Examples::

    python scripts/bench.py --checkpoint outputs/checkpoints/triangle --images 8
    python scripts/bench.py --methods rise --images 2 --masks 24
    python scripts/bench.py --device cuda --images 16 --masks 2000 --iterations 100
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from misure.bench.compare import METHODS, run_bench
from misure.bench.report import markdown, write
from misure.compute import Compute
from misure.datasets.triangle import CLASS_NAMES, TriangleDataset
from misure.errors import MisureError
from misure.model import SegmentationModel, frozen
from misure.target import EmptyTargetError, Target, make_targets

UNTRAINED = "UNTRAINED NETWORK: random weights, no checkpoint was given. Times hold; Dice, ratio and maps mean nothing."


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="trained network; without it the weights are random")
    parser.add_argument("--images", type=int, default=8, help="validation images (8)")
    parser.add_argument("--masks", type=int, default=32, help="masks of RISE (32; the paper: 2000)")
    parser.add_argument("--iterations", type=int, default=20, help="optimiser steps of MSR (20; the paper: 100)")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"comma-separated ({','.join(METHODS)})")
    parser.add_argument("--precisions", help="of ours, comma-separated: 32,bf16 (what the hardware is fast at)")
    parser.add_argument("--round", type=int, default=4, help="images that take one turn (4)")
    parser.add_argument("--batch-size", default="auto", help="perturbed images per forward pass (auto)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (all cores)")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    return parser.parse_args(arguments)


def load_model(checkpoint: Path | None) -> tuple[SegmentationModel, str]:
    """Load a network, or make an untrained one; also say which."""
    if checkpoint is not None:
        from misure.networks.checkpoint import load_checkpoint

        return load_checkpoint(checkpoint), f"Weights: checkpoint {checkpoint.name}."
    torch.manual_seed(0)
    network = smp.Unet("vgg16", encoder_weights=None, in_channels=1, classes=2)
    model = SegmentationModel(network, bottleneck="decoder.center", class_names=CLASS_NAMES, in_channels=1)
    return model, f"**{UNTRAINED}**"


def load_samples(model: SegmentationModel, n_images: int, data_root: Path, device: str) -> tuple[Tensor, list[Target]]:
    """Take the first validation images; where no triangle is predicted, the background is explained."""
    dataset = TriangleDataset("val", 600, data_root)
    images: list[Tensor] = []
    targets: list[Target] = []
    for index in range(len(dataset)):
        if len(images) == n_images:
            break
        image = dataset[index]["image"][None].to(device)
        with frozen(model, Compute("32", 1), image.device) as network:
            try:
                targets += make_targets(network, image, 1)
            except EmptyTargetError:
                targets += make_targets(network, image, 0)
        images.append(image)
    return torch.cat(images), targets


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse_arguments(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        model, weights = load_model(options.checkpoint)
        if options.checkpoint is None:
            print(f"*** {UNTRAINED} ***", file=sys.stderr)
        if model.module is not None:
            model.module.to(options.device)
        images, targets = load_samples(model, options.images, options.data_root, options.device)
        frame = run_bench(
            model,
            images,
            targets,
            n_masks=options.masks,
            n_iterations=options.iterations,
            methods=options.methods.split(","),
            precisions=options.precisions.split(",") if options.precisions else None,
            images_per_round=options.round,
            batch_size=options.batch_size if options.batch_size == "auto" else int(options.batch_size),
        )
        text = markdown(frame, title="Speed on Triangle", notes=(weights,))
        write(frame, options.output, text)
    except MisureError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
