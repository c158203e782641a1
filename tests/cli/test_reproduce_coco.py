"""From photographs or generated scenes to tables: with a network trained here, and with the published one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from pipeline import PROJECT, records_of, run_script

from misure.datasets.coco.dataset import CocoDataset
from misure.datasets.coco.protocol import VOC_NAMES, class_ids
from misure.models.compute import Compute
from misure.models.deeplab import IMAGENET_MEAN, IMAGENET_STD, build_deeplab_mobilenetv2
from misure.models.pretrained import OperatorListWeights
from misure.models.wrapper import SegmentationModel
from misure.sweep.predictions import predict_all

_DATA = Path(os.environ.get("MISURE_DATA", "nowhere"))
needs_photographs = pytest.mark.skipif(
    not (_DATA / "coco").is_dir() or not (_DATA / "deeplabv3_mobilenetv2_voc").is_dir(),
    reason="no coco and deeplabv3_mobilenetv2_voc folders under MISURE_DATA: photographs and weights are absent",
)

CLASSES = ("bus", "car", "cat", "bicycle", "cow", "dog", "person", "train")
SCENES = [
    "profile=smoke",
    "precision='32'",
    "profile.coco.scenes.size=48",
    "profile.coco.scenes.train_images=32",
    "profile.coco.scenes.val_images=12",
    "profile.coco.training.max_epochs=3",
    "profile.coco.training.samples_per_epoch=40",
    "profile.coco.training.max_minutes=inf",
    "profile.coco.rise_masks=3",
    "dataset.sampling.min_area=1",
    "profile.coco.training.lr=0.003",
]
PHOTOGRAPHS = [
    "profile=smoke",
    "precision='32'",
    "dataset=coco",
    "model=deeplabv3_mobilenetv2",
    "dataset.images_per_class=2",
    f"data_root={_DATA}",
]


def test_scenes_go_all_the_way_and_are_marked(tmp_path):
    """The stand-in through generation, training, drawing, explaining and every table."""
    arguments = [*SCENES, "only=table1", "dataset=coco", "data_root=none"]
    ended = run_script("reproduce.py", arguments, tmp_path, drawn=True)
    assert ended.code == 0, ended.err
    assert "coco-deeplabv3_stand_in" in ended.out
    found = records_of(tmp_path)
    assert found["stand_in"].all()
    assert found["dataset_source"].str.contains("stand-in: generated scenes").all()
    assert (found["credit_licence"] == 0).all()
    tables = tmp_path / "outputs" / "tables"
    for name in ("table1", "table5", "table6"):
        assert "stand-in: generated scenes" in (tables / f"{name}.md").read_text(encoding="utf-8")
    for name in ("figure3", "figure7"):
        assert (tmp_path / "outputs" / "figures" / f"{name}.png").stat().st_size > 0


@needs_photographs
def test_photographs_are_explained_with_the_published_network(tmp_path):
    arguments = [*PHOTOGRAPHS, "explainer=msr", "explainer.n_iterations=3", "mask_size=64", "n_samples=2"]
    ended = run_script("run.py", [*arguments, "model.network.input_size=129"], tmp_path)
    assert ended.code == 0, ended.err
    assert "MobileNetV2 substitution" in ended.out
    found = records_of(tmp_path)
    assert not found["stand_in"].any()
    assert set(found["substitution"]) == {"MobileNetV2 substitution"}
    assert found["credit_licence"].between(1, 8).all()
    assert found["credit_url"].str.startswith("http").all()
    assert np.isfinite(found[["dice_explained", "perturbation_ratio", "truth_dice", "confidence"]].to_numpy()).all()
    # The same weights at another size inside are another network: nothing of the first run is taken for it.
    again = run_script("run.py", [*arguments, "model.network.input_size=97"], tmp_path)
    assert again.code == 0, again.err
    assert records_of(tmp_path)["weights"].nunique() == 2


@needs_photographs
def test_photographs_at_their_own_aspect(tmp_path):
    arguments = [*PHOTOGRAPHS, "resize=native", "explainer=seg_grad_cam", "n_samples=3", "runner.images_per_step=3"]
    ended = run_script("run.py", [*arguments, "model.network.input_size=null"], tmp_path)
    assert ended.code == 0, ended.err
    assert records_of(tmp_path)["unit"].nunique() == 3


@needs_photographs
def test_without_its_weights_the_paper_s_network_says_what_to_do(tmp_path):
    unreachable = "model.weights.url=http://127.0.0.1:9/deeplabv3_resnet50_coco-cd0a2569.pth"
    ended = run_script(
        "run.py",
        ["profile=quick", "dataset=coco", "data_root=none", unreachable],
        tmp_path,
        TORCH_HOME=str(tmp_path / "hub"),
    )
    assert ended.code == 1
    assert f"put deeplabv3_resnet50_coco-cd0a2569.pth into {tmp_path}/none/deeplabv3_resnet50" in ended.message
    assert "model=deeplabv3_mobilenetv2" in ended.message


def test_without_photographs_the_folder_is_named(tmp_path):
    root = tmp_path / "data"
    ended = run_script(
        "run.py", ["profile=smoke", "dataset=coco", "model=deeplabv3_mobilenetv2", f"data_root={root}"], tmp_path
    )
    assert ended.code == 1
    assert str(root) in ended.message


@needs_photographs
def test_the_published_network_segments_the_photographs():
    """0.632 was measured on 128 such images; 0.5 leaves room for other images, not for mixed-up channels or scales."""
    photographs = CocoDataset("val", _DATA, CLASSES, 100, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    network = build_deeplab_mobilenetv2(len(VOC_NAMES))
    described = OmegaConf.load(PROJECT / "configs" / "model" / "deeplabv3_mobilenetv2.yaml").weights
    folder = _DATA / "deeplabv3_mobilenetv2_voc"
    OperatorListWeights("network", folder, described.stem, tuple(described.digests)).load_into(network)
    found = predict_all(SegmentationModel(network.eval()), photographs, Compute("32"))
    union = found.predicted + found.true - found.overlap
    overlaps = (found.overlap.sum(0) / union.sum(0))[list(class_ids(CLASSES))]
    assert overlaps.mean() > 0.5
