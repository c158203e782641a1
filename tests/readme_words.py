"""The first page's words about the records: the verdicts that they rest on are checked, and their numbers counted."""

from __future__ import annotations

import math
import re
import textwrap

from readme_results import interval_of, judged, reference_run, reference_tables

from misure.paper.claims import Verdict
from misure.paper.claims.significance import FEWEST_GROUPS
from misure.paper.published import Pair
from misure.paper.query import SAMPLE, at_threshold, paper_draw, select
from misure.paper.table import measured

_WORDS = """
All but {n_elsewhere} that are decided are Triangle's; CT is generated. In words:

- **As the paper says**, on Triangle: MSR keeps about two thirds of the object, stage 2 prunes it, masks of more cells
  prune more, a small learning rate (0.001) prunes nothing, MSR's maps agree with RISE's, and Seg-Grad-CAM does not do
  well.
- **Not as it says**, where we read "low" and "high" as the ends of Tables 2 to 5: on Triangle a low lambda (0.001)
  prunes nearly as much as 0.01 (it leaves {low_lambda:.2f} of the object, where Table 2 has 0.93), and a high one
  (0.1) with a high learning rate (0.1) is far from destroying the mask ({high_both:.2f}, where it has 0.23).
- **Also seen** on Triangle: stage 1 has to dilate {n_dilated} of {n_triangle} objects (SR's mean ratio is above 1 for
  that alone), and Dice explained hardly tells MSR from the object alone, since black hides nothing of a black
  background: even a random map comes near, though it keeps many times as much.
- **On photographs** (103 of COCO's, of which {n_images} have the {n_photographs} objects of the paper's protocol with
  160 or more predicted pixels, a rule of ours), explained with another network, the object alone suffices about half
  of the time ({n_alone} of {n_photographs}), and there MSR keeps {kept_alone:.2f} times the object on average. A
  smaller object needs more for its size, as printed, since what is kept hardly depends on the size. The paper prints
  a mean ratio of 0.22; here it is {kept:.2f}, by the objects that need much of what is around them, and half of the
  objects have less than {median:.2f}. Dice explained tells MSR from the object alone, but not from Seg-Grad-CAM,
  which keeps more on {n_cam_larger} of the {n_photographs}. RISE's Dice explained is the highest in the paper, and
  here {rise:.2f} where MSR has {msr_of_rise:.2f} ({n_rise} objects).
- **What the paper does not ask**: on Triangle, MSR's maps change when all weights of the network are random, as they
  should, and in part when the image changes by as little as rounding, as they should not.
"""

_WIDTH = 140
"""Of the page's lines."""

_TRIANGLE, _PHOTOGRAPHS = "Triangle", "COCO-2017"

_RESTS_ON = {
    (_TRIANGLE, Verdict.HOLDS): (
        "msr-two-thirds",
        "stage2-prunes",
        "larger-masks-pruned-more",
        "low-lr-prunes-nothing",
        "msr-agrees-with-rise",
        "cam-poor",
    ),
    (_TRIANGLE, Verdict.FAILS): ("low-lambda-prunes-nothing", "high-lr-and-lambda-destroy-the-mask"),
    (_PHOTOGRAPHS, Verdict.HOLDS): ("size-ratio-falls", "size-kept-less-than-proportional"),
    (_PHOTOGRAPHS, Verdict.FAILS): ("msr-ratio-below-1", "msr-one-fifth", "rise-best-dice"),
}

_CHECKS = (
    (
        "sanity",
        ("randomised", (1, 1)),
        "top_iou",
        (
            "With all weights of the network random, the highest pixels of MSR's map have an IoU of **{}** with those "
            "before (as many pixels as the object has, black ones left out); two random maps would have {chance}."
        ),
    ),
    (
        "stability",
        ("noise", (1e-3, 1)),
        "iou",
        "Noise of one grey value (1/255) leaves MSR's kept pixels an IoU of **{}** with those without.",
    ),
    (
        "stability",
        ("noise", (0, 1e-5)),
        "iou",
        "Noise as small as rounding (1e-6) leaves them **{}**, so that most of the change is the method's own.",
    ),
)
"""Tables of checks, the rows that are told, their number, and a sentence about it."""


