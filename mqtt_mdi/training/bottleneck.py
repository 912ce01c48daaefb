"""A learned bottleneck at each cut: a stage sends a short code, the next one rebuilds the activation from it.

The autoencoder between the devices of MDI-Exit (Colocrese et al., arXiv 2408.05247), of few convolutions
trained with the task as in BottleNet (Eshratifar et al., arXiv 1902.01000).
"""

from collections.abc import Collection, Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.stage import Backbone, Stage

_INT8_SAVES = 4
_LIMIT = 4.0
"""Standard deviations of a code's channel that are kept; hardly any value lies beyond."""
_STEP = _LIMIT / 127
_DIMENSIONS = 3
_WIDE, _VERY_WIDE = 32, 64
"""Channels of a code with which pointwise convolutions are enough, and with which one to decode is."""


def bottleneck(shape: Sequence[int], ratio: float) -> tuple[nn.Module, nn.Module]:
    """An encoder of activations (C, H, W) to a code of few int8 numbers, and the decoder that rebuilds them.

    The code has `ratio` times fewer bytes than the activation in float32. Activations of many channels are
    redundant in those: their codes have fewer. Codes of others have half the height and width instead.
    Raises ConfigError for other shapes, and when no channel is left.
    """
    if len(shape) != _DIMENSIONS:
        raise ConfigError(f"an activation of shape {tuple(shape)} has no channels, height and width")
    channels, height, width = shape
    fewer = int(_INT8_SAVES * channels / ratio)
    if fewer >= _WIDE:
        encoder = _encoder(nn.Conv2d(channels, fewer, 1, bias=False))
        if fewer >= _VERY_WIDE:
            return encoder, nn.Conv2d(fewer, channels, 1)
        return encoder, _decoder(nn.Conv2d(fewer, 2 * channels, 1, bias=False), channels)
    room = _INT8_SAVES * channels * height * width / (ceil(height / 2) * ceil(width / 2))
    code = int(room / ratio)
    if code < 1:
        raise ConfigError(
            f"a bottleneck of {ratio:g} leaves nothing of an activation of shape {tuple(shape)}; choose at "
            f"most {int(room)}"
        )
    upsampling = nn.ConvTranspose2d(
        code, 2 * channels, 3, 2, 1, output_padding=(1 - height % 2, 1 - width % 2), bias=False
    )
    return _encoder(nn.Conv2d(channels, code, 3, 2, 1, bias=False)), _decoder(upsampling, channels)


def _encoder(convolution: nn.Conv2d) -> nn.Module:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels, affine=False), _Stepped())


def _decoder(widening: nn.Module, channels: int) -> nn.Module:
    """From what `widening` gives, of twice as many channels, to `channels`."""
    return nn.Sequential(
        widening,
        nn.BatchNorm2d(2 * channels),
        nn.ReLU6(inplace=True),
        nn.Conv2d(2 * channels, channels, 1),
    )


class _Stepped(nn.Module):
    """Values within the limits of int8 and, while training, in its steps.

    The gradient passes straight through the rounding (Bengio et al., arXiv 1308.3432). An exported graph
    rounds in its own QuantizeLinear.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(-_LIMIT, _LIMIT)
        return x + ((x / _STEP).round() * _STEP - x).detach() if self.training else x


class CodedStage(Stage):
    """A stage that decodes its input and encodes its activation; the exit sees it as it was."""

    def __init__(self, decoder: nn.Module, stage: Stage, encoder: nn.Module) -> None:
        super().__init__(nn.Sequential(decoder, stage.body), stage.head)
        self.encoder = encoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Code (N, c, h, w) -> the next code and logits (N, classes)."""
        activation, logits = super().forward(x)
        return self.encoder(activation), logits


class Bottlenecked(nn.Module):
    """A trained network, left as it is, with bottlenecks at its cuts to be trained."""

    def __init__(
        self, network: Backbone, shape: Sequence[int], ratio: float, cuts: Collection[int] | None = None
    ) -> None:
        """For inputs (C, H, W); `cuts` are the stages that send codes, from 1; all by default.

        Raises ConfigError where a bottleneck does not fit.
        """
        super().__init__()
        stages = network.stages()[:-1]
        if not stages:
            raise ConfigError("a network of one stage sends nothing that a bottleneck could shorten")
        every = range(1, len(stages) + 1)
        chosen = sorted(every if cuts is None else cuts)
        if not chosen or not set(chosen) <= set(every):
            raise ConfigError(
                f"bottlenecks after stages {chosen}: the stages that send are 1 to {len(stages)}"
            )
        self.config = f"{getattr(network, 'config', '')}, bottleneck {ratio:g} at {chosen}"
        self.network = network.eval().requires_grad_(requires_grad=False)
        activation = torch.zeros(1, *shape)
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        for number, stage in enumerate(stages, start=1):
            with torch.no_grad():
                activation, _ = stage(activation)
            coded = number in chosen
            encoder, decoder = (
                bottleneck(activation.shape[1:], ratio) if coded else (nn.Identity(), nn.Identity())
            )
            self.encoders.append(encoder)
            self.decoders.append(decoder)

    def train(self, mode: bool = True) -> "Bottlenecked":  # noqa: FBT001, FBT002 -- torch's signature
        """Train the bottlenecks; the network's batch normalisation stays as it is."""
        super().train(mode)
        self.network.eval()
        return self

    def stages(self) -> list[Stage]:
        """The stages in order, which send codes."""
        decoders, encoders = [nn.Identity(), *self.decoders], [*self.encoders, nn.Identity()]
        return [
            CodedStage(decoder, stage, encoder)
            for decoder, stage, encoder in zip(decoders, self.network.stages(), encoders, strict=True)
        ]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits of every exit, first to last: K tensors of shape (N, classes).

        While training, what `imitation` needs: logits of the exits behind a bottleneck, those of the same
        exits without any, and how far what each bottleneck rebuilds is off, as a share of the variance.
        """
        if not self.training:
            logits = []
            for stage in self.stages():
                x, said = stage(x)
                logits.append(said)
            return logits
        first, *rest = self.network.stages()
        with torch.no_grad():
            plain, _ = first(x)
        rebuilt, students, teachers, errors = plain, [], [], []
        for stage, encoder, decoder in zip(rest, self.encoders, self.decoders, strict=True):
            rebuilt = decoder(encoder(rebuilt))
            errors.append(functional.mse_loss(rebuilt, plain) / plain.var().clamp_min(1e-6))
            with torch.no_grad():
                plain, taught = stage(plain)
            rebuilt, said = stage(rebuilt)
            students.append(said)
            teachers.append(taught)
        return [*students, *teachers, *errors]


def imitation(outputs: list[Tensor], _labels: Tensor) -> Tensor:
    """How far exits and activations are from those of the network without bottlenecks.

    Knowledge distillation (Hinton et al., arXiv 1503.02531) from each exit to itself, so that scores stay
    calibrated, and the error of what is rebuilt.
    """
    count = len(outputs) // 3
    students, teachers, errors = (outputs[k * count : (k + 1) * count] for k in range(3))
    loss = torch.stack(errors).sum()
    for said, taught in zip(students, teachers, strict=True):
        loss = loss + functional.kl_div(
            functional.log_softmax(said, dim=1), functional.softmax(taught, dim=1), reduction="batchmean"
        )
    return loss
