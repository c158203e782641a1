"""The first page's picture: what MSR, RISE and Seg-Grad-CAM show of an image of each run, one below the other.

    python tests/readme_picture.py outputs:reference:triangle outputs:quick:coco

writes ``data/readme/maps.png`` from outputs folders, their profiles and datasets; the first is what `make
tables PROFILE=reference` leaves. Photographs and scans are refused.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from misure.paper.figures.maps import qualitative_figure, shown_rows
from misure.paper.query import latest_run, shown_pairs
from misure.sweep.records import RecordStore

PICTURE = Path(__file__).resolve().parents[1] / "data" / "readme" / "maps.png"
_WIDTH, _DPI = 1200, 110


def row_of(outputs: Path, profile: str, dataset: str) -> Image.Image:
    """Draw the first image of a dataset that has the maps of most methods."""
    store = RecordStore(outputs / "records")
    run, maps = latest_run(store.load(), profile), store.maps_folder
    run = run[run["dataset"].eq(dataset)]
    if dataset != "triangle" and not run["stand_in"].all():
        raise SystemExit(f"{outputs}: {dataset} is of photographs or scans, which are not passed on")
    pairs = [pair for pair in shown_pairs(run) if pair.dataset == dataset]
    shown = max(shown_rows(run, maps, pairs), key=lambda row: len(row.units))
    if shown.sample is None:
        raise SystemExit(f"{outputs} has no maps of {dataset} in profile {profile}")
    pair = replace(shown.pair, qualitative_classes=(shown.label,) if shown.label else ())
    figure = qualitative_figure(run[run["sample"].eq(shown.sample["sample"])], maps, profile, [pair])
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    drawn = Image.open(content).convert("RGB")
    return drawn.resize((_WIDTH, round(drawn.height * _WIDTH / drawn.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    rows = [row_of(Path(folder), profile, dataset) for folder, profile, dataset in (a.split(":") for a in sys.argv[1:])]
    page = Image.new("RGB", (_WIDTH, sum(row.height for row in rows)), "white")
    for number, row in enumerate(rows):
        page.paste(row, (0, sum(above.height for above in rows[:number])))
    page.quantize(256).save(PICTURE, optimize=True)
    print(PICTURE)
