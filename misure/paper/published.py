"""The paper's printed numbers, and which of our datasets and models they belong to.

:func:`misure.paper.query.shown_pairs` says which entries of :data:`PAIRS` a run's records fill, and
:func:`misure.paper.query.further_pairs` which datasets and models of the records the paper does not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import chain, product
from typing import Any

from omegaconf import OmegaConf

DASH = "–"  # noqa: RUF001 - an en dash, as in printed tables

PAPER_MASKS = 2000
"""RISE masks in the paper (4.4)."""

PAPER_ITERATIONS = 100
"""Iterations of MSR in the paper (4.2)."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A dataset and model, and where the paper shows them; what it does not have needs labels and names alone.

    Attributes:
        dataset_label: The paper's spelling of the dataset.
        model_label: The paper's spelling of the model.
        dataset: Our name of the dataset, as in records.
        model: Our name of the model, as in records.
        lr_lambda_key: Its block in the reference's ``lr_lambda``.
        lr_lambda_table: Number of the table with learning rate against lambda.
        qualitative_figure: Number of the figure with sample maps; models of a dataset may share one.
        size_figure: Number of the figure with the prediction size.
        draws_per_class: How many samples of a class count in Tables 1 to 6 and the figures.
        classes: The paper's spelling of its classes; empty for a dataset of one class.
        class_word: What its classes are called.
        qualitative_classes: Those that the figure with sample maps shows, from top to bottom.
        size_classes: Those that the figure with the prediction size shows, from top to bottom.
        sizes_merged: Whether that figure has all classes in one plot.
        sample_word: What its samples are, where they are not the same number of each class.
        sample_rule: What is asked of ours that the paper does not say.
        photographs: Whether its images are people's photographs, which only some licences allow to show.
        mean: Of the normalisation that its images went through, per channel; empty for none.
        std: Of that normalisation.
        compare_readings: Whether the start of MSR's second stage was tried under several readings.
    """

    dataset_label: str
    model_label: str
    dataset: str
    model: str
    lr_lambda_key: str = ""
    lr_lambda_table: int = 0
    qualitative_figure: int = 0
    size_figure: int = 0
    draws_per_class: float = math.inf
    classes: tuple[str, ...] = ()
    class_word: str = "class"
    qualitative_classes: tuple[str, ...] = ()
    size_classes: tuple[str, ...] = ()
    sizes_merged: bool = False
    sample_word: str = ""
    sample_rule: str = ""
    photographs: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    compare_readings: bool = False

    @property
    def label(self) -> str:
        """Dataset and model for titles."""
        return f"{self.dataset_label}, {self.model_label}"

    @property
    def paper_samples(self) -> int | None:
        """How many samples the paper's means are over; None for what it does not have."""
        return reference()["samples"].get(self.dataset_label) if self.lr_lambda_key else None

    @property
    def paper_setting(self) -> str:
        """The paper's samples in words."""
        each = f"{self.draws_per_class:.0f} of each {self.class_word}" if self.classes else ""
        described = self.sample_word or each
        return f"{self.paper_samples} samples" + (f" ({described})" if described else "")


_TRIANGLE = Pair(
    dataset_label="Triangle",
    model_label="U-Net",
    dataset="triangle",
    model="unet_vgg16",
    lr_lambda_key="table2_triangle_unet",
    lr_lambda_table=2,
    qualitative_figure=1,
    size_figure=6,
    draws_per_class=150,
)

_SYNAPSE_UNET = Pair(
    dataset_label="Synapse",
    model_label="U-Net",
    dataset="synapse",
    model="unet_resnet34",
    lr_lambda_key="table3_synapse_unet",
    lr_lambda_table=3,
    qualitative_figure=2,
    size_figure=4,
    draws_per_class=50,
    classes=("Aorta", "Gall Bladder", "Left Kidney", "Right Kidney", "Liver", "Pancreas", "Spleen", "Stomach"),
    class_word="organ",
    qualitative_classes=("Aorta", "Left Kidney", "Gall Bladder", "Liver"),
    size_classes=("Aorta", "Gall Bladder", "Left Kidney", "Right Kidney"),
)

