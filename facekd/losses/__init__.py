"""Pure functions of tensors: student, teacher, then the batch's facts; hyper-parameters by keyword; a scalar out.

Every loss takes raw embeddings, normalises them itself, computes in float32 or wider and sends no gradient to the
teacher. ``LOSSES`` finds them by the name a recipe uses.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from facekd.losses.adaptive import adadistill, margin_distillation
from facekd.losses.candidates import Neighbours
from facekd.losses.class_blocks import ClassShare
from facekd.losses.classifier import apply_margin, cosine_logits, margin_softmax
from facekd.losses.feature import cosine, l2, pad, residual, variance_weighted
from facekd.losses.logits import logit_kd, shared_head_kd
from facekd.losses.mixup import stkd, stkd_similarity
from facekd.losses.prime_aware import pad_logit, pad_relation
from facekd.losses.ranking import ekd
from facekd.losses.relation import cckd, pkt, rkd, sp
from facekd.losses.subset import SubsetTeacher, subset_kd, subset_l2
from facekd.losses.uncertainty import dul, dul_regression, pfe
from facekd.registry import Registry

LOSSES: Registry[Callable[..., Tensor]] = Registry("loss")
for _loss in (
    margin_softmax,
    l2,
    cosine,
    logit_kd,
    shared_head_kd,
    pad,
    cckd,
    rkd,
    pkt,
    sp,
    ekd,
    adadistill,
    margin_distillation,
    residual,
    stkd,
    stkd_similarity,
    pad_logit,
    pad_relation,
    dul,
    dul_regression,
    pfe,
    subset_kd,
    subset_l2,
):
    LOSSES.register(_loss.__name__)(_loss)

__all__ = [
    "ClassShare",
    "Neighbours",
    "SubsetTeacher",
    "subset_kd",
    "subset_l2",
    "LOSSES",
    "adadistill",
    "apply_margin",
    "cckd",
    "cosine",
    "cosine_logits",
    "dul",
    "dul_regression",
    "ekd",
    "l2",
    "logit_kd",
    "margin_distillation",
    "margin_softmax",
    "pad",
    "pad_logit",
    "pad_relation",
    "pfe",
    "pkt",
    "residual",
    "rkd",
    "shared_head_kd",
    "sp",
    "stkd",
    "stkd_similarity",
    "variance_weighted",
]
