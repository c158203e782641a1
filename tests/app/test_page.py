"""The app in a headless Chromium: clicked through with a tiny network, and with a real one where there is data."""

import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed (pip install 'misure[app]')")
pytest.importorskip("PIL", reason="pillow is not installed (pip install 'misure[app]')")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from app_network import HOSTILE, bright_shelf, write_image
from browser import chromium

from misure.app.command import build_app, example_images, launch_settings, main
from misure.app.layout import build_page
from misure.app.networks import Shelf, offers_at_hand
from misure.errors import MisureError

pytestmark = pytest.mark.filterwarnings("default")  # Gradio's and its server's own deprecations

DATA = Path(os.environ.get("MISURE_DATA", "nowhere"))
WEIGHTS = DATA / "deeplabv3_mobilenetv2_voc"
PATIENCE = 40_000
"""Milliseconds until a wait in the browser counts as failed."""

MEASURED = ".card[data-method={}] [data-dice]:not(:text('…'))"


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return bright_shelf(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def address(browser, shelf, tmp_path_factory):
    example = write_image(tmp_path_factory.mktemp("images") / "blocks.png")
    page = build_page(shelf, [example])
    _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, **launch_settings())
    yield url
    page.close(verbose=False)


@pytest.fixture
def visit(browser):
    """Open the page; at the end nothing may have been complained about, and no other host asked for anything."""
    problems, contexts = [], []

    def open_page(url, **options):
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: problems.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else problems.append(r.url))
        page.goto(url)
        page.locator("#legend .legend").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def click_picture(page, x, y):
    """Click at a place of the picture, given as shares of its width and height, and wait for the choice."""
    before = page.locator("#chosen").inner_text()
    picture = page.locator("#picture img")
    page.wait_for_function("document.querySelector('#picture img').naturalWidth > 0")  # else it still has another size
    box = picture.bounding_box()
    picture.click(position={"x": x * box["width"], "y": y * box["height"]})
    page.wait_for_function("before => document.querySelector('#chosen').innerText !== before", arg=before)


def set_parameter(page, name, value):
    if not page.locator("#parameters [id^=msr-n_iterations]").is_visible():
        page.locator("#parameters button.label-wrap").click()
    page.locator(f"#{name} input").fill(str(value))
    page.locator(f"#{name} input").press("Tab")


def set_threshold(page, value):
    page.locator("#threshold input[type=number]").fill(str(value))
    page.locator("#threshold input[type=number]").press("Enter")
    page.locator(f".cards[data-threshold='{value:g}'] [data-dice]:not(:text('…'))").first.wait_for()


def test_an_object_is_clicked_explained_compared_and_downloaded(visit, address, tmp_path) -> None:
    page = visit(address)
    assert HOSTILE in page.locator("#legend").inner_text()
    click_picture(page, 0.45, 0.5)
    assert HOSTILE in page.locator("#chosen").inner_text()
    page.locator("#methods label", has_text="Seg-Grad-CAM").click()
    set_parameter(page, "msr-n_iterations", 5)
    page.click("#explain")
    for method in ("msr", "seg_grad_cam"):
        page.locator(MEASURED.format(method)).wait_for()
    ratio = page.locator(".card[data-method=seg_grad_cam] [data-ratio]")
    before = float(ratio.inner_text())
    set_threshold(page, 0.9)
    assert float(ratio.inner_text()) < before
    page.wait_for_selector("#download:not([disabled])")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "maps.zip")
    with zipfile.ZipFile(tmp_path / "maps.zip") as packed:
        assert {"msr/saliency.npy", "seg_grad_cam/manifest.json"} <= set(packed.namelist())


