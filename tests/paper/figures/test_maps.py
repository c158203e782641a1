"""Figures of maps: which samples and classes are drawn where, captions, credits and labelled gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from paper_records import (
    COCO,
    COCO_CLASSES,
    ORGANS,
    PHANTOM,
    TRANSUNET,
    TRIANGLE,
    UNET,
    frame,
    organ,
    photo,
    run_of,
    save_map,
    triangle_records,
    unit,
)

from misure.paper.credits import credits_document
from misure.paper.figures.maps import qualitative_figure, shown_rows
from misure.paper.published import PAIRS
from misure.paper.query import latest_run

COLUMN_TITLES = ["Image", "Prediction", "Dilation ($X_{SR}$)", "MSR", "RISE (300 masks)", "Seg-Grad-CAM"]


def _row_labels(figure: Figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes[:-1:6]]


def test_qualitative_grid(tmp_path: Path) -> None:
    run = latest_run(triangle_records(tmp_path), "quick")
    figure = qualitative_figure(run, tmp_path, "quick", [TRIANGLE])
    panels, bar = figure.axes[:-1], figure.axes[-1]
    assert len(panels) == 2 * len(COLUMN_TITLES)
    assert [axes.get_title() for axes in panels[:6]] == COLUMN_TITLES
    assert [axes.get_ylabel() for axes in panels[::6]] == ["sample 0", "sample 1"]
    assert "scaled" in bar.get_ylabel()
    assert [bool(axes.images) for axes in panels] == [True] * 6 + [True] * 4 + [False, True]
    assert panels[10].texts[0].get_text() == "no map saved"
    for axes in (panels[3], panels[4], panels[5]):
        shown = np.asarray(axes.images[0].get_array())
        assert (shown.min(), shown.max()) == (0.0, 1.0)


def test_maps_that_ship_without_their_image_are_drawn(tmp_path: Path) -> None:
    """Of another method of the same sample the image is taken, if that has one."""
    units = [unit("msr", 0), unit("msr", 1), unit("rise", 1)]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8), image=rows[0]["explainer"] == "rise")
    figure = qualitative_figure(run_of(*units), tmp_path, "quick", [TRIANGLE])
    first, second = figure.axes[:6], figure.axes[6:12]
    assert [bool(axes.images) for axes in first] == [False, True, True, True, False, False]
    assert first[0].texts[0].get_text() == "no image saved"
    for shown in first[1:3]:  # the prediction and X_SR, which save_map makes the same
        assert np.asarray(shown.images[0].get_array()).sum() == 16
    assert [bool(axes.images) for axes in second] == [True] * 5 + [False]
    figure.savefig(tmp_path / "drawn.png", dpi=30)


def test_at_most_six_samples_are_drawn(tmp_path: Path) -> None:
    units = [unit("msr", sample) for sample in range(8)]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(run_of(*units), tmp_path, "quick", [TRIANGLE])
    assert len(figure.axes) == 6 * 6 + 1


def test_organs_and_networks_alternate_as_in_the_paper(tmp_path: Path) -> None:
    units = []
    for model in ("unet_resnet34", "transunet"):
        for number, label in enumerate(ORGANS):
            for sample in (number, 10 + number):
                rows = organ("msr", sample, label, model=model)
                units.append(rows)
                # Both networks have a map of the second sample of each organ, the U-Net one of the first as well.
                if sample >= 10 or model == "unet_resnet34":
                    save_map(tmp_path, rows[0]["unit"], np.eye(8))
    run = run_of(*units)
    figure = qualitative_figure(run, tmp_path, "quick", [UNET, TRANSUNET])
    expected = [("Aorta", 10), ("Left Kidney", 12), ("Gall Bladder", 11), ("Liver", 14)]
    assert _row_labels(figure) == [
        f"{label}\n{model}\nsample {sample}" for label, sample in expected for model in ("U-Net", "TransUNet")
    ]
    assert figure.get_supxlabel().startswith("Synapse, U-Net and TransUNet")
    assert PHANTOM in figure.get_supxlabel().replace("\n", " ")


def test_an_organ_without_maps_is_labelled_and_another_makes_up_for_it(tmp_path: Path) -> None:
    units = [organ("msr", number, label) for number, label in enumerate(ORGANS) if label != "Gall Bladder"]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(run_of(*units), tmp_path, "quick", [UNET])
    labels = ["Aorta\nsample 0", "Left Kidney\nsample 2", "Gall Bladder", "Liver\nsample 4", "Right Kidney\nsample 3"]
    assert _row_labels(figure) == labels
    empty = figure.axes[2 * 6 : 3 * 6]
    assert {axes.texts[0].get_text() for axes in empty} == {"no saved maps\nin this profile"}


def test_maps_of_later_draws_and_of_other_settings_are_not_shown(tmp_path: Path) -> None:
    late = organ("msr", 0, "Aorta", draw=50)
    other = organ("msr", 1, "Aorta", {"lr": 0.01})
    shown = organ("msr", 2, "Aorta", draw=49)
    for rows in (late, other, shown):
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(run_of(late, other, shown), tmp_path, "quick", [UNET])
    assert _row_labels(figure) == ["Aorta\nsample 2", "Left Kidney", "Gall Bladder", "Liver"]


def test_sample_with_most_maps_is_preferred(tmp_path: Path) -> None:
    units = [organ("msr", 0, "Aorta"), organ("msr", 1, "Aorta"), organ("seg_grad_cam", 1, "Aorta")]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(run_of(*units), tmp_path, "quick", [UNET])
    assert _row_labels(figure)[0] == "Aorta\nsample 1"


IN_THE_PAPERS_ORDER = ["Bicycle", "Bus", "Car", "Cat", "Dog", "Cow", "Train", "Person"]


@pytest.fixture
def photographs(tmp_path: Path) -> Any:
    """One pair of every class, all under licence 4 but: cow unknown, dog non-commercial before its showable one."""
    units = [photo("msr", number, name) for number, name in enumerate(COCO_CLASSES) if name not in {"cow", "dog"}]
    units += [photo("msr", 20, "cow", credit_licence=None)]
    units += [photo("msr", 21, "dog", credit_licence=2), photo("msr", 22, "dog", credit_licence=5)]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8), channels=3)
    return run_of(*units), tmp_path


def test_only_photographs_whose_licence_allows_it_are_shown(photographs: Any) -> None:
    run, maps = photographs
    figure = qualitative_figure(run, maps, "quick", [COCO])
    labels = [label.split("\n") for label in _row_labels(figure)]
    assert [label for label, *_ in labels] == IN_THE_PAPERS_ORDER
    assert labels[4] == ["Dog", "000000000022.jpg"]
    assert labels[5] == ["Cow"]
    cow = figure.axes[5 * 6 : 6 * 6]
    assert all("licence" in axes.texts[0].get_text() and not axes.images for axes in cow)
    older = qualitative_figure(run.assign(credit_licence=np.nan), maps, "quick", [COCO])
    assert not any(axes.images for axes in older.axes[:-1])


def test_photographs_get_their_own_colours_back(tmp_path: Path) -> None:
    rows = photo("msr", 0, "bus")
    colours = np.array([[[0.0, 1.0, 0.5]], [[0.0, 1.0, 0.5]], [[0.0, 1.0, 0.5]]])  # black, white and grey, 3 x 1 x 3
    mean, std = (np.array(v)[:, None, None] for v in (COCO.mean, COCO.std))
    region = np.array([[True, True, False]])
    np.savez(tmp_path / f"{rows[0]['unit']}.npz", image=(colours - mean) / std, region=region, saliency=region * 1.0)
    figure = qualitative_figure(run_of(rows), tmp_path, "quick", [COCO])
    shown = np.asarray(figure.axes[6].images[0].get_array())  # second row: bus
    np.testing.assert_allclose(shown, colours.transpose(1, 2, 0), atol=1e-6)  # float32


def test_credits_have_a_line_for_every_row(photographs: Any) -> None:
    run, maps = photographs
    document = credits_document("Figure 3 (COCO-2017)", shown_rows(run, maps, [COCO]))
    lines = [line for line in document.splitlines() if line[:1].isdigit()]
    assert [line.split(": ")[0] for line in lines] == [f"{i}. {name}" for i, name in enumerate(IN_THE_PAPERS_ORDER, 1)]
    licence = "licence: [Attribution License](http://licences.example/by)"
    assert lines[1] == f"2. Bus: `000000000000.jpg`, file <http://photos.example/0>, {licence}"
    assert lines[5] == "6. Cow: no saved maps of an image whose licence allows showing it"


def test_credits_lead_to_the_page_of_a_photograph(tmp_path: Path) -> None:
    file = "http://farm9.staticflickr.com/8479/8195678412_8d8d906379_z.jpg"
    rows = photo("msr", 0, "bus", credit_url=file)
    save_map(tmp_path, rows[0]["unit"], np.eye(8), channels=3)
    document = credits_document("Figure 3", shown_rows(run_of(rows), tmp_path, [COCO]))
    assert f"<https://www.flickr.com/photo.gne?id=8195678412>, file <{file}>" in document


def test_generated_scenes_are_shown_without_a_licence(tmp_path: Path) -> None:
    rows = photo("msr", 0, "bus", model="deeplabv3_stand_in", credit_licence=0, stand_in=True)
    save_map(tmp_path, rows[0]["unit"], np.eye(8), channels=3)
    stand_in = next(pair for pair in PAIRS if pair.model == "deeplabv3_stand_in")
    document = credits_document("Figure 3", shown_rows(run_of(rows), tmp_path, [stand_in]))
    assert "2. Bus: `000000000000.jpg`, generated by this project\n" in document
    assert "http" not in document


def test_a_figure_of_records_without_rise(tmp_path: Path) -> None:
    records = frame(unit("msr", 0)).drop(columns=["param_n_masks"])
    figure = qualitative_figure(latest_run(records, "quick"), tmp_path, "quick", [TRIANGLE])
    assert "RISE" in [axes.get_title() for axes in figure.axes]
