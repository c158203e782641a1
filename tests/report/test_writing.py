"""The parts of the report that need no browser."""

import base64
import io
import math
import re
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("jinja2", reason="the report's libraries are not installed (pip install 'misure[report]')")
pytest.importorskip("plotly", reason="the report's libraries are not installed (pip install 'misure[report]')")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed (pip install 'misure[report]')")

from paper_records import frame, photo, save_map, unit  # noqa: E402
from report_files import HOSTILE, claims, material_of, payload, synthetic  # noqa: E402

from misure.errors import MisureError  # noqa: E402
from misure.report import write_report  # noqa: E402
from misure.report.claims import bar  # noqa: E402
from misure.report.comparison import compared, difference  # noqa: E402
from misure.report.gallery import changed_settings, gallery, scaled_map  # noqa: E402
from misure.report.notes import Span, blocks, plain, spans  # noqa: E402
from misure.report.pictures import LEVELS, Pictures, displayable, from_levels, to_levels  # noqa: E402
from misure.report.provenance import sheets  # noqa: E402
from misure.report.scatter import scatter  # noqa: E402


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def test_a_mask_survives_as_one_bit() -> None:
    mask = np.random.default_rng(0).random((13, 21)) > 0.5
    pictures = Pictures()
    uri = pictures.uris[pictures.add_mask(mask)]
    assert decoded(uri).dtype == bool
    assert np.array_equal(decoded(uri), mask)


@given(arrays(np.float64, (4, 5), elements=st.floats(0, 1)))
def test_steps_of_a_map_are_near_it_and_cut_it_exactly(scaled: np.ndarray) -> None:
    levels = to_levels(scaled)
    pictures = Pictures()
    kept = decoded(pictures.uris[pictures.add_levels(levels)])
    assert np.array_equal(kept, levels)
    assert np.abs(from_levels(kept) - scaled).max() <= 1 / 255
    assert np.array_equal(from_levels(kept) == 0, scaled == 0)
    for step in (0, 1, 10, 20, 40, 80, LEVELS - 1, LEVELS):
        assert np.array_equal(kept > step, scaled > step / LEVELS)


def test_equal_pictures_are_kept_once() -> None:
    pictures = Pictures()
    image = np.random.default_rng(0).random((6, 7, 3))
    first, again = (pictures.add_image(image, photograph=False) for _ in range(2))
    other = pictures.add_image(1 - image, photograph=False)
    assert first == again != other
    assert len(pictures.uris) == 2
    assert np.array_equal(decoded(pictures.uris[first]), np.round(image * 255))