def test_a_slice_of_a_scan_is_typed(visit, address, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[app]')")
    voxels = np.full((64, 64, 5), -125, np.int16)
    voxels[10:40, 10:40, 3] = 275
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii.gz")
    page = visit(address)
    page.locator("input[type=file]").first.set_input_files(tmp_path / "scan.nii.gz")
    page.get_by_text("slice 2 of 5").wait_for()
    assert "finds nothing" in page.locator("#legend").inner_text()
    page.locator("#slice input[type=number]").fill("3")
    page.get_by_text("slice 3 of 5").wait_for()
    assert page.locator("#slice input[type=number]").input_value() == "3"
    click_picture(page, 1 - 25 / 64, 25 / 64)  # rows begin in front, columns at the patient's right
    assert HOSTILE in page.locator("#chosen").inner_text()


def test_a_long_run_is_watched_and_cancelled(visit, address, shelf) -> None:
    page = visit(address)
    click_picture(page, 0.45, 0.5)
    set_parameter(page, "msr-n_iterations", 1_000_000)
    page.click("#explain")
    page.locator(".live[data-stage=minimising] .curve").wait_for()
    assert "left" in page.locator(".live").inner_text()
    done = page.locator(".live").get_attribute("data-done")
    page.wait_for_function("done => Number(document.querySelector('.live').dataset.done) > Number(done)", arg=done)
    page.click("#cancel")
    page.get_by_text("Cancelled.").wait_for()
    network = shelf.take("bright").model.module
    passes = network.passes
    page.wait_for_selector("#explain:not([disabled])")
    assert network.passes == passes


def test_closing_the_page_stops_its_run(visit, address, shelf) -> None:
    page = visit(address)
    click_picture(page, 0.45, 0.5)
    set_parameter(page, "msr-n_iterations", 1_000_000)
    page.click("#explain")
    page.locator(".live[data-stage=minimising]").wait_for()
    page.close()
    deadline = time.monotonic() + PATIENCE / 1000

    def not_for_ever() -> None:
        assert time.monotonic() < deadline, "the network is still explaining for a page that is closed"

    with shelf.take("bright").lent(not_for_ever):
        pass


def test_two_visitors_see_their_own(visit, address, tmp_path) -> None:
    first, second = visit(address), visit(address, viewport={"width": 390, "height": 844})
    click_picture(first, 0.45, 0.5)
    second.locator("input[type=file]").first.set_input_files(write_image(tmp_path / "mine.png"))
    second.get_by_text("mine.png").wait_for()
    click_picture(second, 0.86, 0.83)
    assert first.locator("#legend").inner_text() != second.locator("#legend").inner_text()
    assert first.locator("#chosen").inner_text() != second.locator("#chosen").inner_text()
    assert second.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_no_image_is_refused_in_words(browser, address, tmp_path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.locator("#legend .legend").wait_for()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "broken.png")
    refusal = page.get_by_text("broken.png holds no PNG").first
    refusal.wait_for()
    assert refusal.inner_text().startswith("broken.png"), "the server's folders are nobody's business"
    assert page.locator("#picture img").is_visible()
    assert "blocks.png" in page.locator("#legend").inner_text()
    context.close()


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="MISURE_DATA has no deeplabv3_mobilenetv2_voc")
@pytest.mark.skipif(not (DATA / "coco" / "val2017").is_dir(), reason="MISURE_DATA has no coco/val2017")
@pytest.mark.parametrize("bfloat16", ["slow"], indirect=True)  # emulated, a photograph takes minutes
def test_a_real_photograph(bfloat16, visit, tmp_path) -> None:
    shelf = Shelf(offers_at_hand(["deeplabv3_mobilenetv2"], DATA, tmp_path), tmp_path)
    app = build_page(shelf, example_images(DATA)[:2])
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, **launch_settings())
    page = visit(url)
    page.locator("#examples button.thumbnail-item").nth(1).click()
    page.get_by_text(example_images(DATA)[1].name).wait_for()
    click_picture(page, 0.5, 0.5)
    assert "person" in page.locator("#chosen").inner_text()
    page.locator("#methods label", has_text="Seg-Grad-CAM").click()
    set_parameter(page, "msr-n_iterations", 3)
    page.click("#explain")
    page.locator(MEASURED.format("msr")).wait_for()
    assert float(page.locator(".card[data-method=msr] [data-dice]").inner_text()) > 0.9
    app.close(verbose=False)


def test_without_any_network_the_app_says_what_to_do(tmp_path, capsys) -> None:
    with pytest.raises(MisureError, match="no network is at hand"):
        build_app(data_root=tmp_path, outputs=tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["--data-root", str(tmp_path), "--outputs", str(tmp_path), "--model", "nowhere.pt"])
    assert str(stopped.value).startswith("misure: --model nowhere.pt is neither")
