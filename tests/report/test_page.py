"""The report in a browser: a Chromium without a window opens the file and is clicked through."""

import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("jinja2", reason="the report's libraries are not installed (pip install 'misure[report]')")
pytest.importorskip("plotly", reason="the report's libraries are not installed (pip install 'misure[report]')")
pytest.importorskip("PIL", reason="pillow is not installed (pip install 'misure[report]')")

from browser import chromium
from report_files import HOSTILE, METHODS, claims, synthetic

from misure.paper.maps import load_maps
from misure.report import write_report
from misure.report.gallery import gallery, scaled_map

N_SAMPLES = 12
PER_PAGE = 24

PIXELS = "document.querySelector('.card canvas').toDataURL()"

CONTRAST = """() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => Number(part) / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = getComputedStyle(at).backgroundColor.match(/[\\d.]+/g).map(Number);
      layers.push([r, g, b, a]);
    }
    const over = (under, [r, g, b, a]) => under.map((part, i) => a * [r, g, b][i] + (1 - a) * part);
    return `rgb(${layers.reverse().reduce(over, [255, 255, 255]).join(', ')})`;
  };
  const ratio = (element) => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const elements = document.querySelectorAll('p, .dim, .chip, .mark, td, .diff, .live, .bar a, .tally .what, summary');
  return Math.min(...[...elements].filter((element) => element.offsetParent).map(ratio));
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def made(folder, material, **columns):
    rows = {"dataset": "Triangle", "model": "U-Net", "method": "MSR", "n_samples": 5, "source": "toy", "note": ""}
    rows |= {"stand_in": False, "substitution": "", "paper_dice_explained": 0.9, "dice_explained_mean": 0.5}
    frame = pd.DataFrame([rows | {f"more_{i}": i for i in range(30)}])
    wide = " | ".join(f"heading {i}" for i in range(30))
    document = f"# Wide\n\n| {wide} |\n|{' --- |' * 30}\n| {wide} |\n"
    picture = folder / "figure1.png"
    from PIL import Image

    Image.fromarray(np.arange(80 * 200, dtype=np.uint8).reshape(80, 200)).save(picture)
    tables = [("table1", frame, document), ("ambiguities", frame, document)]
    return write_report(folder, material, tables, [picture], claims(**columns), {"code": "1", "deep": {"a": {"b": 1}}})


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return synthetic(tmp_path_factory.mktemp("report"), N_SAMPLES)


@pytest.fixture(scope="module")
def report(material):
    return made(material.maps_folder.parents[1], material)


@pytest.fixture
def visit(browser):
    """Open a file; at the end nothing may have been said on the console or asked of a network."""
    problems, contexts = [], []

    def open_page(path, **options):
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append(r.url))
        page.goto(path.as_uri())
        page.locator("#gallery-count[data-count]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def first_card(page):
    """Wait until the first card is drawn."""
    page.locator("#gallery-count").scroll_into_view_if_needed()
    page.locator(".card .live[data-ratio]").first.wait_for()
    return page.locator(".card").first


def test_filters_show_exactly_what_fits(visit, report) -> None:
    page = visit(report)
    count = page.locator("#gallery-count")
    assert count.get_attribute("data-count") == str(N_SAMPLES * len(METHODS))
    assert page.locator(".card").count() == PER_PAGE
    page.select_option("[data-filter=method]", "RISE")
    assert count.get_attribute("data-count") == str(N_SAMPLES) == str(page.locator(".card").count())
    page.fill("#gallery-find", "sample 11")
    assert page.locator(".card").count() == 1
    page.fill("#gallery-find", "sample 1")
    assert page.locator(".card").count() == 1
    page.fill("#gallery-find", "no such thing")
    assert page.locator(".card").count() == 0
    assert page.locator("#gallery-none").is_visible()


def test_cards_are_sorted(visit, report, material) -> None:
    page = visit(report)
    page.click("#gallery-direction")
    cards = gallery(material)["cards"]
    for key in ("dice", "ratio", "dilations", "seconds"):
        page.select_option("#gallery-sort", key)
        values = {card["unit"]: card[key] for card in cards}
        shown = [values[unit] for unit in page.eval_on_selector_all(".card", "all => all.map((e) => e.dataset.unit)")]
        known = [value for value in shown if value is not None]
        assert known == sorted((value for value in values.values() if value is not None), reverse=True)[: len(known)]
        assert None not in shown[: len(known)]


def test_each_layer_changes_the_picture_and_back(visit, report) -> None:
    page = visit(report)
    page.select_option("[data-filter=method]", "MSR")
    first_card(page)
    before = page.evaluate(PIXELS)
    for layer in ("image", "heat", "sufficient", "prediction", "truth"):
        button = page.locator(f"[data-layer={layer}]")
        button.click()
        page.wait_for_function(f"before => {PIXELS} !== before", arg=before)
        button.click()
        page.wait_for_function(f"before => {PIXELS} === before", arg=before)


def test_the_threshold_gives_the_exact_ratio(visit, report, material) -> None:
    page = visit(report)
    for method in METHODS:
        check_thresholds(page, material, method)


def check_thresholds(page, material, method) -> None:
    unit = next(row["unit"] for _, row in material.run.iterrows() if row["explainer"] == method and row["sample"] == 2)
    page.fill("#gallery-find", unit)
    card = first_card(page)
    maps = load_maps(material.maps_folder, unit)
    scaled = scaled_map(maps["saliency"], itself=method == "msr")[2]
    slider, live = card.locator("input[type=range]"), card.locator(".live")
    for step in (0, 30, 81, 150):
        expected = float((scaled > step / 200).sum() / maps["region"].sum())
        slider.evaluate(f"e => {{ e.value = {step}; e.dispatchEvent(new Event('input')); }}")
        page.wait_for_function(f"Number(document.querySelector('.card .live').dataset.ratio) === {expected!r}")
        assert f"{expected:.3f}" in live.text_content()
    page.locator("#gallery-threshold").evaluate("e => { e.value = 60; e.dispatchEvent(new Event('input')); }")
    expected = float((scaled > 60 / 200).sum() / maps["region"].sum())
    page.wait_for_function(f"Number(document.querySelector('.card .live').dataset.ratio) === {expected!r}")
    assert slider.input_value() == "60"


def test_the_keyboard_reaches_everything(visit, report) -> None:
    page = visit(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "claims-find"
    page.evaluate("document.activeElement.blur()")
    first_card(page)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "gallery-find"
    page.locator(".card").first.focus()
    at = "[...document.querySelectorAll('.card')].indexOf(document.activeElement)"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(at) == 1
    page.keyboard.press("ArrowDown")
    assert page.evaluate(at) > 2
    page.locator(".card").nth(PER_PAGE - 1).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(at) == 0
    assert "Page 2" in page.locator("#gallery-page").text_content()
    page.locator(".card .live[data-ratio]").first.wait_for()
    page.keyboard.press("Enter")
    assert page.locator("#lightbox").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#lightbox").is_hidden()
    page.wait_for_function(f"{at} === 0")


def test_a_figure_is_enlarged_zoomed_and_closed(visit, report) -> None:
    page = visit(report)
    opener = page.locator("[data-lightbox]").first
    opener.click()
    scale = page.locator("#lightbox-scale")
    assert scale.text_content() == "100 %"
    page.keyboard.press("+")
    assert scale.text_content() == "150 %"
    page.keyboard.press("ArrowLeft")
    assert "scale(1.5)" in page.locator("#lightbox img").get_attribute("style")
    page.mouse.move(600, 500)
    page.mouse.wheel(0, -400)
    page.wait_for_function("parseInt(document.getElementById('lightbox-scale').value) > 300")
    page.keyboard.press("0")
    assert scale.text_content() == "100 %"
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("document.getElementById('lightbox').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert page.locator("#lightbox").is_hidden()
    page.wait_for_function("document.activeElement.hasAttribute('data-lightbox')")


def test_claims_are_filtered_and_sorted(visit, report) -> None:
    page = visit(report)
    rows = page.locator("#board tbody tr:visible")
    assert rows.count() == 4
    page.uncheck("input[name=verdict][value=holds]")
    assert rows.count() == 3
    page.fill("#claims-find", "claim-2 STATEMENT")
    assert rows.count() == 1
    page.fill("#claims-find", "")
    page.click("[data-sort=rank]")
    page.click("[data-sort=rank]")
    assert rows.first.get_attribute("data-verdict") == "standin"


def test_the_plot_shows_every_method(visit, report) -> None:
    page = visit(report)
    page.locator("#plot-area").scroll_into_view_if_needed()
    page.locator("#plot-area .legendtext").first.wait_for()
    assert set(page.locator("#plot-area .legendtext").all_text_contents()) == {"MSR", "RISE", "Seg-Grad-CAM"}
    # MSR once, RISE and Seg-Grad-CAM at two thresholds each
    assert page.locator("#plot-area .points path").count() == N_SAMPLES * 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_telephone_and_can_be_read(visit, report, scheme) -> None:
    page = visit(report, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    first_card(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRAST) >= 4.5
    assert re.sub(r"[^a-z]", "", page.evaluate("document.documentElement.dataset.theme")) == scheme


def test_dark_is_different_and_remembered(visit, report) -> None:
    page = visit(report)
    light = page.screenshot()
    page.click("#theme")
    assert page.screenshot() != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_hostile_names_do_not_run(visit, tmp_path) -> None:
    page = visit(made(tmp_path, synthetic(tmp_path, 1, class_name=HOSTILE), why=HOSTILE))
    first_card(page)
    page.locator("#plot-area .points path").first.hover(force=True)
    assert page.locator("img[src=x]").count() == 0
    assert HOSTILE in page.locator(".card h3").first.text_content()
    assert HOSTILE in page.locator("#board .why").first.text_content()
