"""Synthetic record frames and maps for the tests of tables and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from misure.explainers import EXPLAINERS
from misure.paper.published import PAIRS
from misure.paper.query import latest_run

TRIANGLE, UNET, TRANSUNET = PAIRS[:3]
COCO = next(pair for pair in PAIRS if pair.model == "deeplabv3_mobilenetv2")

_UNIT: dict[str, Any] = {
    "status": "done",
    "reason": None,
    "created": "2026-11-20T10:00:00+00:00",
    "dataset": "triangle",
    "dataset_fingerprint": "f" * 16,
    "dataset_source": "shipped Fashion-MNIST subset",
    "stand_in": False,
    "model": "unet_vgg16",
    "weights": "0123456789abcdef",
    "profile": "quick",
    "class_id": 1,
    "input_noise": 0.0,
    "intervention": "",
    "dice_explained": 0.9,
    "perturbation_ratio": 0.5,
    "region_ratio": 0.4,
    "binary_dice_explained": 0.8,
    "prediction_size": 1000,
    "n_dilations": float("nan"),
    "truth_dice": 0.95,
    "seconds": 2.0,
    "batch_size": 1,
    "precision": "32",
    "device": "toy device",
    "code_version": "0.1.0",
    "class_name": "triangle",
    "group": "0",
    "confidence": 0.9,
    "draw": 0,
    "substitution": "",
    "scale": 1.0,
    "network_source": None,
    "credit_licence": None,
    "credit_licence_name": None,
    "credit_licence_url": None,
    "credit_url": None,
}
ORGANS = ("Aorta", "Gall Bladder", "Left Kidney", "Right Kidney", "Liver", "Pancreas", "Spleen", "Stomach")
PHANTOM = "stand-in: phantom CT (8 volumes)"

COCO_CLASSES = {"bus": 6, "car": 7, "cat": 8, "bicycle": 2, "cow": 10, "dog": 12, "person": 15, "train": 19}
SUBSTITUTION = "MobileNetV2 substitution"

_COLUMNS = ["unit", "explainer", "sample", "threshold", *_UNIT]


def unit(explainer: str, sample: int, parameters: dict[str, Any] | None = None, **columns: Any) -> list[dict[str, Any]]:
    """Return the rows of one unit: one per threshold if done, else a single one without numbers."""
    settings = EXPLAINERS[explainer].published().parameters | (parameters or {})
    row = _UNIT | {"explainer": explainer, "sample": sample, "group": str(sample)} | columns
    stored = {f"param_{k}": json.dumps(v) if isinstance(v, list) else v for k, v in settings.items()}
    key = [row[name] for name in ("created", "dataset", "model", "weights", "profile", "class_id", "input_noise")]
    name = f"{abs(hash(json.dumps([explainer, sample, key, stored], default=str))):016x}"
    thresholds = (settings["thresholds"] or [float("nan")]) if row["status"] == "done" else [float("nan")]
    if row["status"] != "done":
        row |= dict.fromkeys(("dice_explained", "perturbation_ratio", "region_ratio", "seconds"), float("nan"))
    return [{"unit": name} | row | stored | {"threshold": threshold} for threshold in thresholds]


def organ(
    explainer: str, sample: int, label: str, parameters: dict[str, Any] | None = None, **columns: Any
) -> list[dict[str, Any]]:
    """Return the rows of one unit of the Synapse stand-in, U-Net unless ``model`` says otherwise."""
    described = {"dataset": "synapse", "model": "unet_resnet34", "dataset_source": PHANTOM, "stand_in": True}
    described |= {"class_id": ORGANS.index(label) + 1, "class_name": label, "group": f"case{sample:04d}"}
    return unit(explainer, sample, parameters, **(described | columns))


def photo(
    explainer: str, sample: int, name: str, parameters: dict[str, Any] | None = None, **columns: Any
) -> list[dict[str, Any]]:
    """Return the rows of one unit of a class in a COCO photograph under licence 4, MobileNetV2 by default."""
    described = {"dataset": "coco", "model": "deeplabv3_mobilenetv2", "dataset_source": "103 COCO val2017 images"}
    described |= {"class_id": COCO_CLASSES[name], "class_name": name, "group": f"{sample:012d}.jpg"}
    described |= {"substitution": SUBSTITUTION, "network_source": "published elsewhere"}
    described |= {"credit_licence": 4, "credit_licence_name": "Attribution License"}
    described |= {"credit_licence_url": "http://licences.example/by", "credit_url": f"http://photos.example/{sample}"}
    return unit(explainer, sample, parameters, **(described | columns))


def frame(*units: list[dict[str, Any]]) -> pd.DataFrame:
    """Join units into a frame with every column of every explainer."""
    parameters = {f"param_{name}": None for cls in EXPLAINERS.values() for name in cls.parameter_names()}
    rows = [row for rows in units for row in rows]
    return pd.DataFrame(rows, columns=[*_COLUMNS, *parameters])


def run_of(*units: list[dict[str, Any]]) -> pd.DataFrame:
    """Join units into a run of the profile ``quick``."""
    return latest_run(frame(*units), "quick")


def save_map(
    folder: Path,
    unit_name: str,
    saliency: np.ndarray,
    *,
    sufficient: bool = True,
    channels: int = 1,
    image: bool = True,
    black: np.ndarray | None = None,
) -> None:
    """Write one unit's maps as a run does, with some black pixels; as they ship of a second precision: no image."""
    folder.mkdir(parents=True, exist_ok=True)
    size = saliency.shape
    colours = np.random.default_rng(0).random((channels, *size)).astype(np.float16)
    if black is not None:
        colours[:, black] = 0
    region = np.zeros(size, bool)
    region[: size[0] // 2, : size[1] // 2] = True
    arrays = {"region": region, "saliency": saliency.astype(np.float16)}
    arrays |= {"image": colours} if image else {}
    arrays |= {"sufficient_region": region} if sufficient else {}
    np.savez(folder / f"{unit_name}.npz", allow_pickle=False, **arrays)


def triangle_records(maps: Path) -> pd.DataFrame:
    """Four samples of Triangle; maps of the first two, RISE's missing for the second."""
    units = []
    values = np.random.default_rng(0)
    for sample in range(4):
        for name in ("msr", "rise", "seg_grad_cam"):
            rows = unit(
                name,
                sample,
                {"n_masks": 300} if name == "rise" else {},
                n_dilations=float(sample) if name == "msr" else float("nan"),
                perturbation_ratio=1.0 / (1 + sample),
                prediction_size=100 * (sample + 1),
            )
            units.append(rows)
            if sample < 2 and (sample, name) != (1, "rise"):
                save_map(maps, rows[0]["unit"], values.random((8, 12)), sufficient=name == "msr")
    return frame(*units)


def judged_organ(label: str, n: int, volumes: int = 5, **columns: Any) -> list[list[dict[str, Any]]]:
    """Return MSR's samples of an organ, whose ratio tells their quality; the pancreas is never reliable."""
    generator = np.random.default_rng(ORGANS.index(label))
    units = []
    for sample in range(n):
        quality = generator.normal() - (9 if label == "Pancreas" else 0)
        numbers = {
            "truth_dice": 0.95 if quality > 0 else 0.6,
            "n_dilations": float(generator.integers(0, 9)),
            "dice_explained": 0.93 + 0.02 * generator.normal(),
            "perturbation_ratio": float(np.exp(generator.normal() - quality)),
            "prediction_size": int(generator.integers(5, 4000)),
            "confidence": float(generator.uniform(0.6, 1)),
            "group": f"case{sample % volumes:04d}",
            "draw": sample,
        }
        units.append(organ("msr", sample, label, **(numbers | columns)))
    return units


def judged_organs(counts: dict[str, int], **columns: Any) -> pd.DataFrame:
    """Return a run of some samples of each organ."""
    units = [rows for label, n in counts.items() for rows in judged_organ(label, n, **columns)]
    return run_of(*units)


VOLUME_META = {
    "dataset": "synapse",
    "model": "TransUNet",
    "profile": "quick",
    "source": "BTCV, official volumes",
    "stand_in": False,
    "weights": "0123456789abcdef",
    "dataset_fingerprint": "fedcba9876543210",
}
"""What every row of one evaluation of volumes says."""
