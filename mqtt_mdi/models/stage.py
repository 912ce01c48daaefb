"""What every model of ours is made of: stages, each with a body and an exit."""

import operator
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

_CHANNEL_AXES = 2
"""Those of a convolution's weights, (outputs, inputs, H, W), that count channels."""


class GlobalPool(nn.Module):
    """Mean over space."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return x.mean((2, 3))


class Stage(nn.Module):
    """Layers between two exits (`body`), and the exit that ends them (`head`)."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input (N, C, H, W) -> activation (N, C', H', W') and logits (N, classes)."""
        activation: Tensor = self.body(x)
        return activation, self.head(activation)


@runtime_checkable
class StagedModel(Protocol):
    """A module that can be cut into stages; called whole, it gives the logits of every exit."""

    def stages(self) -> list[Stage]:
        """The stages in order, sharing the model's parameters."""
        ...


class ExitHead(nn.Module):
    """An early exit: (N, C, H, W) -> logits (N, classes).

    One pointwise convolution widens the features before pooling, as MobileNetV2's own last convolution
    does, so that an early exit is a small classifier and not a bare linear probe.
    """

    def __init__(self, inputs: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> logits (N, classes)."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def _holds(large: Sequence[int], small: Sequence[int]) -> bool:
    return len(large) == len(small) and all(map(operator.ge, large, small))


def selected(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Take a part of `shape` from a larger tensor: evenly spaced channels, and the middle of kernels.

    Weight selection (Xu et al., arXiv 2311.18823), section 3, "uniform": tensors of equally many channels
    lose the same ones, so that what is left fits together.
    """
    for axis, (have, want) in enumerate(zip(value.shape, shape, strict=True)):
        if axis < _CHANNEL_AXES:
            value = value.index_select(axis, torch.linspace(0, have - 1, want).round().long())
        else:
            value = value.narrow(axis, (have - want) // 2, want)
    return value


class Backbone(nn.Module):
    """A network of torchvision's layout whose early exits lie in `exits`, outside its names."""

    exits: nn.ModuleList

    def stages(self) -> list[Stage]:
        """The stages in order, each mapping its input to (activation, logits)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits of every exit, first to last: K tensors of shape (N, classes)."""
        logits = []
        for stage in self.stages():
            x, out = stage(x)
            logits.append(out)
        return logits

    def load_backbone(self, state: Mapping[str, Tensor]) -> Sequence[str]:
        """Load a state dictionary with torchvision's names, of this network or a wider one.

        Of a wider one's tensors a part is taken: see `selected`. Linear layers of other shapes, as for
        another number of classes, and tensors that are narrower are left as they are and their names
        returned.
        """
        own = self.state_dict()
        linear = tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, nn.Linear))
        taken = {}
        for name in own.keys() & state.keys():
            given, wanted = state[name], own[name].shape
            if given.shape == wanted or (_holds(given.shape, wanted) and not name.startswith(linear)):
                taken[name] = selected(given, wanted)
        self.load_state_dict(taken, strict=False)
        return sorted(name for name in own if not name.startswith("exits.") and name not in taken)

    def draw_weights(self) -> None:
        """Draw all weights anew: He et al., arXiv 1502.01852, for convolutions; small ones for the rest."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
