"""Losses against the scores of a teacher, and the scores of several teachers as those of one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

_TEMPERATURE = 2.0


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = _TEMPERATURE
) -> Tensor:
    """Kullback-Leibler divergence from softened teacher scores, times T^2 (arXiv:1503.02531)."""
    student = F.log_softmax(logits / temperature, 1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, 1)
    pixels = logits.shape[0] * logits.shape[2] * logits.shape[3]
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / pixels


def ensemble_logits(scores: Tensor, *, temperature: float = _TEMPERATURE) -> Tensor:
    """Returns the scores whose softened probabilities are the mean of those of several teachers.

    ``z = T log mean_i softmax(z_i / T) + mean_i T log sum_k exp(z_ik / T)``

    arXiv:1503.02531 allows the arithmetic or the geometric mean of the teachers' probabilities. The
    arithmetic mean is the prediction of the ensemble itself, whose confidence is honest
    (arXiv:1612.01474): where teachers contradict each other it stays undecided. The geometric mean,
    which is the mean of the scores, lets the one that is surest decide, and a single teacher that
    excludes a class excludes it for all. The mean is taken at the temperature of
    :func:`distillation_loss`, which so gets exactly the mean of what it would get from each. The
    second term has no influence on probabilities; it keeps the level of the scores, so that equal
    teachers give the scores of one, which a squared distance of scores needs.

    Args:
        scores: (M, N, K, h, w) scores of M teachers.
        temperature: T.

    Returns:
        (N, K, h, w).
    """
    softened = scores / temperature
    levels = softened.logsumexp(2, keepdim=True)
    mean = (softened - levels).logsumexp(0) - math.log(len(scores))
    return temperature * (mean + levels.mean(0))
