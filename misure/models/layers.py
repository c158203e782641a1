"""The layers of a network: listed with their outputs, found by name, and one suggested for CAM methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from misure.errors import MisureError, did_you_mean

_PASS_ON = ("Identity", "Drop")
"""In the names of kinds that return their input: the layer before them is meant."""


@dataclass(frozen=True)
class Layer:
    """A layer as one image's forward pass saw it.

    Attributes:
        name: Dotted, as :meth:`misure.SegmentationModel.layer` takes it.
        kind: Its class.
        shape: Of its output, with the batch of one in front: 1 x C x spatial for feature maps, 1 x T x C for tokens.
        runs: How often it ran; CAM methods need layers that run once.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    runs: int = 1

    def __str__(self) -> str:
        times = f"  ({self.runs} times)" if self.runs > 1 else ""
        return f"{self.name}  {self.kind}  {' x '.join(map(str, self.shape))}{times}"


def image_axes(modules: Iterable[nn.Module]) -> int | None:
    """Return how many axes the images of some modules have, 2 or 3 (volumes), by their first convolution.

    Where none is known by its kind, as in exported programs, it is the first weight with two axes more, also among the
    constants of frozen TorchScript; None without any.
    """
    modules = list(modules)
    for part in chain.from_iterable(module.modules() for module in modules):
        kind = str(getattr(part, "original_name", type(part).__name__))
        for n_axes, convolution in {2: nn.Conv2d, 3: nn.Conv3d}.items():
            if isinstance(part, convolution) or kind == convolution.__name__:
                return n_axes
    weights = (parameter.ndim for module in modules for parameter in module.parameters())
    constants = (value.ndim for module in modules for value in _constants(module))
    return next((ndim - 2 for ndim in chain(weights, constants) if ndim in {4, 5}), None)


def _constants(module: nn.Module) -> Iterator[Tensor]:
    if isinstance(module, torch.jit.ScriptModule):
        graph = module.inlined_graph  # its nodes are gone with it
        for node in graph.findAllNodes("prim::Constant"):  # type: ignore[attr-defined]
            if isinstance(value := node.output().toIValue(), Tensor):
                yield value


def watchable(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that hooks can watch, by name.

    TorchScript runs as one piece and has none, and so does a module with a true ``one_piece``: its layers see other
    images than it is given.
    """
    if getattr(module, "one_piece", False):
        return {}
    named = [(_uncompiled(name), layer) for name, layer in module.named_modules(remove_duplicate=False)]
    return {name: layer for name, layer in named if name and not isinstance(layer, torch.jit.ScriptModule)}


def _uncompiled(name: str) -> str:
    """Return a layer's name without the parts that ``torch.compile`` adds to it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Find a layer by its name or by a pattern such as ``*.layer4``.

    In a pattern ``*`` stands for anything, dots included. Of matching layers inside one another the outermost is
    meant; it has to be the only one.

    Raises:
        MisureError: If no layer, or more than one, is meant.
    """
    layers = watchable(module)
    if not layers:
        raise MisureError(
            f"{type(module).__name__} runs as one piece, so it has no layers to explain at: "
            "use the network's Python code, or export it with torch.export"
        )
    name = _uncompiled(name)
    if name in layers:
        return layers[name]
    matches = [other for other in layers if fnmatchcase(other, name)]
    outermost = [other for other in matches if not any(other.startswith(f"{outer}.") for outer in matches)]
    if len(outermost) > 1:
        shown = ", ".join(outermost[:6]) + (", ..." if len(outermost) > 6 else "")
        raise MisureError(f"layer {name!r} could be any of {len(outermost)}: {shown}; name one")
    if not outermost:
        raise MisureError(f"the network has no layer {name!r}{did_you_mean(name, layers)}")
    return layers[outermost[0]]


def list_layers(module: nn.Module, run: Callable[[], Any]) -> list[Layer]:
    """Watch one forward pass.

    Args:
        module: The network.
        run: Does the pass, for one image.

    Returns:
        The layers that gave a tensor, or a tuple that begins with one, in the order in which they were done;
        one that ran several times stands where it ran last.
    """
    seen: dict[str, Layer] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(layer: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor):
                before = seen.pop(name, None)
                seen[name] = Layer(name, type(layer).__name__, tuple(first.shape), 1 + (before.runs if before else 0))

        return note

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in watchable(module).items():
            hooks.callback(layer.register_forward_hook(watch(name)).remove)
        run()
    return list(seen.values())


def suggest(layers: Sequence[Layer], image_size: Sequence[int]) -> str | None:
    """Suggest where to ask a CAM method: the end of the encoder.

    The coarsest feature map has the widest view and the most meaning, so the smallest size decides: maps of a single
    pixel and of the sizes that adaptive pooling makes are context, not places, and do not count. Of the network's
    parts (its outermost modules) the first that reaches this size is the encoder, and its last layer of that size,
    which is followed by upsampling or by the head, is suggested. Parts that come right after it and go on at this
    size with as many channels or more belong to the encoder (the lowest block of a U-Net); a head has fewer.

    Args:
        layers: From :func:`list_layers`.
        image_size: H, W or D, H, W.

    Returns:
        The layer's name, or None if no layer gives feature maps.
    """
    maps = _feature_maps(layers, image_size)
    if not maps:
        return None
    smallest = min(prod(layer.shape[2:]) for layer in maps)
    best: Layer | None = None
    for part in _parts(maps):
        coarsest = [layer for layer in part if prod(layer.shape[2:]) == smallest]
        if best is None:
            best = coarsest[-1] if coarsest else None
        elif coarsest and coarsest[0] is part[0] and coarsest[-1].shape[1] >= best.shape[1]:
            best = coarsest[-1]
        else:
            break
    return best.name if best else None


def _feature_maps(layers: Iterable[Layer], image_size: Sequence[int]) -> list[Layer]:
    maps: list[Layer] = []
    pooled: set[tuple[int, ...]] = set()
    for layer in layers:
        spatial = layer.shape[2:]
        if len(spatial) != len(image_size) or prod(spatial) == 1:
            continue
        if any(side > whole for side, whole in zip(spatial, image_size, strict=True)):
            continue  # such as N x H x W x C, channels last
        if layer.kind.startswith("Adaptive"):
            pooled.add(spatial)
        elif spatial not in pooled and layer.runs == 1 and not any(word in layer.kind for word in _PASS_ON):
            maps.append(layer)
    return maps


def _parts(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Group consecutive layers by the outermost modules in which the network's names begin to differ."""
    names = [layer.name.split(".") for layer in layers]
    depth = 0
    while len({tuple(name[: depth + 1]) for name in names}) == 1:
        if len(names) == 1:
            break
        depth += 1
    return [list(part) for _, part in groupby(layers, key=lambda layer: layer.name.split(".")[depth : depth + 1])]


def activation_bytes(modules: Sequence[nn.Module], run: Callable[[], Any]) -> int:
    """Measure what one image's activations take, in bytes; 0, without a pass, where no layer can be watched.

    Args:
        modules: Those of the network.
        run: Does a forward pass, for one image.
    """
    if not modules:
        return 0
    total = 0

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * output.element_size() if isinstance(output, Tensor) else 0

    layers = chain.from_iterable((*watchable(module).values(), module) for module in modules)
    leaves = {layer for layer in layers if next(layer.children(), None) is None}
    with ExitStack() as hooks, torch.no_grad():
        for leaf in leaves:
            if not isinstance(leaf, torch.jit.ScriptModule):
                hooks.callback(leaf.register_forward_hook(add).remove)
        run()
    return total