_SYNAPSE_TRANSUNET = replace(
    _SYNAPSE_UNET,
    model_label="TransUNet",
    model="transunet",
    lr_lambda_key="table4_synapse_transunet",
    lr_lambda_table=4,
    size_figure=5,
)

_COCO_RESNET50 = Pair(
    dataset_label="COCO-2017",
    model_label="DeepLabv3",
    dataset="coco",
    model="deeplabv3_resnet50",
    lr_lambda_key="table5_coco_deeplabv3",
    lr_lambda_table=5,
    qualitative_figure=3,
    size_figure=7,
    draws_per_class=181,
    classes=("Bus", "Car", "Cat", "Bicycle", "Cow", "Dog", "Person", "Train"),
    qualitative_classes=("Bicycle", "Bus", "Car", "Cat", "Dog", "Cow", "Train", "Person"),
    sizes_merged=True,
    sample_word="pairs of an image and a class",
    sample_rule="predicted with at least 160 pixels of 224 x 224, a rule of ours",
    photographs=True,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    compare_readings=True,
)

PAIRS = (
    _TRIANGLE,
    _SYNAPSE_UNET,
    _SYNAPSE_TRANSUNET,
    _COCO_RESNET50,
    replace(_COCO_RESNET50, model="deeplabv3_mobilenetv2"),
    replace(_COCO_RESNET50, model="deeplabv3_stand_in"),
)
"""Entries with the same labels are networks that stand for one of the paper's, the nearest to it first."""


def grouped(pairs: Sequence[Pair], attribute: str) -> list[list[Pair]]:
    """Group pairs by an attribute such as ``"qualitative_figure"``, in order of appearance."""
    groups: dict[Any, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(getattr(pair, attribute), []).append(pair)
    return list(groups.values())


@dataclass(frozen=True)
class PaperValue:
    """What the paper prints for one row or cell; None where it prints nothing."""

    dice_explained: float | None = None
    perturbation_ratio: float | None = None
    seconds: float | None = None


@cache
def shipped(name: str) -> dict[str, Any]:
    """Return one of this package's YAML files, a mapping."""
    text = resources.files("misure.paper").joinpath(name).read_text(encoding="utf-8")
    loaded = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(loaded, dict)  # noqa: S101 - the shipped files are mappings
    return {str(key): value for key, value in loaded.items()}


def reference() -> dict[str, Any]:
    """Return the paper's tables as in ``reference.yaml``."""
    return shipped("reference.yaml")


def table1_reference(pair: Pair) -> dict[tuple[str, float | None], PaperValue]:
    """Return the paper's Table 1 by method and threshold, in printed order; no values for what it does not have."""
    printed = {
        (method, threshold): PaperValue(*numbers)
        for dataset, model, method, threshold, *numbers in reference()["table1"]
        if (dataset, model) == (pair.dataset_label, pair.model_label)
    }
    return printed or dict.fromkeys(table1_reference(PAIRS[0]), PaperValue())


def lr_lambda_reference(pair: Pair) -> dict[tuple[float, float], PaperValue]:
    """Return the paper's values by (lambda, learning rate), in printed order; no values for what it does not have."""
    tables = reference()["lr_lambda"]
    settings = list(product(tables["lambda"], tables["learning_rate"]))
    if not pair.lr_lambda_key:
        return dict.fromkeys(settings, PaperValue())
    block = tables[pair.lr_lambda_key]
    printed = zip(chain(*block["dice_explained"]), chain(*block["perturbation_ratio"]), strict=True)
    return {setting: PaperValue(*numbers) for setting, numbers in zip(settings, printed, strict=True)}


def table6_reference(pair: Pair) -> dict[int, PaperValue]:
    """Return the paper's Table 6 by mask size, in printed order; empty for what it does not have."""
    return {
        size: PaperValue(*numbers)
        for dataset, model, size, *numbers in reference()["table6"]
        if (dataset, model) == (pair.dataset_label, pair.model_label)
    }
