"""What the logits of a classifier say about it."""

from __future__ import annotations

import torch
from torch import Tensor

from ddoq.errors import StageError

_NUM_BINS = 15


def classification_metrics(logits: Tensor, labels: Tensor) -> dict:
    """Return accuracy and calibration over a test set, as plain Python values.

    Args:
        logits: ``[n, C]``.
        labels: ``[n]``, from 0 to C - 1.

    Returns:
        ``top1`` and ``top5``, fractions (``top5`` is ``None`` for up to five classes, where it
        would be 1); ``ece``, a fraction; ``nll``, the mean negative log-likelihood in nats;
        ``per_class``, top-1 by class, a fraction each, ``None`` for a class without images.

    Raises:
        StageError: the logits are NaN or infinite.
    """
    if not logits.isfinite().all():
        raise StageError(
            "evaluate: the student's outputs are NaN or infinite", "lower protocol.learning_rate"
        )
    logits, labels = logits.detach().cpu().float(), labels.detach().cpu()
    num_classes = logits.shape[1]
    predicted = logits.argmax(1)
    correct = (predicted == labels).double()
    log_probabilities = logits.log_softmax(1)
    confidence = log_probabilities.gather(1, predicted[:, None])[:, 0].double().exp()
    top5 = None
    if num_classes > 5:
        top5 = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    hits = torch.bincount(labels, correct, minlength=num_classes).tolist()
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    return {
        "top1": correct.mean().item(),
        "top5": top5,
        "ece": _calibration_error(confidence, correct),
        "nll": -log_probabilities.gather(1, labels[:, None]).double().mean().item(),
        "per_class": [
            hit / count if count else None for hit, count in zip(hits, counts, strict=True)
        ],
    }


def _calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Return the expected calibration error (Guo et al. 2017), bins of equal width,
    each with its upper edge.
    """
    # torchmetrics has a bin of its own for a confidence of exactly 1, which is common in float32:
    # not this definition.
    inner_edges = torch.linspace(0, 1, _NUM_BINS + 1, dtype=confidence.dtype)[1:-1]
    gaps = torch.bincount(torch.bucketize(confidence, inner_edges), correct - confidence)
    return (gaps.abs().sum() / len(confidence)).item()
