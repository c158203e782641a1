"""Pre-trained weights on the Hugging Face hub: whether they are here already, or can be had."""

from __future__ import annotations

from misure.io.download import is_reachable

HUB = "https://huggingface.co"


def is_cached(repository: str, revision: str | None = None) -> bool:
    """Say whether the hub's cache on this machine holds the weights of a repository."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "model.safetensors", revision=revision), str)


def is_useful(repository: str, revision: str | None = None) -> bool:
    """Say whether the weights are cached, or the hub answers within seconds."""
    return is_cached(repository, revision) or is_reachable(HUB)
