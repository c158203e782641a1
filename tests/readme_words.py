"""The first page's words about the records: the verdicts that they rest on are checked, and their numbers counted."""

from __future__ import annotations

from readme_results import judged, reference_run

from misure.paper.claims import Verdict
from misure.paper.published import Pair
from misure.paper.query import SAMPLE, at_threshold, paper_draw, select

_WORDS = """
All but {n_elsewhere} that are decided are Triangle's; CT is generated. In words:

- **As the paper says**, on Triangle: MSR keeps about two thirds of the object, stage 2 prunes it, masks of more cells
  prune more, a small learning rate (0.001) prunes nothing, MSR's maps agree with RISE's, and Seg-Grad-CAM does not do
  well.
- **Not as it says**, on Triangle: a small lambda (0.001) prunes nearly as much as 0.01, and a large one (0.1) with a
  large learning rate (0.1) leaves more than half of the object.
- **Also seen** on Triangle: stage 1 has to dilate {n_dilated} of {n_triangle} objects, and Dice explained hardly tells
  MSR from the object alone, since black hides nothing of a black background: even a random map comes near, though it
  keeps many times as much.
- **On photographs**, explained with another network, the object alone suffices about half of the time ({n_alone} of
  {n_photographs}), and there MSR keeps {kept_alone:.2f} times the object on average. The smaller the object, the more
  it keeps elsewhere: that is as printed, the mean is not, which is above 1 in place of a fifth. Dice explained tells
  MSR from the object alone, but not from Seg-Grad-CAM, which keeps more on {n_cam_larger} of the {n_photographs}.
  RISE's Dice explained is the highest in the paper, and here below MSR's on the same objects.
- **What the paper does not ask**: on Triangle, maps of MSR for a network whose weights are all random resemble those
  for the trained one more than by chance, and noise of one grey value changes a good part of their pixels.
"""

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
    (_PHOTOGRAPHS, Verdict.HOLDS): ("size-ratio-falls",),
    (_PHOTOGRAPHS, Verdict.FAILS): ("msr-ratio-below-1", "msr-one-fifth", "rise-best-dice"),
}


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
    return _WORDS.format(**_of_triangle(), **_of_photographs(), n_elsewhere=_decided_elsewhere())


def _decided_elsewhere() -> int:
    decided = [claim for claim in judged() if claim.verdict in (Verdict.HOLDS, Verdict.FAILS)]
    return sum(claim.finding.dataset != _TRIANGLE for claim in decided)


def _of_triangle() -> dict[str, float]:
    n_dilations = select(paper_draw(reference_run().run, _pair(_TRIANGLE)), "msr")["n_dilations"]
    return {"n_dilated": int((n_dilations > 0).sum()), "n_triangle": len(n_dilations)}


def _of_photographs() -> dict[str, float]:
    records = paper_draw(reference_run().run, _pair(_PHOTOGRAPHS))
    msr = select(records, "msr")
    alone = msr.loc[msr["n_dilations"] == 0, "perturbation_ratio"]
    both = msr.merge(at_threshold(select(records, "seg_grad_cam"), 0.05), on=SAMPLE, suffixes=("", "_of_cam"))
    assert len(both) == len(msr)
    return {
        "n_alone": len(alone),
        "n_photographs": len(msr),
        "kept_alone": alone.mean(),
        "n_cam_larger": int((both["perturbation_ratio_of_cam"] > both["perturbation_ratio"]).sum()),
    }


def _pair(dataset: str) -> Pair:
    (pair,) = (pair for pair in reference_run().pairs if pair.label.startswith(dataset))
    return pair
