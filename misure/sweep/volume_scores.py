"""Dice and HD95 of the validation volumes, kept beside the records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from misure.config import compute_of
from misure.paper.volumes import write_volumes
from misure.sweep.subject import Subject
from misure.volumes import VolumeDataset, score_volumes, zoom_back


def keep_volume_scores(cfg: DictConfig, subject: Subject) -> None:
    """Score a subject's volumes unless that was done or its dataset has none.

    The predictions are those of the survey, so the network is not run again.

    Raises:
        MisureError: If a library is missing or the scores cannot be written.
    """
    volumes: object = subject.dataset
    if not isinstance(volumes, VolumeDataset):
        return
    convention = "original" if cfg.dataset.empty_truth_counts else "strict"
    compute = compute_of(cfg)
    path = Path(cfg.outputs, "volumes") / f"{subject.identity(compute)}-{convention}.json"
    if path.exists():
        return
    survey = subject.survey(compute)

    def predict(case: str, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        return zoom_back(survey.of_group(case), image.shape)

    scores = score_volumes(predict, volumes, empty_truth_counts=bool(cfg.dataset.empty_truth_counts))
    meta = {
        "dataset": cfg.dataset.name,
        "model": cfg.model.title,
        "profile": cfg.profile.name,
        "source": subject.dataset.source,
        "stand_in": subject.dataset.stand_in,
        "dataset_fingerprint": subject.dataset.fingerprint,
        "weights": subject.info.fingerprint,
        "precision": subject.precision(compute),
    }
    write_volumes(path, scores, meta)
