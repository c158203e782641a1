"""A trained network from a file, a folder or the Hugging Face Hub, ready to be explained."""

from __future__ import annotations

import importlib
import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.io.reading import reading
from misure.models.exported import open_exported
from misure.models.hub import fetched, is_hub_id
from misure.models.huggingface import open_folder
from misure.models.logits import OutputKind
from misure.models.monai_bundle import is_bundle, open_bundle
from misure.models.nnunet import is_result, open_result
from misure.models.onnx import open_onnx
from misure.models.smp_folder import open_smp, smp_class
from misure.models.wrapper import SegmentationModel
from misure.validation import check_arguments, path_of


def load_model(
    source: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bottleneck: str | None = None,
    multi_label: bool = False,
    output: OutputKind = "auto",
    in_channels: int | None = None,
) -> SegmentationModel:
    """Load a network, on the CPU.

    ========================== ============================================================ =============
    source                     what it is                                                   gradients
    ========================== ============================================================ =============
    ``.safetensors``           a checkpoint of this package, with its ``.json`` beside it   yes, layers
    ``.pt``, ``.pth``, ``.ts`` a TorchScript file                                           yes, no layers
    ``.pt2``                   a program saved by ``torch.export.save``                     yes, layers
    ``.onnx``                  an ONNX file (needs onnxruntime)                             no
    a folder                   of transformers or segmentation_models_pytorch: config.json  yes, layers
                               and safetensors, as ``save_pretrained`` writes them
    ``owner/name``             such a folder on the Hugging Face Hub; ``@revision`` can     yes, layers
                               follow
    a folder                   a MONAI bundle: configs/, models/ (of model.ts alone no      yes, layers
                               layers)
    a folder                   a result of nnU-Net v2: plans.json, dataset.json, fold_0/    yes, layers
    ========================== ============================================================ =============

    A program or an ONNX file made for a fixed number of images gets them in such portions; layers can then be watched
    for one image at a time (``batch_size=1``) if the number is one, and not at all if it is more.

    A Hugging Face folder's image processor says how pixels are normalised and in which order channels come; a way that
    ``mean`` and ``std`` cannot reproduce is refused. Of an smp folder the transforms that albumentations saved beside
    it say so, of a bundle and of nnU-Net their own descriptions (:mod:`misure.models.monai_bundle`,
    :mod:`misure.models.nnunet`). Resizing and cropping are not done: the network runs at the size of the images it is
    given. Other files say nothing: give the training's ``mean`` and ``std``, such as those of ``weights.transforms()``
    (torchvision), ``pretrained_cfg`` (timm) or ``get_preprocessing_params`` (smp).

    Weights are read from safetensors, or by ``torch.load(weights_only=True)``, never as a pickle that could run code,
    and no Python code of a file is run: what an exported program would run besides PyTorch's operations is refused
    (:mod:`misure.models.exported`), of a bundle only a network of MONAI with plain values is built, and of nnU-Net's
    plans only its own and PyTorch's layers. TorchScript is a language of its own that can read and write files
    (``torch.save``, ``torch.from_file``): **load TorchScript only if you trust it**.

    Args:
        source: The file, folder or id.
        class_names: Names by class index; checkpoints and folders that know them bring their own.
        mean: Per-channel mean that is subtracted from images in [0, 1]; likewise.
        std: Per-channel divisor after that; likewise.
        bottleneck: Layer for CAM methods; see :meth:`misure.SegmentationModel.suggest_bottleneck`.
        multi_label: Whether each logit channel is a yes or no of its own; regions of nnU-Net and sigmoid outputs of a
            bundle are.
        output: What the network returns, see :class:`misure.SegmentationModel`.
        in_channels: Number of image channels, where the file does not say it.

    Raises:
        MisureError: If the source is missing, damaged or no network, or a package is missing.
    """
    path = path_of("the model", source)
    check_arguments(load_model, {"multi_label": multi_label, "output": output})
    if not path.exists():
        if not is_hub_id(source):
            raise MisureError(f"there is no {path}: give a network's file or folder, or an id of the Hugging Face Hub")
        path = fetched(source)
    told = mean is not None and std is not None
    reader = partial(_folder, told=told) if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None:
        raise MisureError(f"{path.name} is no network file: expected {', '.join(_READERS)} or a folder")
    network, description = reader(path)
    given: dict[str, Any] = {
        "class_names": class_names,
        "mean": mean,
        "std": std,
        "bottleneck": bottleneck,
        "in_channels": in_channels,
        "multi_label": multi_label or None,
        "output": None if output == "auto" else output,
    }
    title = path.resolve().name if Path(source).exists() else str(source)
    options = {"title": title} | description | {name: value for name, value in given.items() if value is not None}
    return SegmentationModel(network, **options)