def words() -> str:
    """Return the words with their numbers.

    Raises:
        AssertionError: If a claim that they speak of reads otherwise now: they are to be written anew.
    """
    found = {(claim.finding.dataset, claim.finding.id): claim.verdict for claim in judged()}
    changed = {
        (dataset, name): found[dataset, name]
        for (dataset, told), names in _RESTS_ON.items()
        for name in names
        if found[dataset, name] != told
    }
    assert not changed, f"write _WORDS anew, these claims read otherwise now: {changed}"
    told = _WORDS.format(**_of_triangle(), **_of_photographs(), n_elsewhere=_decided_elsewhere())
    lines = re.sub(r"\n  ", " ", told).strip().splitlines()
    return "\n".join(textwrap.fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


def checks() -> str:
    """Return what is left of MSR's map with random weights, and after noise, which the paper does not ask."""
    told = []
    for table, mark, column, sentence in _CHECKS:
        frame = reference_tables()[table].frame
        rows = frame[frame["method"].eq("MSR") & ~frame["stand_in"] & frame[mark[0]].between(*mark[1])]
        for _, row in rows[rows[f"{column}_n"] >= FEWEST_GROUPS].iterrows():
            where = f"{row['dataset']}, {row['model']}; n = {row[f'{column}_n']:.0f}; table `{table}`"
            chance = measured(row.get("chance", math.nan))
            told.append(f"- {sentence.format(interval_of(row, column), chance=chance)} ({where})")
    return "\n".join(["Beside the paper:", "", *told] if told else ["No check of MSR has enough records yet."])


def _decided_elsewhere() -> int:
    decided = [claim for claim in judged() if claim.verdict in (Verdict.HOLDS, Verdict.FAILS)]
    return sum(claim.finding.dataset != _TRIANGLE for claim in decided)


def _of_triangle() -> dict[str, float]:
    n_dilations = select(paper_draw(reference_run().run, _pair(_TRIANGLE)), "msr")["n_dilations"]
    cells = reference_tables()["table2"].frame.set_index(["dataset", "learning_rate", "lambda"])[
        "perturbation_ratio_mean"
    ]
    return {
        "n_dilated": int((n_dilations > 0).sum()),
        "n_triangle": len(n_dilations),
        "low_lambda": cells[_TRIANGLE, 0.1, 0.001],
        "high_both": cells[_TRIANGLE, 0.1, 0.1],
    }


def _of_photographs() -> dict[str, float]:
    records = paper_draw(reference_run().run, _pair(_PHOTOGRAPHS))
    msr = select(records, "msr")
    alone = msr.loc[msr["n_dilations"] == 0, "perturbation_ratio"]
    both = msr.merge(at_threshold(select(records, "seg_grad_cam"), 0.05), on=SAMPLE, suffixes=("", "_of_cam"))
    assert len(both) == len(msr)
    rise = at_threshold(select(records, "rise"), 0.2).merge(msr, on=SAMPLE, suffixes=("", "_of_msr"))
    return {
        "n_images": msr["group"].nunique(),
        "n_rise": len(rise),
        "rise": rise["dice_explained"].mean(),
        "msr_of_rise": rise["dice_explained_of_msr"].mean(),
        "n_alone": len(alone),
        "n_photographs": len(msr),
        "kept_alone": alone.mean(),
        "kept": msr["perturbation_ratio"].mean(),
        "median": msr["perturbation_ratio"].median(),
        "n_cam_larger": int((both["perturbation_ratio_of_cam"] > both["perturbation_ratio"]).sum()),
    }


def _pair(dataset: str) -> Pair:
    (pair,) = (pair for pair in reference_run().pairs if pair.dataset_label == dataset)
    return pair
