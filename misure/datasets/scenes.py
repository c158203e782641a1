"""Generated scenes of eight object classes in COCO's layout: the stand-in for a machine without photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SceneSpec:
    """What is generated.

    Attributes:
        train_images: Scenes to train on.
        val_images: Scenes to explain.
        size: Side of a scene.
        seed: Same seed, same scenes.
    """

    train_images: int = 600
    val_images: int = 120
    size: int = 224
    seed: int = 0


def generated(folder: Path, spec: SceneSpec) -> Path:
    """Generate scenes once for each specification and return their folder."""
    raise NotImplementedError
