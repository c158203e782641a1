"""TransUNet (Chen et al., arXiv 2102.04306): R50 + ViT-B/16 hybrid encoder, cascaded upsampling decoder with skips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn.functional import interpolate

from misure.errors import MisureError, did_you_mean
from misure.models.checkpoint import RANDOM
from misure.models.pretrained import built_from_hub, is_cached
from misure.models.transunet_weights import load_google_weights
from misure.validation import Count, Share, Side, Whole

_ENCODER = "vit_base_r50_s16_224"

_WEIGHTS = {"imagenet21k": "orig_in21k"}
"""Names of weights and timm's tags for them."""

_HEAD_WIDTH = 64
"""Channels of one attention head of ViT-B."""

_DECODER_CHANNELS = (256, 128, 64, 16)

_SKIP_CHANNELS = (512, 256, 64)
"""Channels of the skips, deepest first: at 1/8, 1/4 and 1/2 of the image."""


def build_transunet(
    in_channels: Count,
    classes: Count,
    *,
    image_size: Side = 224,
    pretrained: str | None = "imagenet21k",
    skips: Annotated[int, Whole(0, 3)] = 3,
    depth: Annotated[int, Whole(1, 1000)] = 12,
    width: Annotated[int, Whole(1, 2**16)] = 768,
    dropout: Share = 0.1,
) -> nn.Module:
    """Build a TransUNet, with pre-trained encoder weights where they can be had.

    Args:
        in_channels: Image channels. One channel is repeated three times, as in the original; any other
            number but 3 gets a stem of its own, which starts from the pre-trained one repeated.
        classes: Number of logits per pixel.
        image_size: Side of the training images; the position embeddings are made or resized for it.
            Images of any other size and shape work too, with position embeddings interpolated.
        pretrained: ``"imagenet21k"`` for timm's copy of Google's weights, the path of Google's own
            ``R50+ViT-B_16.npz``, or None for random ones.
        skips: How many skips the decoder gets, deepest first, 0 to 3.
        depth: Transformer layers.
        width: Channels of a token, a multiple of 64 (one attention head each).
        dropout: After the position embeddings, attention and both layers of the perceptrons.

    Returns:
        The network; its ``initial_weights`` names what it starts from. Without weights the encoder starts randomly,
        and a single warning says so.

    Raises:
        MisureError: If an argument is out of range or a weights file is missing, damaged or does not fit.
    """
    _check(in_channels=in_channels, classes=classes, image_size=image_size, depth=depth, width=width // _HEAD_WIDTH)
    if width % _HEAD_WIDTH:
        raise MisureError(f"width={width} is not a multiple of {_HEAD_WIDTH}, the channels of one attention head")
    if not 0 <= skips <= len(_SKIP_CHANNELS):
        raise MisureError(f"skips={skips} is not a number from 0 to {len(_SKIP_CHANNELS)}")
    options = {
        "num_classes": 0,
        "in_chans": 3 if in_channels == 1 else in_channels,
        "img_size": image_size,
        "depth": depth,
        "embed_dim": width,
        "num_heads": width // _HEAD_WIDTH,
        "pos_drop_rate": dropout,
        "proj_drop_rate": dropout,
    }
    encoder, initial_weights = _build_encoder(pretrained, options)
    network = TransUNet(encoder, in_channels=in_channels, classes=classes, skips=skips)
    network.initial_weights = initial_weights
    return network


def _check(**arguments: int) -> None:
    for name, value in arguments.items():
        if value < 1:
            raise MisureError(f"{name}={value} is too small for a TransUNet: at least 1 is needed")


def _build_encoder(pretrained: str | None, options: dict[str, Any]) -> tuple[nn.Module, str]:
    """Build the encoder, and name the weights it starts from."""
    if pretrained is None:
        return timm.create_model(_ENCODER, **options), RANDOM
    if pretrained.endswith(".npz"):
        encoder = timm.create_model(_ENCODER, **options)
        load_google_weights(encoder, pretrained)
        return encoder, Path(pretrained).name
    if pretrained not in _WEIGHTS:
        names = (*_WEIGHTS, "a path that ends in .npz", "null")
        raise MisureError(f"TransUNet has no weights {pretrained!r}{did_you_mean(pretrained, names)}")
    if (options["depth"], options["embed_dim"]) != (12, 768):
        raise MisureError(f"{pretrained} weights fit depth=12 and width=768 only: keep these or use pretrained=null")
    repository = _repository(pretrained)
    built = built_from_hub(
        lambda: timm.create_model(repository.removeprefix("timm/"), pretrained=True, **options),
        repository,
        title="TransUNet",
        weights=pretrained,
        advice="; Google's R50+ViT-B_16.npz can be given as pretrained=<path>",
        stacklevel=3,
    )
    return (built, pretrained) if built is not None else (timm.create_model(_ENCODER, **options), RANDOM)


def missing_weights(*, pretrained: str | None = "imagenet21k", **_: object) -> str | None:
    """Name the weights that :func:`build_transunet` would download; None where there are none to download."""
    if pretrained not in _WEIGHTS or is_cached(_repository(pretrained)):
        return None
    return _repository(pretrained)


def _repository(pretrained: str) -> str:
    return f"timm/{_ENCODER}.{_WEIGHTS[pretrained]}"


class TransUNet(nn.Module):
    """Hybrid vision transformer with a cascaded upsampling decoder; N x C x H x W images to N x L x H x W logits.

    The encoder is timm's, which is closer than TransUNet's own code to the network Google's weights
    were trained with. It differs from TransUNet's code in

    * padding: TensorFlow's SAME, so that the first stage's map is 56 x 56 for 224 x 224 images and
      not 55 x 55 padded with zeros for the skip;
    * the class token, which Google's weights have: kept, attended to, and dropped before the decoder;
    * 32 groups in the normalisation of projected shortcuts, as Google has, not one per channel;
    * epsilons: 1e-5 in group normalisation (1e-6 there), 1e-8 under the root in weight standardisation
      (1e-5), both without visible effect;
    * dropout after the attention's projection too, as Google has.

    As in TransUNet's code images are taken as they come, in [0, 1], although Google's weights were
    trained on [-1, 1]; and one channel is repeated three times rather than summing the stem's kernels,
    which is not the same under weight standardisation.

    Attributes:
        encoder: timm's hybrid transformer; ``encoder.norm`` gives tokens.
        tokens: Gives the encoder's output as a map, N x width x h x w with h = H / 16 (rounded up).
        decoder: From that map and the skips to 16 channels at full size.
        head: 3 x 3 convolution to the logits.
        initial_weights: Name of the weights that the encoder started from.
    """

    initial_weights: str = RANDOM

    def __init__(self, encoder: Any, *, in_channels: int, classes: int, skips: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.encoder = encoder
        self.tokens = TokenMap(encoder.num_prefix_tokens)
        self.decoder = Decoder(encoder.embed_dim, _SKIP_CHANNELS[:skips])
        self.head = nn.Conv2d(_DECODER_CHANNELS[-1], classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of the images' size.

        Raises:
            MisureError: If the images have another number of channels than the network was built for.
        """
        if images.shape[1] != self.in_channels:
            raise MisureError(f"this TransUNet takes {self.in_channels}-channel images, not {tuple(images.shape)}")
        backbone = self.encoder.patch_embed.backbone
        if self.in_channels == 1:
            images = images.expand(-1, 3, -1, -1)
        half = backbone.stem.norm(backbone.stem.conv(images))
        quarter = backbone.stages[0](backbone.stem.pool(half))
        eighth = backbone.stages[1](quarter)
        grid = self.encoder.patch_embed.proj(backbone.stages[2](eighth))
        tokens = self.tokens(self._transform(grid), grid.shape[2:])
        logits: Tensor = self.head(self.decoder(tokens, (eighth, quarter, half), images.shape[2:]))
        return logits

    def _transform(self, grid: Tensor) -> Tensor:
        """Run the transformer over a map of patches, N x width x h x w; return N x (1 + h w) x width."""
        tokens = torch.cat([self.encoder.cls_token.expand(len(grid), -1, -1), grid.flatten(2).transpose(1, 2)], dim=1)
        positions = resample_abs_pos_embed(
            self.encoder.pos_embed,
            list(grid.shape[2:]),
            self.encoder.patch_embed.grid_size,
            num_prefix_tokens=self.encoder.num_prefix_tokens,
            interpolation="bilinear",
            antialias=False,
        )
        encoded: Tensor = self.encoder.norm(self.encoder.blocks(self.encoder.pos_drop(tokens + positions)))
        return encoded


class TokenMap(nn.Module):
    """Puts tokens back where their patches were; a module, so that explainers can hook it."""

    def __init__(self, prefix_tokens: int) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Turn N x (prefix + h w) x C into N x C x h x w."""
        return tokens[:, self.prefix_tokens :].transpose(1, 2).reshape(len(tokens), -1, *size)


class Decoder(nn.Module):
    """TransUNet's cascaded upsampler.

    Attributes:
        conv_more: 3 x 3 convolution of the token map to 512 channels.
        blocks: Four blocks, each of which doubles the map's sides.
    """

    def __init__(self, channels: int, skip_channels: Sequence[int]) -> None:
        super().__init__()
        self.conv_more = _convolution(channels, 512)
        inputs = (512, *_DECODER_CHANNELS[:-1])
        skips = (*skip_channels, *[0] * (len(_DECODER_CHANNELS) - len(skip_channels)))
        self.skips = len(skip_channels)
        self.blocks = nn.ModuleList(map(DecoderBlock, inputs, skips, _DECODER_CHANNELS))

    def forward(self, x: Tensor, skips: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Decode a map; ``skips`` are the encoder's maps, deepest first, ``size`` the images' size."""
        x = self.conv_more(x)
        sizes = [*(skip.shape[2:] for skip in skips), size]
        used = [*skips[: self.skips], *[None] * (len(sizes) - self.skips)]
        for block, skip, side in zip(self.blocks, used, sizes, strict=True):
            x = block(x, skip, side)
        return x


class DecoderBlock(nn.Module):
    """Bilinear upsampling, concatenation with a skip, and two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels + skip_channels, out_channels)
        self.conv2 = _convolution(out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None, size: Sequence[int]) -> Tensor:
        """Return a map of the given size, which is the skip's where there is one."""
        x = interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
        x = self.conv1(x if skip is None else torch.cat([x, skip], dim=1))
        result: Tensor = self.conv2(x)
        return result


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
