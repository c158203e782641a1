"""The report in a browser: a Chromium without a window opens the file and is clicked through."""

import re

import numpy as np
import pandas as pd
import pytest
from browser import chromium
from PIL import Image
from report_files import HOSTILE, METHODS, claims, synthetic

from misure.paper.table import Column, Table
from misure.report import write_report

N_SAMPLES = 12

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=30_000)  # ms; waits are polled by selectors, since the page allows no evaluation of strings

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
  const elements = document.querySelectorAll('p, .dim, .chip, .mark, td, .diff, .bar a, .tally .what, summary');
  return Math.min(...[...elements].filter((element) => element.offsetParent).map(ratio));
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def made(folder, material, words="Wide", **columns):
    rows = {"dataset": "Triangle", "model": "U-Net", "method": "MSR", "n_samples": 5, "source": "toy", "note": ""}
    rows |= {
        "stand_in": False,
        "substitution": "",
        "scale": 1.0,
        "paper_dice_explained": 0.9,
        "dice_explained_mean": 0.5,
    }
    frame = pd.DataFrame([rows | {f"more_{i}": i for i in range(30)}])
    shown = [Column(name, name.replace("_", " ")) for name in frame.columns]
    picture = folder / "figure1.png"
    Image.fromarray(np.arange(80 * 200, dtype=np.uint8).reshape(80, 200)).save(picture)
    tables = [Table(name, words, shown, frame, head=words, notes=words) for name in ("table1", "ambiguities")]
    return write_report(folder, material, tables, [picture], claims(**columns), {"code": words, words: {"a": {"b": 1}}})


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
        expect(page.locator("#gallery-count")).not_to_be_empty()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def shown_cards(page):
    return page.locator(".card:visible").count()


def test_filters_show_exactly_what_fits(visit, report) -> None:
    page = visit(report)
    assert shown_cards(page) == N_SAMPLES * len(METHODS)
    page.select_option("[data-filter=method]", "RISE")
    assert shown_cards(page) == N_SAMPLES
    assert set(page.eval_on_selector_all(".card:not([hidden])", "all => all.map((e) => e.dataset.method)")) == {"RISE"}
    assert str(N_SAMPLES) in page.locator("#gallery-count").text_content()
    page.select_option("[data-filter=method]", "")
    page.select_option("[data-filter=dataset]", "Triangle")
    assert shown_cards(page) == N_SAMPLES * len(METHODS)


def test_a_card_is_enlarged_by_keyboard_and_gives_the_focus_back(visit, report) -> None:
    page = visit(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator(".card button").nth(4).focus()
    page.keyboard.press("Enter")
    assert page.locator("#lightbox").is_visible()
    assert page.evaluate("document.querySelector('#lightbox img').naturalWidth") == 2 * 48 + 4
    page.keyboard.press("Escape")
    assert page.locator("#lightbox").is_hidden()
    expect(page.locator(".card button").nth(4)).to_be_focused()


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
    expect(scale).to_have_text(re.compile(r"([3-9]|\d\d)\d\d %"))
    page.keyboard.press("0")
    assert scale.text_content() == "100 %"
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("document.getElementById('lightbox').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert page.locator("#lightbox").is_hidden()
    expect(opener).to_be_focused()


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
    unit = page.evaluate("JSON.parse(document.getElementById('plots').textContent)[0].figure.data[0].customdata[3]")
    assert page.evaluate("unit => showUnit(unit)", unit)
    assert page.evaluate("document.activeElement.dataset.unit") == unit
    assert not page.evaluate("showUnit('none')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_telephone_and_can_be_read(visit, report, scheme) -> None:
    page = visit(report, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRAST) >= 4.5
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(brightness) > 3 * 128) == (scheme == "light")


def test_hostile_names_do_not_run(visit, tmp_path) -> None:
    path = made(tmp_path, synthetic(tmp_path, 1, class_name=HOSTILE), HOSTILE, why=HOSTILE)
    assert HOSTILE not in path.read_text(encoding="utf-8")
    page = visit(path)
    page.locator("#plot-area").scroll_into_view_if_needed()
    page.locator("#plot-area .points path").first.hover(force=True)
    assert page.locator("img[src=x]").count() == 0
    assert HOSTILE in page.locator(".card h3").first.text_content()
    assert HOSTILE in page.locator("#board .why").first.text_content()
    assert HOSTILE in page.locator("#table-table1").text_content()
