"""Losses against the scores of a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0
) -> Tensor:
    """Kullback-Leibler divergence from softened teacher scores, times T^2 (arXiv:1503.02531)."""
    student = F.log_softmax(logits / temperature, 1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, 1)
    pixels = logits.shape[0] * logits.shape[2] * logits.shape[3]
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / pixels
