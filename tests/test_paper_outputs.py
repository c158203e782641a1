"""Files: what is written, read back, drawn, and left alone when a disk fails."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from paper_records import frame, save_map, unit

from misure.errors import MisureError
from misure.explainers import EXPLAINERS
from misure.paper.figures import qualitative_figure, size_figure
from misure.paper.outputs import write_all, write_atomically
from misure.paper.reference import PAIRS
from misure.paper.selection import IDENTITY, RESULTS, latest_run
from misure.paper.tables import NOT_RUN, table1
from misure.sweep.records import RecordStore, Unit

PAIR = PAIRS[0]
COLUMN_TITLES = ["Image", "Prediction", "Dilation ($X_{SR}$)", "MSR", "RISE (300 masks)", "Seg-Grad-CAM"]


def _records(maps: Path) -> pd.DataFrame:
    """Four samples; maps of the first two, RISE's missing for the second."""
    units = []
    values = np.random.default_rng(0)
    for sample in range(4):
        for name in ("msr", "rise", "seg_grad_cam"):
            rows = unit(
                name,
                sample,
                {"n_masks": 300} if name == "rise" else {},
                n_dilations=float(sample) if name == "msr" else float("nan"),
                perturbation_ratio=1.0 / (1 + sample),
                prediction_size=100 * (sample + 1),
            )
            units.append(rows)
            if sample < 2 and (sample, name) != (1, "rise"):
                save_map(maps, rows[0]["unit"], values.random((8, 12)), sufficient=name == "msr")
    return frame(*units)


def test_everything_is_written_and_reads_back(tmp_path: Path) -> None:
    records = _records(tmp_path / "records" / "maps")
    written = write_all(records, tmp_path, "quick")
    names = [f"tables/table{n}.{kind}" for n in (1, 2, 6) for kind in ("md", "csv")]
    names += [f"figures/figure{n}.{kind}" for n in (1, 6) for kind in ("png", "pdf")]
    assert [path.relative_to(tmp_path).as_posix() for path in written] == names
    assert all(path.stat().st_size for path in written)
    assert not list(tmp_path.rglob(".*"))
    expected = table1(latest_run(records, "quick"))
    found = pd.read_csv(tmp_path / "tables" / "table1.csv", keep_default_na=True)
    numbers = expected.select_dtypes("number").columns
    # Written with enough digits to read the same float64 back.
    pd.testing.assert_frame_equal(found[numbers], expected[numbers], check_dtype=False, rtol=1e-15)
    for column in ("method", "note", "source", "profile"):
        assert found[column].fillna("").tolist() == expected[column].tolist()
    document = (tmp_path / "tables" / "table1.md").read_text(encoding="utf-8")
    assert sum(line.startswith("| Triangle") for line in document.splitlines()) == len(expected)
    assert "not measured" in document


