"""An exit for any activation, and its training on features that a frozen network gives once."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mqtt_mdi.errors import ConfigError

_HIDDEN = 128
_DROPOUT = 0.3
_WEIGHT_DECAY = 1e-2
_LEARNING_RATE = 2e-3

EpochDone = Callable[[int, float], None]
"""Called after each epoch with its number, from 0, and the mean loss."""


class ExitHead(nn.Module):
    """Pools an activation, which takes no weights, and classifies what is left with one hidden layer.

    Maps (N, C, H, W) are pooled to each channel's mean, tokens (N, T, C) to their mean, vectors (N, C) not
    at all.
    """

    def __init__(self, features: int, classes: int) -> None:
        """Classify activations of so many `features`, C."""
        super().__init__()
        self.normalise = nn.BatchNorm1d(features)
        self.hidden = nn.Linear(features, _HIDDEN)
        self.dropout = nn.Dropout(_DROPOUT)
        self.logits = nn.Linear(_HIDDEN, classes)

    def pool(self, activation: Tensor) -> Tensor:
        """(N, C, H, W), (N, T, C) or (N, C) -> (N, C)."""
        if activation.ndim == 4:  # noqa: PLR2004 -- maps
            return activation.mean((2, 3))
        return activation.mean(1) if activation.ndim == 3 else activation  # noqa: PLR2004 -- tokens

    def classify(self, features: Tensor) -> Tensor:
        """(N, C) -> logits (N, classes)."""
        hidden = functional.relu(self.hidden(self.normalise(features)))
        logits: Tensor = self.logits(self.dropout(hidden))
        return logits

    def forward(self, activation: Tensor) -> Tensor:
        """An activation -> logits (N, classes)."""
        return self.classify(self.pool(activation))


def head_for(shape: Sequence[int], classes: int) -> ExitHead:
    """An exit for activations of `shape`, that of one sample: (C, H, W), (T, C) or (C,)."""
    return ExitHead(shape[0] if len(shape) == 3 else shape[-1], classes)  # noqa: PLR2004 -- maps


def fit_heads(  # noqa: PLR0913 -- each is an independent choice of the caller
    heads: Sequence[ExitHead],
    features: Sequence[Tensor],
    labels: Tensor,
    *,
    epochs: int,
    batch: int,
    seed: int,
    done: EpochDone,
) -> None:
    """Train each exit on its features (N, C), which its `pool` gave, and labels (N,).

    AdamW (Loshchilov and Hutter, arXiv 1711.05101) with half a cosine down to zero, all exits side by side:
    they share nothing, so each ends as if trained alone. Raises ConfigError for too few samples.
    """
    steps = len(labels) // batch
    if not steps:
        raise ConfigError(f"{len(labels)} samples do not fill a batch of {batch}; choose a smaller --batch")
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for head in heads for parameter in head.parameters()]
    optimizer = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    for head in heads:
        head.train()
    for epoch in range(epochs):
        order, total = torch.randperm(len(labels), generator=generator), 0.0
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            share = (epoch * steps + step) / (epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * share))
            loss = torch.stack(
                [
                    functional.cross_entropy(head.classify(known[chosen]), labels[chosen])
                    for head, known in zip(heads, features, strict=True)
                ]
            ).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach())
        done(epoch, total / steps / len(heads))
    for head in heads:
        head.eval()
