"""What every model of ours is made of: stages, each with a body and an exit."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


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
