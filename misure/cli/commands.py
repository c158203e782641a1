"""The commands of ``misure``, which are the scripts as well; each imports what it needs when it runs."""

from __future__ import annotations

import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.cli.entry import entry_point, exit_on_error

_SIDES = {2: 224, 3: 64}


@entry_point()
def explain(cfg: DictConfig) -> None:
    """Explain what a network segments in image files."""
    from misure.explaining.work import explain_files

    explain_files(cfg)


@entry_point("explain")
def layers(cfg: DictConfig) -> None:
    """List a network's layers with the shapes of their outputs, and suggest the one for CAM methods."""
    import torch

    from misure.explaining.network import named_network
    from misure.explaining.request import Request, plain_value
    from misure.explaining.work import prepared, reading_of, side_lengths
    from misure.io.finding import find_images
    from misure.io.images import read_image

    images = Request.of(cfg).image
    network = named_network(cfg)
    reading = reading_of(cfg, network)
    if not images:
        sides = side_lengths(plain_value(cfg.size) or network.sides or _SIDES[reading.dimensions], reading.dimensions)
        image = torch.zeros(network.channels or 3, *(sides or ()))
    else:
        image = prepared(read_image(find_images(images[0])[0], reading), network, cfg)
    image = image.to(network.model.device or image.device)
    listed = network.model.layers(image)
    name_width = max((len(layer.name) for layer in listed), default=0)
    kind_width = max((len(layer.kind) for layer in listed), default=0)
    for layer in listed:
        shape = " x ".join(map(str, layer.shape)) if layer.shape else ""
        print(f"{layer.name:{name_width}}  {layer.kind:{kind_width}}  {shape}")
    suggested = network.model.bottleneck or network.model.suggest_bottleneck(image)
    print(f"\nlayer of the CAM methods: {suggested} (bottleneck=<name> chooses another)")


@exit_on_error
def app() -> None:
    """Explain images in the browser."""
    from misure.app import main

    main(sys.argv[1:])


@entry_point()
def reproduce(cfg: DictConfig) -> None:
    """Reproduce the paper: train, explain, and write every table and figure."""
    from misure.cli.reproduce import reproduce

    reproduce(cfg)


def plan() -> None:
    """Print what reproduce would do, download and write, and how long it takes."""
    sys.argv.insert(1, "plan_only=true")  # before options, behind which argparse takes no overrides
    reproduce()


@entry_point("reproduce")
def tables(cfg: DictConfig) -> None:
    """Remake every table and figure from records alone; no network or data is loaded."""
    from misure.cli.remake import remake_outputs

    remake_outputs(cfg)


@entry_point()
def prepare_data(cfg: DictConfig) -> None:
    """Prepare a dataset's files; other datasets' packages are not needed."""
    from misure.config import build
    from misure.sweep.images import available

    if "prepare" in cfg.dataset and not cfg.plan_only:
        print(build(cfg.dataset.prepare))
        return
    there = available(cfg)
    if cfg.plan_only and ("prepare" in cfg.dataset or there.fetch is not None):
        print(f"plan: prepare {cfg.dataset.name} in {cfg.data_root}; there now: {there.state}: {there.source}")
        print(f"what is not there is made: {cfg.dataset.get('prepares', there.download)}")
    elif there.fetch is None:
        print(f"dataset={cfg.dataset.name} needs no preparation: {there.source}")
    else:
        there.fetch()
        now = available(cfg)
        print(now.source + (", as no server answers" if now.download else ""))


@entry_point()
def run(cfg: DictConfig) -> None:
    """Explain validation samples of a dataset with one method."""
    from misure.cli.reproduce import run_one

    run_one(cfg)


@entry_point()
def train(cfg: DictConfig) -> None:
    """Train a dataset's network, keep the best weights, and say where they are."""
    from misure.sweep.announcement import only_planned
    from misure.sweep.images import fitted
    from misure.sweep.networks import checkpoint_path, train_network

    cfg = fitted(cfg, "train", HydraConfig.get().overrides.task)
    recipe = cfg.training
    budget = f"{recipe.max_epochs} epochs of {recipe.samples_per_epoch} images, {recipe.max_minutes} minutes at most"
    if only_planned(cfg, f"training: {budget}", trains=True):
        return
    info = train_network(cfg)
    print(f"validation Dice {info.metrics['val_dice']:.4f} on {info.metrics['val_images']:.0f} images")
    print(f"checkpoint: {checkpoint_path(cfg)}")


@entry_point()
def bench(cfg: DictConfig) -> None:
    """Time every explainer against its literal version and other packages."""
    from misure.bench.speed import bench

    print(bench(cfg))


@entry_point("bench")
def scaling(cfg: DictConfig) -> None:
    """Measure time and memory against batch size, image size, masks and images."""
    from misure.bench.scaling_report import scaling

    print(scaling(cfg))


@entry_point()
def methods(cfg: DictConfig) -> None:
    """Compare every method on the same objects."""
    from misure.bench.method_table import compare_methods

    print(compare_methods(cfg))


@entry_point("run")
def operations(cfg: DictConfig) -> None:
    """Show where a method's time goes."""
    from misure.bench.operations import profile_operations

    print(profile_operations(cfg))


@entry_point()
def rise_masks(cfg: DictConfig) -> None:
    """Count the masks that RISE needs."""
    from misure.bench.rise_convergence import count_rise_masks

    print(count_rise_masks(cfg))


@entry_point()
def workers(cfg: DictConfig) -> None:
    """Time a load of known length on 1, 2, 4 workers."""
    from misure.bench.workers import scale_workers

    print(scale_workers(cfg))
