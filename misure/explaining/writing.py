"""The folder of an explanation of an image file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from misure.evaluation.curves import Curve
from misure.explaining.naming import part_name, place_of
from misure.explaining.network import NamedNetwork, content_digest
from misure.explaining.pictures import write_curve, write_overlays
from misure.explanation import Explanation
from misure.io.images import LoadedImage
from misure.models.normalisation import without_normalisation


@dataclass(frozen=True)
class Output:
    """The circumstances of an explanation, which are written with it.

    Attributes:
        image: The image as it is in its file.
        network: What was explained.
        curve: As :func:`misure.evaluation.curves.explanation_curves` returns it.
        request: The keys of the command that decide the result.
        versions: By package.
    """

    image: LoadedImage
    network: NamedNetwork
    curve: Curve
    request: Mapping[str, Any]
    versions: Mapping[str, str]

    def save(self, explanation: Explanation, folder: Path) -> Path:
        """Write everything into a folder of its own in ``folder``, whole or not at all.

        Besides what :meth:`misure.explanation.Explanation.save` writes: ``image.png``, ``target.png``,
        ``overlay.png``, ``curve.png`` and ``metrics.json``; for a scan ``saliency.nii.gz`` with the affine and the
        axes of its file (a single slice lies where it was in the scan; a map of a resized image is brought back).

        Returns:
            The folder, ``<image>-<target>-<method>``; with some digits more if that holds an explanation of another
            image, network or request.

        Raises:
            MisureError: If the place cannot be written.
        """
        record = self._record(explanation)

        def write(partial: Path) -> dict[str, Any]:
            model = self.network.model
            write_overlays(explanation, without_normalisation(explanation.image, model.mean, model.std), partial)
            write_curve(explanation, self.curve, partial)
            metrics = self._metrics(explanation)
            (partial / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False), encoding="utf-8")
            if self.image.grid is not None:
                self._write_nifti(explanation, partial / "saliency.nii.gz")
            return record

        decided = {**explanation.summary(), **record}
        return explanation.save(place_of(folder / self.folder_name(explanation), decided), extra=write)

    def class_name(self, explanation: Explanation) -> str:
        """The name of the explained class, or its number where it has none."""
        return self.network.model.class_label(explanation.target.class_id)

    def folder_name(self, explanation: Explanation) -> str:
        """``<image>-<target>-<method>``, with the slice and what of the class was chosen."""
        image = self.image.name
        if self.image.slice_index is not None:
            image += f"-slice-{self.image.slice_index}"
        target = part_name(self.class_name(explanation))
        if self.request["at"]:
            target += "-at-" + "-".join(map(str, self.request["at"]))
        if self.request["border"]:
            target += f"-border-{self.request['border']}"
        if self.request["region"]:
            target += f"-in-{part_name(Path(self.request['region']).stem)}"
        return f"{image}-{target}-{part_name(explanation.method)}"

    def _metrics(self, explanation: Explanation) -> dict[str, Any]:
        summary = explanation.summary()
        return {
            "class": self.class_name(explanation),
            "dice_explained": explanation.dice_explained,
            "perturbation_ratio": explanation.perturbation_ratio,
            "confidence": explanation.target.confidence,
            **{key: summary[key] for key in ("prediction_size", "n_dilations", "evaluations", "seconds")},
            "curve": {
                "dice_explained": self.curve["curve_dice"].tolist(),
                "perturbation_ratio": self.curve["curve_ratio"].tolist(),
            },
            "loss": list(explanation.curve),
        }

    def _write_nifti(self, explanation: Explanation, path: Path) -> None:
        from misure.io.nifti import write_nifti

        grid = self.image.grid
        if grid is not None:
            voxels, affine = grid.to_file(self.image.restored(explanation.saliency).numpy().astype(np.float32))
            write_nifti(path, voxels, affine)

    def _record(self, explanation: Explanation) -> dict[str, Any]:
        """The manifest's entries beyond the explanation's own numbers."""
        image, model = self.image, self.network.model
        return {
            "versions": dict(self.versions),
            "input": {
                "file": image.path.name,
                "sha256": content_digest(image.path),
                "shape": list(image.pixels.shape),
                "slice": image.slice_index,
                "affine": None if image.affine is None else image.affine.tolist(),
            },
            "network": {
                **self.network.origin,
                "title": model.title,
                "mean": list(model.mean),
                "std": list(model.std),
                "bottleneck": model.bottleneck,
                "multi_label": model.multi_label,
                "output": model.output.kind,
            },
            "class": self.class_name(explanation),
            "shape": list(explanation.image.shape),
            "request": dict(self.request),
        }
