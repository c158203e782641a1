"""The page: its controls, their order, and which handler each calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from misure.app.handlers import FIRST_WINDOW, WINDOWS, Handlers
from misure.app.networks import Shelf
from misure.app.parameters import FIRST, Setting, method_names, settings_of
from misure.app.session import BORDER_WIDTH, Session
from misure.explainers import EXPLAINERS

CSS = Path(__file__).with_name("page.css")

SUFFIXES = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz"]

_EXTENTS = [("this object", "object"), (f"its border ({BORDER_WIDTH} px)", "border"), ("all of its class", "class")]
_AT_ONCE = 8
"""Explanations of different sessions that run or wait for a network at the same time; more wait in Gradio's queue."""

_CACHE_SECONDS = (3600, 6 * 3600)
"""How often pictures sent to browsers are looked through, and how old they get."""


def theme() -> Any:
    """Return the page's look; all fonts are the system's own."""
    sans, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=sans, font_mono=mono)


def build_page(shelf: Shelf, examples: Sequence[Path]) -> gr.Blocks:
    """Lay out the page.

    Args:
        shelf: The networks, at least one.
        examples: Image files to choose from.
    """
    page: gr.Blocks = gr.Blocks(title="misure", analytics_enabled=False, delete_cache=_CACHE_SECONDS)
    with page:
        gr.HTML("<h1>misure</h1><p>Which pixels does a segmentation need?</p>", elem_id="title")
        with gr.Row(elem_classes="halves"):
            with gr.Column(scale=6, min_width=320):
                network, gallery, upload, scan, window, slices, picture, legend = _image_column(shelf, examples)
            with gr.Column(scale=5, min_width=320):
                chosen, extent, methods, more, inputs, start, stop, live = _method_column()
        with gr.Row(elem_id="compare"):
            _heading("3 · Compare")
            download = gr.DownloadButton(
                "Download the folder (zip)", interactive=False, size="sm", scale=0, min_width=220, elem_id="download"
            )
        threshold = gr.Slider(
            0, 0.99, 0.2, step=0.01, elem_id="threshold",
            label="Threshold on every map, scaled from its lowest to its highest value",
        )  # fmt: skip
        comparison = gr.HTML(elem_id="comparison")
        session = gr.State(None, delete_callback=_close)
        handlers = Handlers(shelf, examples, list(inputs))
        chosen_outputs = [chosen, live, comparison, download]
        looked = [picture, legend, scan, window, slices, *chosen_outputs]
        private: dict[str, Any] = {"api_visibility": "private"}
        seen: dict[str, Any] = {**private, "show_progress_on": picture}
        page.load(Session, None, session, show_progress="hidden", **private).then(  # one for each page
            handlers.open_first, [session, network], looked, **seen
        )
        gallery.select(handlers.open_example, [session, network, window], looked, **seen)
        upload.upload(handlers.open_upload, [session, network, window, upload], looked, **seen)
        for changed in (network.change, window.input):  # a window that a scan chose itself is on show already
            changed(handlers.look_again, [session, network, window, slices], looked, **seen)
        slices.input(
            handlers.look_at_slice, [session, network, window, slices], [picture, legend, *chosen_outputs],
            trigger_mode="always_last", **seen,
        )  # fmt: skip
        picture.select(handlers.click, [session, extent], [picture, *chosen_outputs], **seen)
        extent.change(handlers.change_extent, [session, extent], [picture, *chosen_outputs], **seen)
        start.click(
            handlers.explain, [session, methods, more, threshold, *inputs.values()],
            [live, comparison, download, start, stop],
            concurrency_limit=_AT_ONCE, show_progress="hidden", **private,
        ).then(  # where the slider is by now
            handlers.compare, [session, threshold], comparison,
            concurrency_limit=_AT_ONCE, show_progress="hidden", **private,
        )  # fmt: skip
        stop.click(handlers.cancel, session, None, concurrency_limit=None, show_progress="hidden", **private)
        threshold.change(
            handlers.compare, [session, threshold], comparison,
            trigger_mode="always_last", concurrency_limit=_AT_ONCE, show_progress="hidden", **private,
        )  # fmt: skip
    return page


