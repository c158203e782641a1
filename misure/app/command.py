"""``misure app``: arguments, safe settings, and starting the server."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from misure.errors import MisureError
from misure.validation import path_of

if TYPE_CHECKING:
    import gradio as gr

LARGEST_UPLOAD = "50mb"

_LOCAL = ("127.0.0.1", "localhost", "::1")
_MOST_EXAMPLES = 16
_DESCRIBED = ("mean", "std", "class_names", "network_output", "multi_label")
"""Of files named with ``--model``."""


def build_app(
    models: Sequence[str] = (),
    *,
    data_root: Path | str = "data",
    outputs: Path | str = "outputs",
    described: Mapping[str, Any] | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        models: Networks to offer first: names of ``configs/model`` or files.
        data_root: Where example images and published weights lie.
        outputs: Where trained checkpoints and reliability models are.
        described: What is said of the files, by keys of ``configs/explain.yaml``: mean, std, class_names, multi_label,
            network_output.

    Raises:
        MisureError: If Gradio is not installed or no network is at hand.
    """
    if importlib.util.find_spec("gradio") is None:
        raise MisureError("misure app needs Gradio: pip install 'misure[app]'")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    from misure.app.layout import build_page
    from misure.app.networks import Shelf, offers_at_hand

    data_root, outputs = (
        path_of(name, place) for name, place in {"--data-root": data_root, "--outputs": outputs}.items()
    )
    shelf = Shelf(offers_at_hand(models, data_root, outputs, described), outputs)
    return build_page(shelf, example_images(data_root))


def example_images(data_root: Path) -> list[Path]:
    """List photographs to begin with, where there are any."""
    return sorted((data_root / "coco" / "val2017").glob("*.jpg"))[:_MOST_EXAMPLES]


def launch_settings() -> dict[str, Any]:
    """Return what the server is started with: local, silent and with nothing that is not needed."""
    from misure.app.layout import CSS, theme

    return {
        "max_file_size": LARGEST_UPLOAD,
        "share": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "run_history": False,
        "footer_links": [],
        "theme": theme(),
        "css_paths": [CSS],
        "quiet": True,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``misure app``.

    Args:
        argv: Its arguments; those of the process by default.

    Raises:
        SystemExit: After a user's error, with one line that says what to do.
    """
    arguments = _parser().parse_args(argv)
    described = {name: getattr(arguments, name) for name in _DESCRIBED}
    try:
        page = build_app(arguments.model, data_root=arguments.data_root, outputs=arguments.outputs, described=described)
    except MisureError as error:
        sys.exit(f"misure: {error}")
    if arguments.host not in _LOCAL:
        print(f"misure: everybody who reaches {arguments.host} can use this page", file=sys.stderr)
    _, url, _ = page.launch(
        server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **launch_settings()
    )
    print(f"misure app: {url} (Ctrl-C ends it)")
    page.block_thread()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="misure app", description="Explain a segmentation network in the browser.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; only this machine by default")
    parser.add_argument("--port", type=int, help="a free one from 7860 on by default")
    parser.add_argument("--model", nargs="+", default=[], help="networks to offer first: names or files")
    own = parser.add_argument_group("of files named with --model, as misure explain takes them")
    own.add_argument("--mean", type=_numbers, help="of images in [0, 1], by channel: 0.5,0.4,0.3")
    own.add_argument("--std", type=_numbers, help="divisor after that")
    own.add_argument("--class-names", help="a text file with one name a line, from class 0")
    own.add_argument("--network-output", default="auto", help="what it returns: logits, probabilities or class_numbers")
    own.add_argument("--multi-label", action="store_true", help="each channel of its output is a yes or no of its own")
    parser.add_argument(
        "--data-root", default=os.environ.get("MISURE_DATA", "data"), help="default: MISURE_DATA or data"
    )
    parser.add_argument("--outputs", default="outputs", help="where checkpoints/ and reliability/ are")
    return parser


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.strip("[]").split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no number, nor several with commas between") from error