Loaded = tuple[Callable[[Tensor], Any], dict[str, Any]]
"""A network, and the arguments of SegmentationModel that its file brings."""


def _checkpoint(path: Path) -> Loaded:
    from misure.models.checkpoint import load_checkpoint

    if not path.with_suffix(".json").is_file():
        raise MisureError(
            f"{path.name} has no {path.stem}.json beside it, so it holds weights only: build the network in Python and "
            "pass it to misure.explain, or give the whole Hugging Face folder"
        )
    model = load_checkpoint(path)
    names = ("class_names", "mean", "std", "bottleneck", "in_channels")
    return model.network, {name: getattr(model, name) for name in names}


def _torchscript(path: Path) -> Loaded:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).name for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            if file.read(1) == b"\x80":  # a pickle's first byte, in files of before PyTorch 1.6
                raise _weights_only(path) from error
        raise MisureError(f"{path.name} is damaged, or no TorchScript file") from error
    if "archive_format" in members and "constants.pkl" not in members:
        return _exported(path)
    if "constants.pkl" not in members:
        raise _weights_only(path)
    with _reading(path, "TorchScript file"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.load. is deprecated")
        program = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return program.eval(), {}


def _exported(path: Path) -> Loaded:
    network, channels = open_exported(path)
    return network, {"in_channels": channels}


def _onnx(path: Path) -> Loaded:
    onnxruntime = _package("onnxruntime", "onnx")
    network = open_onnx(path, onnxruntime)
    return network, {"in_channels": network.shape[1], "differentiable": False}


def _folder(folder: Path, *, told: bool) -> Loaded:
    """Open a folder of the kind that its files show."""
    if is_bundle(folder):
        return open_bundle(folder, _package("monai", "monai"), _torchscript, told=told)
    if is_result(folder):
        _package("nnunetv2", "nnunet")
        return open_result(folder)
    for needed in ("config.json", "*.safetensors"):
        if not any(folder.glob(needed)):
            name = needed.removeprefix("*")
            raise MisureError(
                f"{folder} has no {name} file: give a folder that save_pretrained wrote, a MONAI bundle or a result of "
                "nnU-Net, or a network's file"
            )
    with reading(folder / "config.json", "it may be damaged, or no Hugging Face model for semantic segmentation"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if isinstance(config, dict) and smp_class(config):
        return open_smp(folder, config, told=told)
    return open_folder(folder, _package("transformers", "huggingface"), told=told)


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MisureError(f"this file needs {name}: pip install 'misure[{extra}]'") from error


def _weights_only(path: Path) -> MisureError:
    return MisureError(
        f"{path.name} holds weights only, or a pickle, which is not opened: build the network in Python and pass it to "
        "misure.explain, or save it with torch.export.save"
    )


def _reading(path: Path, kind: str) -> AbstractContextManager[None]:
    return reading(path, f"it may be damaged, or no {kind}")


_READERS: dict[str, Callable[[Path], Loaded]] = {
    ".safetensors": _checkpoint,
    ".pt": _torchscript,
    ".pth": _torchscript,
    ".ts": _torchscript,
    ".pt2": _exported,
    ".onnx": _onnx,
}