def test_images_of_the_network_get_their_colours_back() -> None:
    colours = np.random.default_rng(0).random((3, 4, 5))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = (colours - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(displayable(normalised, mean, std), colours.transpose(1, 2, 0), atol=1e-12)
    assert displayable(np.array([[[-3.0, 1.0]]]), (), ()).tolist() == [[0.0, 1.0]]
    assert displayable(np.full((1, 2, 2), 7.0), (), ()).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_map_is_scaled_as_its_evaluation_does() -> None:
    low, high, scaled = scaled_map(np.array([[2.0, 4.0, 3.0]]), itself=False)
    assert (low, high, scaled.tolist()) == (2.0, 4.0, [[0.0, 1.0, 0.5]])
    assert scaled_map(np.array([[0.0, 0.25]]), itself=True)[2].tolist() == [[0.0, 0.25]]
    assert scaled_map(np.zeros((1, 2)), itself=False)[2].tolist() == [[0.0, 0.0]]


def test_one_image_serves_all_methods_of_a_sample(tmp_path) -> None:
    material = synthetic(tmp_path, 3)
    found = gallery(material)
    names = {card["image"] for card in found["cards"] if card["sample"] == 1}
    assert len(names) == 1
    assert len({card["unit"] for card in found["cards"]}) == len(found["cards"]) == 9
    assert len(found["pictures"]) == len(set(found["pictures"].values()))


def test_noisy_and_changed_runs_stay_out_of_the_gallery(tmp_path) -> None:
    rows = [unit("msr", 0), unit("msr", 1, input_noise=1e-6), unit("msr", 2, intervention="randomised")]
    rows.append(unit("msr", 3, status="skipped"))
    for each in rows:
        save_map(tmp_path, each[0]["unit"], np.eye(4))
    assert [card["sample"] for card in gallery(material_of(frame(*rows), tmp_path))["cards"]] == [0]


@pytest.mark.parametrize(("licence", "shown"), [(4, True), (5, True), (1, False), (6, False), (None, False)])
def test_photographs_are_embedded_only_if_their_licence_allows_it(tmp_path, licence, shown) -> None:
    rows = photo("msr", 7, "cat", credit_licence=licence)
    save_map(tmp_path, rows[0]["unit"], np.eye(8), channels=3)
    [card] = gallery(material_of(frame(rows), tmp_path))["cards"]
    assert (card["image"] is not None) == shown
    assert card["saliency"] is not None
    links = [piece["href"] for piece in card["credit"] if piece["href"]]
    assert links == ["http://photos.example/7", "http://licences.example/by"]
    assert card["marks"] == ["MobileNetV2 substitution"]


def test_a_card_names_settings_that_differ() -> None:
    usual, other = frame(unit("msr", 0)).iloc[0], frame(unit("msr", 0, {"lr": 0.01, "n_iterations": 5})).iloc[0]
    assert changed_settings(usual) == {}
    assert changed_settings(other) == {"lr": "0.01", "n_iterations": "5"}


def test_documents_become_blocks() -> None:
    text = (
        "# A `b`\n\n- one\n  more\n- **two**\n\nPlain\ntext:\n- three\n\n| x | y |\n| --- | --- |\n| 1 \\| 2 | <z> |\n"
    )
    heading, first, paragraph, second, table = blocks(text)
    assert (heading.kind, plain(heading.lines[0]), heading.level) == ("heading", "A b", 1)
    assert [plain(item) for item in first.lines] == ["one more", "two"]
    assert plain(paragraph.lines[0]) == "Plain text:"
    assert [plain(item) for item in second.lines] == ["three"]
    assert [[plain(cell) for cell in row] for row in table.rows] == [["1 | 2", "<z>"]]


def test_only_web_addresses_become_links() -> None:
    assert spans("[a](http://b.example/c)") == [Span("a", "link", "http://b.example/c")]
    assert spans("<https://b.example>")[0].href == "https://b.example"
    assert [span.kind for span in spans("[a](javascript:alert%281%29)")] == ["text"]


def test_differences_are_signed_coloured_and_grey_where_they_mean_nothing() -> None:
    assert difference(0.9, 0.8, factor=False).text == "-0.100"
    assert difference(0.9, 0.8, factor=False).tone == "below2"
    assert difference(2.0, 16.0, factor=True).text == "×8"  # noqa: RUF001 - a multiplication sign
    assert difference(2.0, 16.0, factor=True).tone == "above3"
    assert difference(0.9, 0.901, factor=False).tone == "same"
    assert difference(2.0, 0.0, factor=True).tone == "below3"
    assert difference(0.9, 0.5, factor=False, grey="stand-in").tone == "grey"
    assert difference(math.nan, 0.5, factor=False).text == "–"  # noqa: RUF001 - a dash


@pytest.mark.parametrize(("n", "stand_in", "tone"), [(5, False, "below3"), (1, False, "grey"), (5, True, "grey")])
def test_a_stand_in_and_a_single_sample_are_not_judged(n, stand_in, tone) -> None:
    row = {"dataset": "D", "model": "M", "paper_dice_explained": 0.9, "dice_explained_mean": 0.5, "n_samples": n}
    row |= {"dice_explained_low": 0.4, "dice_explained_high": 0.6, "stand_in": stand_in, "source": "s"}
    table = compared(pd.DataFrame([row]))
    [line] = table.lines
    assert line.scores[0].difference.tone == tone
    assert line.marks == (["stand-in"] if stand_in else [])
    assert compared(pd.DataFrame([row]).drop(columns="paper_dice_explained")) is None


def test_the_bar_of_a_claim_keeps_the_order_of_its_numbers() -> None:
    drawn = bar(-0.1, -0.2, 0.3)
    assert 0 < drawn.low < drawn.value < drawn.zero < drawn.high < 100
    assert bar(math.nan, 0.0, 1.0) is None
    alone = bar(2.0, math.nan, math.nan)
    assert alone.low == alone.value == alone.high > alone.zero


def test_provenance_becomes_tables() -> None:
    general, packages, stages = sheets({"code": "1", "packages": {"a": "2"}, "stages": [{"s": 1.5, "t": {"u": True}}]})
    assert (general.title, general.rows) == ("General", [["code", "1"]])
    assert packages.rows == [["a", "2"]]
    assert (stages.headers, stages.rows) == (["", "S", "T.u"], [["1", "1.5", "yes"]])


def test_a_ratio_of_zero_stays_in_the_plot(tmp_path) -> None:
    rows = frame(unit("msr", 0, perturbation_ratio=0.0), unit("msr", 1, perturbation_ratio=0.5))
    [plot] = scatter(material_of(rows, tmp_path))
    assert (plot["zeros"], plot["n"]) == (1, 2)
    assert plot["figure"]["data"][0]["x"] == [0.25, 0.5]


def test_hostile_names_are_text_in_the_file(tmp_path) -> None:
    material = synthetic(tmp_path, 1, class_name=HOSTILE)
    table = pd.DataFrame({"a": [HOSTILE]})
    document = f"# {HOSTILE}\n\n| a |\n| --- |\n| {HOSTILE} |\n"
    text = write_report(
        tmp_path, material, [("t", table, document)], [], claims(why=HOSTILE), {HOSTILE: HOSTILE}
    ).read_text()
    assert HOSTILE not in text
    assert "<img src=x" not in text
    assert payload(text)["cards"][0]["class"] == HOSTILE


def test_figures_are_embedded_with_their_credits(tmp_path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    Image.new("RGB", (4, 3), "red").save(folder / "figure3.png")
    (folder / "figure3_credits.md").write_text("# t\n\n1. cat: file <http://photos.example/1>\n")
    page = write_report(tmp_path, synthetic(tmp_path, 1), [], [folder / "figure3.png"], claims(), {}).read_text()
    assert 'width="4" height="3"' in page
    assert 'href="http://photos.example/1"' in page


def test_errors_are_one_line_and_say_what_to_do(tmp_path, monkeypatch) -> None:
    material = synthetic(tmp_path, 1)
    broken = tmp_path / "figure1.png"
    broken.write_bytes(b"\x89PNG\r\n")
    for arguments, words in [
        (([], [broken], claims(), {}), "figure1.png"),
        (([], [tmp_path / "none.png"], claims(), {}), "none.png"),
        (([], [], claims().drop(columns="p"), {}), "lack the columns p"),
        (([], [], claims(verdict="maybe"), {}), "maybe"),
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
