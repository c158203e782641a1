"""The parts of the report that need no browser."""

import base64
import io
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_records import frame, photo, save_map, unit
from PIL import Image
from report_files import HOSTILE, claims, material_of, synthetic

from misure.errors import MisureError
from misure.explainers import EXPLAINERS
from misure.paper.findings import Cell, KeyFinding
from misure.paper.table import Column, Table
from misure.plotting import style_of
from misure.report import write_report
from misure.report.claims import interval_bar
from misure.report.gallery import gallery, saved_explanations, scaled_map
from misure.report.markdown import as_html
from misure.report.pictures import Picture, displayable, drawn
from misure.report.provenance import provenance_tables
from misure.report.scatter import SYMBOLS, scatter


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_picture_shows_image_and_map(height: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed)
    image, scaled = values.random((height, width, 3)), values.random((height, width)) * (values.random() > 0.2)
    nothing = np.zeros((height, width), bool)
    pixels = drawn(image, scaled, nothing)
    picture = Picture.of(pixels, photograph=False)
    assert (picture.width, picture.height) == (pixels.shape[1], height) == (2 * width + 4, height)
    assert np.array_equal(decoded(picture.uri), pixels)
    assert np.array_equal(pixels[:, :width], np.round(image * 255))
    unmarked = np.round(scaled * 255) == 0
    assert np.array_equal(pixels[:, width + 4 :][unmarked], pixels[:, :width][unmarked])


def test_outlines_are_drawn_where_masks_end() -> None:
    region = np.zeros((9, 9), bool)
    region[2:7, 3:8] = True
    pixels = drawn(np.zeros((9, 9)), np.zeros((9, 9)), region, sufficient_region=region)
    left, right = pixels[:, :9].any(2), pixels[:, 13:].any(2)
    ring = region.copy()
    ring[3:6, 4:7] = False
    assert np.array_equal(left, ring)
    assert np.array_equal(right, ring)


def test_large_images_are_reduced_to_a_bounded_picture() -> None:
    pixels = drawn(np.random.default_rng(0).random((520, 693, 3)), np.zeros((520, 693)), np.ones((520, 693), bool))
    assert pixels.shape == (288, 2 * 384 + 4, 3)


