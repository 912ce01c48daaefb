"""Calibration of exits, so that a score says how often its answer is right."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.errors import ConfigError

_SHARPEST, _FLATTEST = 20.0, 0.05


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The temperature T that makes softmax(logits / T) most likely on held-out samples.

    Temperature scaling as in Guo et al., arXiv 1706.04599, section 4.2. The negative log likelihood of
    logits (N, classes) and labels (N,) is convex in 1 / T, so halving an interval on the sign of its
    slope finds the minimum. T is kept within 0.05..20.
    """
    if len(labels) == 0 or not np.isfinite(logits).all():
        raise ConfigError("calibration needs samples with finite logits: hold some out, or train again")
    z = logits.astype(np.float64)
    right = z[np.arange(len(labels)), labels].mean()
    low, high = _FLATTEST, _SHARPEST
    for _ in range(60):
        inverse = (low + high) / 2
        weights = np.exp(inverse * (z - z.max(axis=1, keepdims=True)))
        expected = ((weights * z).sum(axis=1) / weights.sum(axis=1)).mean()
        low, high = (inverse, high) if expected < right else (low, inverse)
    return float(2 / (low + high))


def calibration_error(scores: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error of scores (N,) in 0..1: equation 3 of Guo et al., equal-width bins."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=scores.astype(np.float64) - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


@torch.no_grad()
def logits_of(model: nn.Module, pictures: Tensor, normalise: Normalisation, batch: int = 100) -> Tensor:
    """Logits of every exit for pictures (N, C, H, W) uint8: (K, N, classes), on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    parts = [torch.stack(model(normalise(part.to(device)))).cpu() for part in torch.split(pictures, batch)]
    return torch.cat(parts, dim=1)
