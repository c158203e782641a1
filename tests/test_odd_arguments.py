"""Every public callable with arguments of every wrong type: a value or a one-line MisureError, nothing else."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from oracles.toys import Convolutional
from PIL import Image as Picture
from reliability_records import records

import misure
from misure.evaluation import volumes
from misure.evaluation.curves import explanation_curves
from misure.io.images import read_images
from misure.metrics import Blanking
from misure.models.compute import Compute
from misure.reliability import (
    ReliabilityModel,
    area_under_curve,
    cross_validate,
    fit,
    roc_curve,
    score,
    usable_samples,
)

IMAGE = torch.tensor([[[0.9, 0.1, 0.8, 0.2], [0.7, 0.6, 0.1, 0.0], [0.0, 0.9, 0.1, 0.3]]])


class Anything(dict[str, Any]):
    """A class that can be called as any function can."""

    def __init__(self, *_given: Any, **_named: Any) -> None:
        super().__init__()


ODD: dict[str, Any] = {
    "none": None,
    "true": True,
    "text": "text",
    "no text": "",
    "number as text": "1",
    "zero": 0,
    "minus one": -1,
    "half": 0.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "huge": 10**30,
    "huger": 10**400,
    "list": [1, "a", None],
    "no list": [],
    "dictionary": {"a": 1},
    "array": np.arange(6.0).reshape(2, 3),
    "words": np.array(["a", "b"]),
    "tensor": torch.arange(3),
    "tensor of nan": torch.tensor([float("nan")]),
    "type": Anything,
    "object": object(),
    "bytes": b"bytes",
    "function": lambda *_given, **_named: {},
}

FEW = {"n_masks": 3, "n_samples": 2, "n_steps": 2, "n_iterations": 2, "mask_size": 4, "layer": "bottleneck"}


def explain(method: str = "prediction", **changed: Any) -> Any:
    arguments = {"model": Convolutional(seed=4), "image": IMAGE, "target": 1, "method": method} | changed
    return misure.explain(**arguments)


def explained_by(method: str, **changed: Any) -> Any:
    few = {name: value for name, value in FEW.items() if name in misure.EXPLAINERS[method].parameter_names()}
    return explain(misure.EXPLAINERS[method](**few | changed))


EXPLANATION = explain()
MODEL = misure.SegmentationModel(Convolutional(seed=4))
ROWS = records(30, 6, 0)


def curves(**changed: Any) -> Any:
    arguments = {
        "model": Convolutional(seed=4),
        "explanation": EXPLANATION,
        "blanking": Blanking(),
        "compute": Compute(),
    }
    return explanation_curves(**arguments | changed)


def fitted(**changed: Any) -> Any:
    arguments = {"features": ROWS, "reliable": ROWS["truth_dice"] >= 0.9, "class_name": "Liver"}
    return fit(**arguments | changed)


def validated(**changed: Any) -> Any:
    arguments = {"samples": usable_samples(ROWS), "protocol": "honest"} | changed
    return score(cross_validate(**arguments))


def loaded(**changed: Any) -> Any:
    torch.jit.script(torch.nn.Conv2d(1, 2, 1)).save("network.pt")
    return misure.load_model(**{"source": "network.pt"} | changed)


def pictured(**changed: Any) -> Any:
    Picture.new("RGB", (4, 3)).save("picture.png")
    return read_images(**{"source": "picture.png"} | changed)


def predictions(**changed: Any) -> Any:
    model = misure.SegmentationModel(**{"network": Convolutional(seed=4)} | changed)
    return misure.explain(model, IMAGE, 1, "prediction", blanking="black")


OUT = cross_validate(usable_samples(ROWS), "honest")
FITTED = fitted()
MASK = np.ones((2, 3, 4), bool)

CALLS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "explain": (explain, [name for name in inspect.signature(misure.explain).parameters if name != "parameters"]),
    "SegmentationModel": (predictions, list(inspect.signature(misure.SegmentationModel).parameters)),
    "load_model": (loaded, list(inspect.signature(misure.load_model).parameters)),
    "Compute": (misure.Compute, [field.name for field in fields(misure.Compute)]),
    "Blanking": (Blanking, ["kind", "sigma"]),
    "Explainer.explain": (
        partial(
            misure.EXPLAINERS["prediction"]().explain, model=MODEL, images=IMAGE[None], targets=[EXPLANATION.target]
        ),
        ["model", "images", "targets", "compute", "watch"],
    ),
    "SegmentationModel.layers": (partial(MODEL.layers, image=IMAGE), ["image", "pattern"]),
    "SegmentationModel.layer": (MODEL.layer, ["name"]),
    "SegmentationModel.suggest_bottleneck": (MODEL.suggest_bottleneck, ["image"]),
    "Target.from_logits": (
        partial(misure.Target.from_logits, logits=torch.eye(3)[:2, None], class_id=1),
        ["logits", "class_id", "region", "at", "border", "multi_label"],
    ),
    "Explanation.save": (lambda folder="saved", extra=None: EXPLANATION.save(folder, extra=extra), ["folder", "extra"]),
    "explanation_curves": (curves, list(inspect.signature(explanation_curves).parameters)),
    "fit": (fitted, list(inspect.signature(fit).parameters)),
    "usable_samples": (lambda rows=ROWS, threshold=0.9: usable_samples(rows, threshold), ["rows", "threshold"]),
    "cross_validate": (validated, ["samples", "protocol", "features", "seed"]),
    "score": (partial(score, out=OUT), ["out"]),
    "roc_curve": (roc_curve, ["out"]),
    "area_under_curve": (area_under_curve, ["out"]),
    "ReliabilityModel.predict": (FITTED.predict, ["explanation"]),
    "ReliabilityModel.probabilities": (FITTED.probabilities, ["rows"]),
    "ReliabilityModel.save": (FITTED.save, ["path"]),
    "ReliabilityModel": (partial(replace, FITTED), [field.name for field in fields(ReliabilityModel)]),
    "volume score": (partial(volumes.score, predicted=MASK, true=MASK), ["predicted", "true"]),
    "read_images": (pictured, list(inspect.signature(read_images).parameters)),
    "ReliabilityModel.load": (ReliabilityModel.load, ["path"]),
    **{name: (partial(explained_by, name), [f.name for f in fields(cls)]) for name, cls in misure.EXPLAINERS.items()},
}


def calls() -> Iterator[Any]:
    for name, (call, parameters) in CALLS.items():
        for parameter in parameters:
            yield pytest.param(call, parameter, id=f"{name}-{parameter}")


@pytest.mark.parametrize(("call", "parameter"), [*calls()])
def test_a_value_or_one_line(call, parameter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = []
    for kind, value in ODD.items():
        try:
            with warnings.catch_warnings(action="ignore"):
                call(**{parameter: value})
        except misure.MisureError as error:
            if "\n" in str(error) or len(str(error)) > 500:
                faults.append(f"{kind}: several lines, {error}")
        except Exception as error:  # noqa: BLE001 - what must not happen
            faults.append(f"{kind}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("msr", "mask_size", 10**6),
        ("extremal_perturbation", "mask_size", 10**7),
        ("grid_saliency", "grid", 10**6),
        ("meaningful_perturbation", "grid", 10**9),
        ("rise", "grid", 10**6),
        ("rise", "n_masks", 10**12),
        ("smooth_grad", "n_samples", 10**11),
        ("integrated_gradients", "n_steps", 10**7),
        ("msr", "mask_size", 2**63 - 1),
    ],
)
def test_more_than_the_memory_is_refused_before_it_is_taken(method, name, value):
    """Such numbers were allocated, and the process killed."""
    with pytest.raises(misure.MisureError, match=rf"^{name}={value} takes about \S+ GB of memory, .* choose a smaller"):
        explained_by(method, **{name: value})


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        ("rise", {"n_masks": 10**12, "control_variate": None}),
        ("rise", {"n_masks": 10**12, "control_variate": None, "tolerance": 0.0}),
        ("msr", {"n_iterations": 10**12}),
        ("meaningful_perturbation", {"n_iterations": 10**12, "grid": 3}),
        ("occlusion", {"window": 10**12, "stride": 10**12}),
    ],
)
def test_counts_without_end_take_no_memory_and_can_be_ended(method, counts):
    def watch(progress: misure.Progress) -> None:
        if progress.done:
            raise misure.CancelledError("enough")

    with pytest.raises(misure.CancelledError, match="enough"):
        explain(misure.EXPLAINERS[method](**counts), watch=watch)
