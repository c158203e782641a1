"""Keys that each entry point reads: an override has to reach one of them to change anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from omegaconf import DictConfig, OmegaConf

from misure.config import sweep_grid
from misure.io.installed import config_groups
from misure.sweep.sweeps import chosen_sweeps, networks_of, of_experiments

Variants = Callable[[DictConfig, Sequence[str]], Iterable[list[str]]]
"""Makes further overrides, each a list, out of a composed configuration and the user's overrides."""


@dataclass(frozen=True)
class Reads:
    """Keys that an entry point reads of its configuration.

    Attributes:
        keys: Names them for a configuration: single values, and nodes that are built from all they hold. What these
            interpolate is read as well and not named here.
        variants: Overrides of the configurations that it composes itself; a key that one of them reads is read.
        instead: Groups whose choice it does not use, with the key that has their place.
    """

    keys: Callable[[DictConfig], Iterable[str]]
    variants: Variants = lambda _cfg, _given: [[]]
    instead: Mapping[str, str] = field(default_factory=dict)


def covering(axes: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Choose from axes so that every value of a group of configurations occurs, with the others' first values.

    Args:
        axes: Values by key. Of keys that are no group one value is enough: it is read whatever it is.
    """
    if all(axes.values()):
        first = {key: values[0] for key, values in axes.items()}
        yield [f"{key}={value}" for key, value in first.items()]
        for key in config_groups() & set(axes):
            for value in axes[key][1:]:
                yield [f"{k}={v}" for k, v in {**first, key: value}.items()]


def _network(_cfg: DictConfig) -> list[str]:
    model = ("name", "title", "substitution", "network", "weights", "trained", "bottleneck", "mean", "std", "scenes")
    return [*(f"model.{key}" for key in model), "dataset.class_names", "dataset.in_channels"]


def _training(_cfg: DictConfig) -> list[str]:
    return ["training", "logger", "dataset.train", "dataset.curriculum"]


def _setup(cfg: DictConfig) -> list[str]:
    """What preparing a dataset with its trained network reads; published weights are not trained."""
    dataset = ("name", "title", "size", "val", "networks", "available", "counts.stand_in")
    places = ["checkpoint", "data_root", "outputs", "stand_in", "profile.name", "plan_only"]
    trained = [] if OmegaConf.select(cfg, "model.weights") is not None else _training(cfg)
    return [*_network(cfg), *(f"dataset.{key}" for key in dataset), *places, *trained]


def _samples(cfg: DictConfig) -> list[str]:
    return [*_setup(cfg), "dataset.sampling", "seed", "runner.compute"]


def _workers(_cfg: DictConfig) -> list[str]:
    return [f"runner.{key}" for key in ("executor", "workers", "seconds_a_task", "threads")]


def _run(cfg: DictConfig) -> list[str]:
    counts = ["scale", "saved_maps", "stability_samples", "sanity_samples", "curve_samples"]
    counts += ["n_samples", "sweep_samples"] if cfg.n_samples is None else []
    changes = ("explainer", "reading", "readings", "input_noise", "intervention")
    amounts = ("n_samples", "after", "runner.images_per_step")
    return [*_workers(cfg), *_samples(cfg), *(f"dataset.counts.{key}" for key in counts), *changes, *amounts]


def _reproduce(cfg: DictConfig) -> list[str]:
    own = ("datasets", "sweeps", "shows", "only", "dataset.counts.max_minutes", "dataset.empty_truth_counts")
    return [*_run(cfg), *_tables(cfg), *own]


def _tables(cfg: DictConfig) -> list[str]:
    counts = [f"profile.{name}.{key}" for name in cfg.profile for key in ("rise_masks", "msr_iterations")]
    return ["outputs", "profile.name", "plan_only", "parquet", *counts]


def _every_sweep(cfg: DictConfig, given: Sequence[str]) -> Iterator[list[str]]:
    """Cover the networks and methods of all sweeps, with every network that a dataset may get."""
    chosen, own = chosen_sweeps(cfg, given), of_experiments(given)
    for dataset in dict.fromkeys(chain.from_iterable(chosen.values())):
        for network in chain.from_iterable(networks_of(dataset, own)):
            yield [f"dataset={dataset}", f"model={network}"]
        yield [f"dataset={dataset}"]
    seen: set[str] = set()
    for sweep, datasets in chosen.items():
        for variant in covering({"dataset": datasets[:1], **sweep_grid(sweep, own)}):
            if new := {*variant, f"sweep={sweep}"} - seen:
                seen |= new
                yield [f"sweep={sweep}", *variant]


def _bench_networks(cfg: DictConfig, _given: Sequence[str]) -> Iterable[list[str]]:
    return [[f"{group}={name}" for group, name in network.items()] for network in cfg.bench.networks]


def _methods(cfg: DictConfig, _given: Sequence[str]) -> Iterable[list[str]]:
    from misure.explainers import EXPLAINERS

    return [[f"explainer={name}"] for name in cfg.methods.names or EXPLAINERS]


def _layers(cfg: DictConfig) -> list[str]:
    given = ("model_file", "multi_label", "network_output", "image", "size", "slice", "window", "axes", "dimensions")
    own = ("class_names", "mean", "std", "bottleneck", "in_channels", "checkpoint", "data_root", "outputs")
    return [*_network(cfg), *given, *own]


def _explain(cfg: DictConfig) -> list[str]:
    request = ("explainer", "target", "at", "border", "region", "output", "precision", "runner.compute", "plan_only")
    return [*_layers(cfg), *request]


def _prepare_data(_cfg: DictConfig) -> list[str]:
    return ["dataset.name", "data_root", "plan_only", "dataset.prepares", "dataset.prepare"]


READS: dict[str, Reads] = {
    "run": Reads(_run),
    "train": Reads(lambda cfg: [*_setup(cfg), *_training(cfg)]),
    "reproduce": Reads(_reproduce, _every_sweep),
    "tables": Reads(_tables),
    "bench": Reads(lambda cfg: [*_samples(cfg), "bench", "runner.batch_size"], _bench_networks),
    "scaling": Reads(lambda cfg: [*_samples(cfg), "scaling"]),
    "methods": Reads(
        lambda cfg: [*_samples(cfg), "methods", "explainer"], _methods, instead={"explainer": "methods.names"}
    ),
    "operations": Reads(lambda cfg: [*_samples(cfg), "explainer", "n_samples"]),
    "rise_masks": Reads(lambda cfg: [*_samples(cfg), "explainer", "rise_masks"]),
    "workers": Reads(lambda cfg: [*_samples(cfg), *_workers(cfg), "workers"]),
    "explain": Reads(_explain),
    "layers": Reads(_layers),
    "prepare_data": Reads(_prepare_data),
}
"""By entry point."""