def test_images_of_the_network_get_their_colours_back() -> None:
    colours = np.random.default_rng(0).random((3, 4, 5))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = (colours - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(displayable(normalised, mean, std), colours.transpose(1, 2, 0), atol=1e-12)
    assert displayable(np.array([[[-3.0, 1.0]]]), (), ()).tolist() == [[0.0, 1.0]]
    assert displayable(np.full((1, 2, 2), 7.0), (), ()).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_map_is_scaled_as_its_evaluation_does() -> None:
    assert scaled_map(np.array([[2.0, 4.0, 3.0]]), itself=False).tolist() == [[0.0, 1.0, 0.5]]
    assert scaled_map(np.array([[0.0, 0.25]]), itself=True).tolist() == [[0.0, 0.25]]
    assert scaled_map(np.zeros((1, 2)), itself=False).tolist() == [[0.0, 0.0]]
    assert scaled_map(np.full((1, 2), 0.3), itself=False).tolist() == [[1.0, 1.0]]  # a constant, as in min_max


def test_noisy_and_changed_runs_stay_out_of_the_gallery(tmp_path) -> None:
    rows = [unit("msr", 0), unit("msr", 1, input_noise=1e-6), unit("msr", 2, intervention="randomised")]
    rows.append(unit("msr", 3, status="skipped"))
    for each in rows:
        save_map(tmp_path, each[0]["unit"], np.eye(4))
    assert [card["sample"] for card in gallery(material_of(frame(*rows), tmp_path))["cards"]] == [0]


@pytest.mark.parametrize(("licence", "shown"), [(4, True), (5, True), (1, False), (6, False), (None, False)])
def test_photographs_are_embedded_only_if_their_licence_allows_it(tmp_path, monkeypatch, licence, shown) -> None:
    images: list[object] = []
    monkeypatch.setattr(
        "misure.report.gallery.drawn", lambda image, *a, **k: images.append(image) or drawn(image, *a, **k)
    )
    rows = photo("msr", 7, "cat", credit_licence=licence)
    save_map(tmp_path, rows[0]["unit"], np.eye(8), channels=3)
    [card] = gallery(material_of(frame(rows), tmp_path))["cards"]
    assert card["shown"] == shown
    assert [image is not None for image in images] == [shown]
    assert re.findall(r'href="([^"]+)"', card["credit"]) == ["http://photos.example/7", "http://licences.example/by"]
    assert card["marks"] == ["MobileNetV2 substitution"]


def test_only_the_papers_settings_are_shown_with_the_counts_of_most_samples(tmp_path) -> None:
    rows = [unit("msr", sample, {"n_iterations": 5}) for sample in (0, 2)]
    rows += [unit("msr", 1, {"lr": 0.01, "n_iterations": 5}), unit("msr", 3)]
    for each in rows:
        save_map(tmp_path, each[0]["unit"], np.eye(4))
    material = material_of(frame(*rows), tmp_path)
    assert saved_explanations(material).set_index("sample")["usual"].to_dict() == {0: True, 1: False, 2: True, 3: False}
    assert [card["sample"] for card in gallery(material)["cards"]] == [0, 2]


def test_of_two_precisions_the_one_with_more_samples_is_shown_also_without_images(tmp_path) -> None:
    """What ships of a second precision has no images; with explanations of one's own it may become the usual one."""
    fewer = [unit("msr", n, precision="bf16") for n in (0, 1)]
    more = [unit("msr", n, precision="32", created="2026-11-19T10:00:00+00:00") for n in (0, 1, 2)]
    for each in (*fewer, *more):
        save_map(tmp_path, each[0]["unit"], np.eye(4), image=each in fewer)
    shown = gallery(material_of(frame(*fewer, *more), tmp_path))
    assert {card["unit"] for card in shown["cards"]} == {each[0]["unit"] for each in more}
    assert shown["n_saved"] == 5
    for each in more:
        (tmp_path / f"{each[0]['unit']}.npz").unlink()
    saved = gallery(material_of(frame(*fewer, *more), tmp_path))["cards"]
    assert {card["unit"] for card in saved} == {each[0]["unit"] for each in fewer}


def test_documents_become_html_that_cannot_run() -> None:
    text = as_html(f"# Title\n\n## A `b`\n\n- one\n- **two**\n\n| x |\n| --- |\n| 1 \\| 2 {HOSTILE} |\n")
    assert "Title" not in text
    assert "<h4>A <code>b</code></h4>" in text
    assert text.count("<li>") == 2
    assert "<td>1 | 2 &lt;/script&gt;" in text
    assert "<img" not in text
    assert 'href="https://b.example"' in as_html("<https://b.example>")
    assert "href" not in as_html("[a](javascript:alert%281%29) [b](page.html)")


def test_the_bar_of_a_claim_keeps_the_order_of_its_numbers() -> None:
    drawn = interval_bar(-0.1, -0.2, 0.3)
    assert 0 < drawn.low < drawn.value < drawn.zero < drawn.high < 100
    assert interval_bar(math.nan, 0.0, 1.0) is None
    alone = interval_bar(2.0, math.nan, math.nan)
    assert alone.low == alone.value == alone.high > alone.zero


def test_provenance_becomes_tables() -> None:
    nested = {"code": None, "packages": {"a": "2", "b": ["c", 1]}, "stages": [{"s": 1.5, "t": {"u": True}}, {"s": 2}]}
    general, packages, stages = provenance_tables(nested)
    assert (general.title, general.body().splitlines()[-1]) == ("General", "| code | – |")  # noqa: RUF001 - a dash
    assert packages.frame.to_numpy().tolist() == [["a", "2"], ["b", "c, 1"]]
    assert [column.title for column in stages.columns] == ["Name", "S", "T.u"]
    assert stages.body().splitlines()[-2:] == ["| 1 | 1.5 | yes |", "| 2 | 2 | – |"]  # noqa: RUF001 - a dash


def test_a_ratio_of_zero_stays_in_the_plot(tmp_path) -> None:
    rows = frame(unit("msr", 0, perturbation_ratio=0.0), unit("msr", 1, perturbation_ratio=0.5))
    [plot] = scatter(material_of(rows, tmp_path))
    assert plot["n"] == 2
    assert plot["figure"]["data"][0]["x"] == [0.25, 0.5]


def test_figures_are_embedded_with_their_credits(tmp_path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    Image.new("RGB", (4, 3), "red").save(folder / "figure3.png")
    (folder / "figure3_credits.md").write_text("# t\n\n1. cat: file <http://photos.example/1>\n")
    page = write_report(tmp_path, synthetic(tmp_path, 1), [], [folder / "figure3.png"], claims(), {}).read_text()
    assert 'width="4" height="3"' in page
    assert 'href="http://photos.example/1"' in page


def test_findings_come_first_and_their_links_lead_somewhere(tmp_path) -> None:
    Image.new("RGB", (900, 2000), "red").save(tmp_path / "figure1.png")
    table = Table("table1", "Table 1", [Column("n", "n")], pd.DataFrame({"n": [1]}))
    shown = KeyFinding(
        "a", "A title", "It is **0.5 [0.4, 0.6]**.", "same", HOSTILE, Cell(0.5), "table1", "figure1", ("u",)
    )
    bare = replace(shown, id="b", table="claims", figure="", units=(), outcome="missing")
    arguments = tmp_path, synthetic(tmp_path, 1), [table], [tmp_path / "figure1.png"], claims(), {}
    page = write_report(*arguments, findings=[shown, bare]).read_text()
    cards = page[page.index('<ol class="findings">') : page.index("</ol>")]
    assert page.index('class="tally"') < page.index(cards) < page.index('class="sources"') < page.index('id="board"')
    assert cards.count("<strong>0.5 [0.4, 0.6]</strong>") == 2
    assert re.findall(r'href="#([^"]+)"', cards) == ["table-table1", "figure-figure1", "claims"]
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))
    assert HOSTILE not in page
    [picture] = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', cards)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (480, 320)  # the upper part


def test_errors_are_one_line_and_say_what_to_do(tmp_path, monkeypatch) -> None:
    material = synthetic(tmp_path, 1)
    broken = tmp_path / "figure1.png"
    broken.write_bytes(b"\x89PNG\r\n")
    for arguments, words in [
        (([], [broken], claims(), {}), "figure1.png"),
        (([], [tmp_path / "none.png"], claims(), {}), "none.png"),
    ]:
        with pytest.raises(MisureError, match=words) as raised:
            write_report(tmp_path, material, *arguments)
        assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MisureError, match=r"needs plotly: pip install 'misure\[report\]'"):
        write_report(tmp_path, material, [], [], claims(), {})


def test_nothing_in_the_page_asks_for_a_network(tmp_path) -> None:
    text = write_report(tmp_path, synthetic(tmp_path, 1), [], [], claims(), {"a": 1}).read_text()
    own = re.sub(r"<script(?: type=\"text/plain\"[^>]*)?>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", own)
    assert "default-src 'none'" in own


def test_every_method_can_be_drawn_in_the_plot() -> None:
    names = [*EXPLAINERS, *(f"a_method_of_yours_{number}" for number in range(200))]
    assert {style_of(name).marker for name in names} <= set(SYMBOLS)
