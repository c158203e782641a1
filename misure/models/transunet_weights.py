"""Google's hybrid vision transformer weights (``R50+ViT-B_16.npz``) for timm's encoder, checked for completeness.

timm reads the file. Its reader ignores arrays that it does not know and spreads an array of one
number over a whole parameter, so names and sizes are compared before and parameters looked at after.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from misure.errors import MisureError
from misure.io.reading import check_size, reading

_POSITIONS = "Transformer/posembed_input/pos_embedding"

_CLASSIFIER = ("head/", "pre_logits/")
"""Arrays of the classifier, which no encoder needs."""

_MOST_BYTES = 4_000_000_000  # of arrays; Google's have 0.5 GB

_STEM = "patch_embed.backbone.stem.conv.weight"


def google_names(encoder: nn.Module) -> dict[str, tuple[str, ...]]:
    """Name the arrays of Google's file that fill each parameter of timm's hybrid encoder.

    Args:
        encoder: timm's ``vit_base_r50_s16_224``, of any depth and width.

    Returns:
        By parameter; the joint projection of queries, keys and values takes three arrays, the others one.

    Raises:
        MisureError: If the encoder has a parameter that Google's network lacks.
    """
    names: dict[str, tuple[str, ...]] = {"cls_token": ("cls",), "pos_embed": (_POSITIONS,)}
    for ours, theirs in _modules(encoder):
        module = encoder.get_submodule(ours)
        leaves = {"weight": "scale" if isinstance(module, nn.GroupNorm | nn.LayerNorm) else "kernel", "bias": "bias"}
        for leaf, _ in module.named_parameters():
            names[f"{ours}.{leaf}"] = tuple(f"{array}/{leaves[leaf]}" for array in theirs)
    unknown = [name for name, _ in encoder.named_parameters() if name not in names]
    if unknown:
        raise MisureError(f"Google's weights have nothing for {_some(unknown)} of this encoder: use pretrained=null")
    return names


def _modules(encoder: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Pair the encoder's modules with Google's names for them."""
    backbone = "patch_embed.backbone"
    yield f"{backbone}.stem.conv", ("conv_root",)
    yield f"{backbone}.stem.norm", ("gn_root",)
    for s, stage in enumerate(encoder.patch_embed.backbone.stages):
        for u, block in enumerate(stage.blocks):
            ours, theirs = f"{backbone}.stages.{s}.blocks.{u}", f"block{s + 1}/unit{u + 1}"
            for i in (1, 2, 3):
                yield f"{ours}.conv{i}", (f"{theirs}/conv{i}",)
                yield f"{ours}.norm{i}", (f"{theirs}/gn{i}",)
            if block.downsample is not None:
                yield f"{ours}.downsample.conv", (f"{theirs}/conv_proj",)
                yield f"{ours}.downsample.norm", (f"{theirs}/gn_proj",)
    yield "patch_embed.proj", ("embedding",)
    for b in range(len(encoder.blocks)):
        ours, theirs = f"blocks.{b}", f"Transformer/encoderblock_{b}"
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        yield f"{ours}.norm1", (f"{theirs}/LayerNorm_0",)
        yield f"{ours}.attn.qkv", tuple(f"{attention}/{part}" for part in ("query", "key", "value"))
        yield f"{ours}.attn.proj", (f"{attention}/out",)
        yield f"{ours}.norm2", (f"{theirs}/LayerNorm_2",)
        yield f"{ours}.mlp.fc1", (f"{theirs}/MlpBlock_3/Dense_0",)
        yield f"{ours}.mlp.fc2", (f"{theirs}/MlpBlock_3/Dense_1",)
    yield "norm", ("Transformer/encoder_norm",)


@torch.no_grad()
def load_google_weights(encoder: nn.Module, path: Path | str) -> None:
    """Fill timm's hybrid encoder from Google's file; position embeddings are resized bilinearly.

    Args:
        encoder: timm's ``vit_base_r50_s16_224``; its contents are undefined after an error.
        path: Google's ``.npz``.

    Raises:
        MisureError: If the file is missing or damaged, lacks an array, has one of another size or one
            that is neither used nor the classifier's, or leaves a parameter without numbers.
    """
    path = Path(path).expanduser()
    _compare(_sizes_in(path), _sizes_for(encoder), path)
    for parameter in encoder.parameters():
        parameter.fill_(torch.nan)
    with reading(path, "it does not fit the encoder"), path.open("rb") as stream:  # timm leaves its own files open
        encoder.load_pretrained(stream)  # type: ignore[operator]
    empty = [name for name, parameter in encoder.named_parameters() if not parameter.isfinite().all()]
    if empty:
        raise MisureError(f"{path} gives no finite numbers for {_some(empty)}: download it again")


def _sizes_in(path: Path) -> dict[str, int]:
    """Read every array, which checks the archive's sums, and return the sizes."""
    if not path.exists():
        raise MisureError(
            f"there is no weights file {path}: place Google's R50+ViT-B_16.npz (imagenet21k) there or use another "
            "value of pretrained"
        )
    with (
        reading(path, "it is no whole .npz archive, download it again"),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        check_size(path, sum(member.file_size for member in archive.zip.infolist()), _MOST_BYTES)
        return {name: archive[name].size for name in archive.files}


def _sizes_for(encoder: Any) -> dict[str, int]:
    """Return the size of every array the encoder needs; Google's stem has three channels."""
    parameters = dict(encoder.named_parameters())
    sizes = {
        array: parameters[p].numel() // len(arrays) for p, arrays in google_names(encoder).items() for array in arrays
    }
    stem = parameters[_STEM]
    return sizes | {"conv_root/kernel": stem[:, :1].numel() * 3}


def _compare(sizes: Mapping[str, int], needed: Mapping[str, int], path: Path) -> None:
    missing = [name for name in needed if name not in sizes]
    if missing:
        raise MisureError(f"{path} lacks {_some(missing)}: it is not the R50+ViT-B/16 that this encoder needs")
    unused = [name for name in sizes if name not in needed and not name.startswith(_CLASSIFIER)]
    if unused:
        raise MisureError(f"{path} has {_some(unused)}, which this encoder has no place for: is it another network's?")
    for name, size in needed.items():
        if sizes[name] != size and not (name == _POSITIONS and _is_square_grid(sizes[name], needed["cls"])):
            raise MisureError(f"{path}: {name} has {sizes[name]} numbers where the encoder needs {size}")


def _is_square_grid(size: int, width: int) -> bool:
    """Say whether position embeddings are those of a class token and a square of patches."""
    tokens, rest = divmod(size, width)
    return rest == 0 and tokens > 1 and math.isqrt(tokens - 1) ** 2 == tokens - 1


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
