"""The engine for comparison: a stage as a torch module, run as it is or compiled by TorchScript."""

import warnings
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mqtt_mdi.bundle.manifest import StageSpec
from mqtt_mdi.engine.base import StageOutput, check_inputs, check_scores

Mode = Literal["eager", "script"]


class _Answers(nn.Module):
    """A stage whose exit answers with score and label; TorchScript wants a module to trace."""

    def __init__(self, stage: nn.Module, temperature: float) -> None:
        super().__init__()
        self.stage = stage
        self.temperature = temperature

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        activation, logits = self.stage(x)
        scores, labels = torch.softmax(logits / self.temperature, dim=1).max(dim=1)
        return activation, scores, labels


class TorchStage:
    """A stage in torch: `stage` maps an input (N, ...) to its activation and logits (N, classes).

    It uses torch's own number of threads. Its numbers differ from the graph's in the last places.
    """

    def __init__(self, stage: nn.Module, spec: StageSpec, mode: Mode = "eager") -> None:
        self.spec = spec
        self._run: Any = _Answers(stage, spec.temperature).eval()
        if mode == "script":
            example = torch.zeros(1, *spec.input_shape)
            with torch.inference_mode(), warnings.catch_warnings():
                # TorchScript is what it is compared with, though torch has moved on.
                warnings.simplefilter("ignore", DeprecationWarning)
                traced = torch.jit.trace(self._run, example)  # type: ignore[no-untyped-call]
                self._run = torch.jit.optimize_for_inference(torch.jit.freeze(traced))

    def run(self, inputs: NDArray[Any]) -> StageOutput:
        """Run the stage; see Engine.run."""
        check_inputs(inputs, self.spec)
        with torch.inference_mode():
            activation, scores, labels = self._run(torch.from_numpy(inputs))
        check_scores(scores.numpy(), inputs, self.spec)
        sent = None if self.spec.output_shape is None else activation.numpy()
        return StageOutput(sent, scores.numpy(), labels.numpy())
