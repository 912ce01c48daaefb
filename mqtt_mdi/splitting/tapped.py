"""An ordinary module with exits at its cuts, to be trained whole and exported stage by stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.stage import Stage
from mqtt_mdi.splitting.heads import ExitHead, head_for
from mqtt_mdi.splitting.module import listening, split_module, taps

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Split:
    """Where a network is cut: after each of `cuts`, and for good after `last` if that is given.

    Without `last` the last stage ends with what the network gives itself, taken as logits.
    """

    network: str
    cuts: tuple[str, ...]
    last: str | None = None


class TappedModel(nn.Module):
    """A StagedModel of any module that torch.export can follow; it is called, and trained, uncut."""

    def __init__(self, module: nn.Module, split: Split, example: Tensor, classes: int) -> None:
        """Attach exits; `example` is an input (N, C, H, W), N >= 2.

        Raises ConfigError for cuts that do not fit.
        """
        super().__init__()
        self.config = split
        self.module = module
        self.example = example
        found, given = taps(module, example, [*split.cuts, *([split.last] if split.last else [])])
        self.layers = [tap.layer for tap in found]
        if split.last and self.layers[-1] != split.last:
            raise ConfigError(
                f"--cut {self.layers[-1]} runs after --last {split.last}, where the network ends"
            )
        if not split.last:
            _check_logits(module, given, (len(example), classes))
        self.heads = nn.ModuleList(head_for(tap.shape, classes) for tap in found)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Input (N, C, H, W) -> logits of every exit, K times (N, classes)."""
        said, given = self._heard(x, lambda head, activation: head(activation))
        if self.config.last:
            return said
        if not isinstance(given, Tensor):
            raise ConfigError(
                f"{self.config.network} gives {type(given).__name__} while it is trained, expected logits: "
                "switch its auxiliary outputs off, or name its last layer with --last"
            )
        return [*said, given]

    def stages(self) -> list[Stage]:
        """The stages in order, in evaluation mode, sharing the model's parameters; raises ConfigError."""
        heads = [*self.heads] if self.config.last else [*self.heads, nn.Identity()]
        cuts = self.layers[: len(heads) - 1]
        bodies = split_module(self.module, self.example, cuts, self.config.last)
        if len(bodies) < len(heads):
            raise ConfigError(
                f"--cut {cuts[-1]} is where the network ends: leave it out, or name it with --last"
            )
        stages = [Stage(body, head) for body, head in zip(bodies, heads, strict=True)]
        self._check_equal(stages)
        return stages

    @torch.no_grad()
    def features(
        self, pictures: Tensor, normalise: Normalisation, progress: Progress, batch: int = 100
    ) -> list[Tensor]:
        """What each added exit pools of pictures (N, C, H, W) uint8, in evaluation mode: K times (N, C)."""
        self.eval()
        parts = []
        for part in torch.split(pictures, batch):
            parts.append(self._heard(normalise(part), lambda head, activation: head.pool(activation))[0])
            progress(sum(len(done[0]) for done in parts), len(pictures))
        return [torch.cat(exit_) for exit_ in zip(*parts, strict=True)]

    def _heard(self, x: Tensor, use: Callable[[ExitHead, Tensor], Tensor]) -> tuple[list[Tensor], Any]:
        # Each exit is used while its layer has just run: a later layer may work in place.
        said: list[Tensor] = []

        def hear(_layer: str, activation: Tensor) -> None:
            head = self.heads[len(said)]
            assert isinstance(head, ExitHead)
            said.append(use(head, activation))

        with listening(self.module, self.layers, hear):
            given = self.module(x)
        return said, given

    @torch.no_grad()
    def _check_equal(self, stages: list[Stage]) -> None:
        training = self.training
        whole = self.eval()(self.example)
        self.train(training)
        activations = torch.split(self.example, 1)  # one by one, as devices run them
        for name, stage, expected in zip([*self.layers, "the output"], stages, whole, strict=False):
            given = [stage.eval()(activation.clone()) for activation in activations]
            activations = tuple(activation for activation, _ in given)
            logits = torch.cat([said for _, said in given])
            allowed = _TOLERANCE * float(expected.abs().max())
            if not torch.allclose(logits, expected, rtol=_TOLERANCE, atol=allowed):
                raise ConfigError(
                    f"cut, and for one picture at a time, the network gives other values at {name} than "
                    f"uncut, by up to {float((logits - expected).abs().max()):.2g}: something goes around a "
                    "layer where it is cut, or forward() mixes the pictures of a batch, draws numbers or "
                    "keeps a state; cut elsewhere or change it"
                )


def _check_logits(module: nn.Module, given: object, shape: tuple[int, int]) -> None:
    if isinstance(given, Tensor) and given.shape == shape:
        return
    what = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
    leaves = [name for name, layer in module.named_modules() if name and not any(layer.children())]
    raise ConfigError(
        f"{type(module).__name__} gives {what} for {shape[0]} pictures of {shape[1]} classes; name the layer "
        f"before its classifier with --last, and that gets a new exit. Its last layers: "
        f"{', '.join(leaves[-5:])}"
    )
