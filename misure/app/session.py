"""The session of one user: an image, what was clicked on, and its explanations; it knows nothing of any page."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from misure.api import explain
from misure.app.scene import NOTHING, Cut, Scene, look
from misure.app.sharing import SharedNetwork
from misure.app.worker import Run
from misure.errors import MisureError
from misure.explainers.base import Explainer
from misure.explanation import Explanation
from misure.metrics import Blanking, Evaluation, evaluate, min_max
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import Target, TargetBatch

Extent = Literal["object", "border", "class"]
"""What of the class at a clicked pixel is explained."""

BORDER_WIDTH = 5
"""Pixels."""


class Session:
    """One user's work. Methods may be called from several threads.

    Attributes:
        scene: The image on show, or None.
        target: What is to be explained, or None.
        explanations: Finished explanations of the target, by method.
        failures: What went wrong with others, by method.
        run: The latest run, or None.
    """

    def __init__(self) -> None:
        self.scene: Scene | None = None
        self.target: Target | None = None
        self.explanations: dict[str, Explanation] = {}
        self.failures: dict[str, str] = {}
        self.run: Run | None = None
        self._point: tuple[int, int] | None = None
        self._measured: dict[tuple[str, float], Evaluation] = {}
        self._folder: Path | None = None
        self._change = threading.RLock()

    def look_at(self, network: SharedNetwork, path: Path, cut: Cut | None = None) -> Scene:
        """Read an image and predict it; what was explained before is forgotten.

        Args:
            network: The network.
            path: The image's file.
            cut: What is shown of it, if it is a scan.

        Raises:
            MisureError: See :func:`misure.app.scene.look`.
        """
        scene = look(network, path, cut or Cut())
        with self._change:
            self._forget()
            self._point = None
            self.scene = scene
        return scene

    def choose(self, row: int, column: int, extent: Extent = "object") -> Target:
        """Take what is predicted at a pixel as the target.

        Raises:
            MisureError: If there is no image or nothing was predicted there.
        """
        scene = self.shown()
        height, width = scene.labels.shape
        if not (0 <= row < height and 0 <= column < width):
            raise MisureError(f"pixel ({row}, {column}) is outside the image of {height} x {width}")
        class_id = int(scene.labels[row, column])
        if class_id == NOTHING:
            raise MisureError("nothing was predicted there: click on a coloured object")
        where: dict[str, Any] = {} if extent == "class" else {"at": (row, column)}
        if extent == "border":
            where["border"] = BORDER_WIDTH
        with scene.network.visited() as model:
            target: Target = explain(model, scene.image, class_id, "prediction", **where).target
        with self._change:
            if self.scene is scene:
                self._forget()
                self._point = (row, column)
                self.target = target
        return target

    def choose_again(self, extent: Extent) -> Target | None:
        """Take another extent at the pixel clicked on last, if there is one."""
        return self.choose(*self._point, extent) if self._point else None

    def begin(self, explainers: Sequence[Explainer]) -> Run:
        """Start explaining in a thread; a run that is going on is cancelled.

        Raises:
            MisureError: If there is nothing to explain or no method.
        """
        with self._change:
            scene = self.shown()
            if self.target is None:
                raise MisureError("nothing is chosen yet: click on the object to explain")
            if not explainers:
                raise MisureError("no method is chosen: tick at least one")
            self.cancel()
            self.run = Run(scene.network, scene.image, self.target, explainers)
            return self.run.start()

    def collect(self, run: Run) -> bool:
        """Take what a run has finished, unless another image or object was chosen meanwhile.

        Returns:
            Whether the run was still the one that counts.
        """
        with self._change:
            if run is not self.run:
                return False
            for made in run.results:
                self.explanations[made.method] = made
                self.failures.pop(made.method, None)
            self.failures.update(run.failures)
            self._measured = {}
            return True

    def cancel(self) -> None:
        """Stop the run that is going on, if there is one."""
        if self.run is not None:
            self.run.cancel()

    def masks(self, threshold: float) -> dict[str, Tensor]:
        """Cut every map, min-max scaled, at one threshold: bool, H x W, by method."""
        return {name: _mask(made, threshold) for name, made in self.explanations.items()}

    def measure(self, threshold: float) -> Mapping[str, Evaluation]:
        """Measure the masks of :meth:`masks` on the network, by method; what was measured before is remembered."""
        with self._change:
            scene, explanations, measured = self.shown(), dict(self.explanations), self._measured
        for name, made in explanations.items():
            if (name, threshold) not in measured:
                with scene.network.visited() as model:
                    measured[name, threshold] = _measure(model, made, threshold)
        return {name: measured[name, threshold] for name in explanations}

    def pack(self) -> Path | None:
        """Write every explanation's folder and return them as one zip file, or None without any."""
        with self._change:
            if not self.explanations or self.scene is None:
                return None
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="misure-"))
            content = self._folder / "explanations"
            shutil.rmtree(content, ignore_errors=True)
            for name, made in self.explanations.items():
                made.save(content / name)
            return Path(shutil.make_archive(str(self._folder / "explanations"), "zip", content))

    def close(self) -> None:
        """Stop computing and delete what was written."""
        with self._change:
            self._forget()
            self.scene = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def shown(self) -> Scene:
        """Return the image on show.

        Raises:
            MisureError: If there is none yet.
        """
        if self.scene is None:
            raise MisureError("there is no image yet: choose an example or upload one")
        return self.scene

    def _forget(self) -> None:
        self.cancel()
        self.run = self.target = None
        self.explanations, self.failures, self._measured = {}, {}, {}


def _mask(made: Explanation, threshold: float) -> Tensor:
    mask = min_max(made.saliency[None])[0] > threshold
    return mask if made.sufficient_region is None else mask & made.sufficient_region


def _measure(model: SegmentationModel, made: Explanation, threshold: float) -> Evaluation:
    device = model.device or made.image.device
    images = made.image[None].to(device)
    masks = _mask(made, threshold)[None].to(device, images.dtype)
    blanking = Blanking(made.parameters["blanking"], made.parameters["blur_sigma"])
    with frozen(model, Compute(), device) as network:
        targets = TargetBatch.stack([made.target], device)
        return evaluate(network, images, targets, masks, threshold=threshold, blanking=blanking)[0]
