"""Control variates: scores without what can be predicted from their masks, which is put back by its exact mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

_PENALTIES = [10.0**power for power in range(-7, 1)]
"""Of the ridge, in units of the features' summed squares; beside them no slopes at all."""


@dataclass(frozen=True)
class LinearPart:
    """What features explain of scores, by predictions that do not know the score they are for.

    Attributes:
        residuals: float64, N x K: each score minus its prediction, which is fitted to the masks of all other groups.
        slopes: float64, N x F: the mean over the masks of the slopes of their predictions.
    """

    residuals: Tensor
    slopes: Tensor


def linear_part(scores: Tensor, features: Tensor, group: int) -> LinearPart:
    """Predict scores by ridge regression on features, each group of masks from all others.

    As a prediction is independent of the mask that it is for, whatever is computed from residuals, with the slopes put
    back by the features' exact covariance, has the expectation that it has for the scores themselves. The
    leave-one-group-out residuals are in closed form ``(I - H_gg)^-1 r_g``, with H the hat matrix; they also choose the
    penalty, image by image, among a row of them and infinity (the mean of the other groups), so that more features than
    masks, or scores that no feature explains, do no harm.

    Reference:
        Golub, Heath and Wahba, Generalized cross-validation as a method for choosing a good ridge parameter,
        Technometrics 21 (2), 1979, https://doi.org/10.1080/00401706.1979.10489751

    Args:
        scores: float64, N x K.
        features: float64, K x F; F may be 0.
        group: Masks that depend on each other and are consecutive; the last group may be shorter.

    Returns:
        Residuals and slopes; with a single group the scores minus their mean, and no slopes.
    """
    n_masks = scores.shape[1]
    centred = scores - scores[:, :1]  # equal scores leave exactly nothing
    centred = centred - centred.mean(1, keepdim=True)
    residuals, slopes = centred.clone(), scores.new_zeros(len(scores), features.shape[1])
    n_groups = -(-n_masks // group)
    if n_groups == 1:
        return LinearPart(residuals, slopes)
    left, sizes, right = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    padding = (0, 0, 0, n_groups * group - n_masks)
    basis = pad(torch.cat([left.new_full((n_masks, 1), n_masks**-0.5), left], 1), padding).view(n_groups, group, -1)
    shares = left.new_full((n_groups, group), group / n_masks)
    shares[-1] = (n_masks - (n_groups - 1) * group) / n_masks
    shares = shares.view(-1, 1)[:n_masks]
    squares, identity = sizes.square(), torch.eye(group, dtype=left.dtype, device=left.device)
    scale = squares.sum().clamp(min=1e-200)
    lowest = [torch.inf] * len(scores)
    for penalty in (torch.inf, *_PENALTIES):
        shrunk = (squares / (squares + penalty * scale)).unsqueeze(1)
        inverse = (sizes / (squares + penalty * scale)).unsqueeze(1)
        hat = (basis * torch.cat([shrunk.new_ones(1, 1), shrunk]).T) @ basis.mT
        factors = torch.linalg.lu_factor(identity - hat)
        for image, one in enumerate(centred.unsqueeze(2)):  # each by itself: batch mates change no bit
            within = one - left @ (shrunk * (left.T @ one))
            others = torch.linalg.lu_solve(*factors, pad(within, padding).view(n_groups, group, 1)).view(-1, 1)
            others = others[:n_masks]
            if (error := float(others.square().sum())) < lowest[image]:
                lowest[image], residuals[image] = error, others.squeeze(1)
                slopes[image] = (right.T @ (inverse * (left.T @ (one - shares * others)))).squeeze(1)
    return LinearPart(residuals, slopes)
