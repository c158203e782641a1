"""A tiny result of nnU-Net v2, of 2 or 3 dimensions: its library's network from plans, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

INTENSITIES = {"mean": 80.0, "std": 50.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0}
PATCH = {2: [16, 16], 3: [8, 16, 16]}
SPACING = {2: [1.0, 1.0], 3: [2.0, 1.0, 1.0]}


def architecture(dimensions: int) -> dict:
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [[3] * dimensions] * 3,
        "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(dimensions: int, channels: int) -> dict:
    resampling = {"order_z": 0, "force_separate_z": None}
    steps = {"data": (False, 1), "seg": (True, 1), "probabilities": (False, 1)}
    return {
        "data_identifier": "nothing",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": PATCH[dimensions],
        "spacing": SPACING[dimensions],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"][:channels],
        "use_mask_for_norm": [False] * channels,
        **{f"resampling_fn_{name}": "resample_data_or_seg_to_shape" for name in steps},
        **{
            f"resampling_fn_{name}_kwargs": {"is_seg": is_seg, "order": order, **resampling}
            for name, (is_seg, order) in steps.items()
        },
        "architecture": architecture(dimensions),
    }


def plans(dimensions: int, channels: int = 1, transpose: tuple[int, ...] = (0, 1, 2)) -> dict:
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": np.argsort(transpose).tolist(),
        "configurations": {name(dimensions): configuration(dimensions, channels)},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): INTENSITIES for channel in range(channels)},
    }


def name(dimensions: int) -> str:
    return "2d" if dimensions == 2 else "3d_fullres"


def write_result(root: Path, dimensions: int, *, plan: dict | None = None, **dataset) -> tuple[Path, nn.Module]:
    """Write a result with the entries that nnU-Net's trainer writes; return its folder and its network."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plan = plan or plans(dimensions)
    folder = root / f"nnUNetTrainer__nnUNetPlans__{name(dimensions)}"
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "spleen": 1, "liver": 2}, **dataset}
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plan))
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", **described}))
    torch.manual_seed(0)
    built = architecture(dimensions)
    heads = sum(key != "background" for key in described["labels"]) if "regions_class_order" in described else 3
    network = get_network_from_plans(
        built["network_class_name"],
        built["arch_kwargs"],
        built["_kw_requires_import"],
        len(described["channel_names"]),
        heads,
        deep_supervision=True,  # as it is trained
    )
    network.decoder.seg_layers[-1].bias.data[0] -= 5  # so that no point is background
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": torch.optim.SGD(network.parameters(), 0.01).state_dict(),
        "grad_scaler_state": None,
        "logging": {"ema_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(-0.5)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"plans": plan, "configuration": name(dimensions), "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder, network.eval()