def test_records_of_the_sweep_are_understood(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    circumstances = {k: v for k, v in unit("msr", 0)[0].items() if k in {*RESULTS, *IDENTITY}}
    for name, cls in EXPLAINERS.items():
        explainer = cls()
        identity = Unit("triangle", "f", "unet_vgg16", "w", name, explainer.parameters, 7, 1)
        shared = {k: v for k, v in circumstances.items() if k not in {"threshold", *identity.columns()}}
        shared |= {"n_dilations": None, "created": "2026-11-20T10:00:00.123456+00:00"}
        store.write(identity, [shared | {"threshold": t} for t in explainer.thresholds or (None,)])
    table = table1(latest_run(store.load(), "quick"))
    assert table["n_samples"].tolist() == [1] * len(table)


def test_writing_twice_gives_the_same_tables_and_pictures(tmp_path: Path) -> None:
    records = _records(tmp_path / "maps")
    first = write_all(records, tmp_path / "a", "quick", tmp_path / "maps")
    second = write_all(records.sample(frac=1, random_state=1), tmp_path / "b", "quick", tmp_path / "maps")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_pictures_are_not_blank(tmp_path: Path) -> None:
    write_all(_records(tmp_path / "records" / "maps"), tmp_path, "quick")
    for name in ("figure1.png", "figure6.png"):
        picture = matplotlib.image.imread(tmp_path / "figures" / name)
        assert min(picture.shape[:2]) > 300
        assert picture[..., :3].std() > 0.05


def test_qualitative_grid(tmp_path: Path) -> None:
    run = latest_run(_records(tmp_path), "quick")
    figure = qualitative_figure(run, tmp_path, "quick", PAIR)
    panels, bar = figure.axes[:-1], figure.axes[-1]
    assert len(panels) == 2 * len(COLUMN_TITLES)
    assert [axes.get_title() for axes in panels[:6]] == COLUMN_TITLES
    assert [axes.get_ylabel() for axes in panels[::6]] == ["sample 0, class 1", "sample 1, class 1"]
    assert "scaled" in bar.get_ylabel()
    assert [bool(axes.images) for axes in panels] == [True] * 6 + [True] * 4 + [False, True]
    assert panels[10].texts[0].get_text() == "no map saved"
    for axes in (panels[3], panels[4], panels[5]):
        shown = np.asarray(axes.images[0].get_array())
        assert (shown.min(), shown.max()) == (0.0, 1.0)


def test_a_grid_without_maps_says_so(tmp_path: Path) -> None:
    run = latest_run(_records(tmp_path / "elsewhere"), "quick")
    figure = qualitative_figure(run, tmp_path / "empty", "quick", PAIR)
    assert {axes.texts[0].get_text() for axes in figure.axes[:-1]} == {"no saved maps\nin this profile"}


def test_at_most_six_samples_are_drawn(tmp_path: Path) -> None:
    units = [unit("msr", sample) for sample in range(8)]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(latest_run(frame(*units), "quick"), tmp_path, "quick", PAIR)
    assert len(figure.axes) == 6 * 6 + 1


def test_figures_of_a_stand_in_say_so(tmp_path: Path) -> None:
    run = latest_run(frame(unit("msr", 0, stand_in=True)), "quick")
    for figure in (qualitative_figure(run, tmp_path, "quick", PAIR), size_figure(run, "quick", PAIR)):
        assert "stand-in" in figure.get_supxlabel()


def test_size_figure(tmp_path: Path) -> None:
    left, right = size_figure(latest_run(_records(tmp_path), "quick"), "quick", PAIR).axes
    assert left.collections[0].get_offsets().tolist() == [[100, 0], [200, 1], [300, 2], [400, 3]]
    assert left.get_title().endswith("= 1.00, n = 4")
    assert right.get_title().endswith("= -1.00, n = 4")


@pytest.mark.parametrize(
    ("dilations", "title"),
    [([], ""), ([0.0, 1.0], "n = 2"), ([0.0, 0.0, 0.0], "undefined (one side is constant), n = 3")],
)
def test_size_figure_with_little_data(dilations: list[float], title: str) -> None:
    units = [unit("msr", s, n_dilations=d, prediction_size=100 + s) for s, d in enumerate(dilations)]
    left = size_figure(latest_run(frame(*units), "quick"), "quick", PAIR).axes[0]
    assert left.get_title().endswith(title)
    assert [text.get_text() for text in left.texts] == ([] if dilations else [NOT_RUN])


def test_a_failed_write_keeps_the_old_file_and_says_why(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "table.md", lambda partial: partial.write_text("old"))

    def fill_the_disk(partial: Path) -> None:
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(MisureError, match=r"cannot write .*table\.md: No space left on device; free space"):
        write_atomically(path, fill_the_disk)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.md"]


def test_outputs_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("in the way")
    with pytest.raises(MisureError, match="choose another folder"):
        write_all(frame(unit("msr", 0)), tmp_path / "outputs", "quick")
