"""What a record says besides its results: when, where and on what it was made."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from misure.datasets.credit import CreditedDataset
from misure.models.compute import device_name
from misure.sweep.experiment import Experiment
from misure.sweep.revision import code_version
from misure.sweep.sampling import Sample
from misure.sweep.setup import Subject


def circumstances(experiment: Experiment, subject: Subject, sample: Sample, drawn: int) -> dict[str, Any]:
    """Return the columns of a record that say when, where and on what an explanation was made.

    Args:
        experiment: What is run.
        subject: What it explains.
        sample: Which object.
        drawn: How many samples the data gives.
    """
    device = subject.model.device or torch.device("cpu")
    credited = subject.dataset if isinstance(subject.dataset, CreditedDataset) else None
    return {
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "profile": experiment.cfg.profile.name,
        "dataset_source": subject.dataset.source,
        "stand_in": subject.dataset.stand_in,
        "substitution": experiment.cfg.model.get("substitution", ""),
        "network_source": subject.info.data.get("source"),
        "precision_reason": experiment.precision_reason,
        "initial_weights": subject.info.initial_weights,
        **({f"credit_{k}": v for k, v in asdict(credited.credit(sample.image)).items()} if credited else {}),
        "class_name": experiment.cfg.dataset.class_names[sample.class_id],
        "group": subject.dataset.group(sample.image),
        "draw": sample.draw,
        "drawn": drawn,
        "val_dice": subject.info.metrics.get("val_dice"),
        "device": device_name(device),
        "code_version": code_version(),
    }