def _heading(text: str) -> None:
    gr.HTML(f"<h2>{text}</h2>", elem_classes="step")


def _image_column(shelf: Shelf, examples: Sequence[Path]) -> tuple[Any, ...]:
    _heading("1 · Image and network")
    network = gr.Dropdown(shelf.names, value=shelf.names[0], label="Network", elem_id="network")
    gallery = gr.Gallery(
        [_thumbnail(path) for path in examples], label="Examples", columns=8, height=110, elem_id="examples",
        visible=bool(examples), allow_preview=False, show_label=False, buttons=[], object_fit="cover",
    )  # fmt: skip
    upload = gr.UploadButton("Upload an image: PNG, JPEG, TIFF or NIfTI", file_types=SUFFIXES, size="sm")
    with gr.Row(visible=False, elem_id="scan") as scan:
        window = gr.Dropdown(list(WINDOWS), value=FIRST_WINDOW, label="Window of the scan", elem_id="window")
        slices = gr.Slider(0, 1, 0, step=1, label="Axial slice, from the feet", elem_id="slice")
    picture = gr.Image(
        show_label=False, interactive=False, buttons=[], elem_id="picture", format="png",
        alt_text="The image with what the network predicts in colour",
    )  # fmt: skip
    return network, gallery, upload, scan, window, slices, picture, gr.HTML(elem_id="legend")


def _method_column() -> tuple[Any, ...]:
    _heading("2 · Explain")
    chosen = gr.HTML(elem_id="chosen")
    extent = gr.Radio(_EXTENTS, value="object", show_label=False, container=False, elem_id="extent")
    names = method_names()
    titled = [(EXPLAINERS[name].title, name) for name in names]
    methods = gr.CheckboxGroup(titled[: len(FIRST)], value=["msr"], label="Methods of the paper", elem_id="methods")
    with gr.Accordion("More methods", open=False, elem_id="others"):
        more = gr.CheckboxGroup(titled[len(FIRST) :], show_label=False, container=False, elem_id="more")
    inputs: dict[tuple[str, str], Any] = {}
    with gr.Accordion("Parameters", open=False, elem_id="parameters"):
        for name in names:
            _parameter_row(name, methods if name in FIRST else more, inputs)
    with gr.Row():
        start = gr.Button("Explain", variant="primary", elem_id="explain")
        stop = gr.Button("Cancel", interactive=False, elem_id="cancel")
    return chosen, extent, methods, more, inputs, start, stop, gr.HTML(elem_id="live")


def _parameter_row(method: str, methods: Any, inputs: dict[tuple[str, str], Any]) -> None:
    """Add a method's inputs, seen while the method is ticked."""
    settings = settings_of(method)
    if not settings:
        return
    with gr.Group(visible=method == "msr") as group:
        gr.HTML(f"<b>{EXPLAINERS[method].title}</b>", padding=True, elem_classes="of-method")
        with gr.Row():
            for setting in settings:
                inputs[method, setting.name] = _parameter(setting)
    methods.change(
        lambda ticked: gr.update(visible=method in ticked), methods, group,
        show_progress="hidden", queue=False, api_visibility="private",
    )  # fmt: skip


def _parameter(setting: Setting) -> Any:
    shared: dict[str, Any] = {
        "label": setting.label, "min_width": 90, "elem_id": f"{setting.method}-{setting.name}",
    }  # fmt: skip
    if setting.default is None:
        return gr.Textbox(placeholder="the network's own", **shared)
    return gr.Number(setting.default, **shared)


def _thumbnail(path: Path) -> Image.Image:
    """Return a small picture of an example, which is a file of this machine's owner."""
    with Image.open(path) as image:
        image.thumbnail((160, 160))
        return image.convert("RGB")


def _close(session: Session | None) -> None:
    if session is not None:
        session.close()
