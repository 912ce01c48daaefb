"""Multi-exit MobileNetV2 (Sandler et al., arXiv 1801.04381), with torchvision's parameter names."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from mqtt_mdi.models.stage import Backbone, ExitHead, GlobalPool, Stage


class BlockRow(NamedTuple):
    """One row of table 2 of the paper: expansion t, channels c, repeats n, first stride s."""

    t: int
    c: int
    n: int
    s: int


@dataclass(frozen=True)
class MobileNetV2Config:
    """What varies between members of the family.

    `cuts` are indices into `features`: a stage ends after each of them, and carries an exit.
    `small_input` keeps the resolution in the stem, as is usual for pictures of about 32 pixels.
    """

    classes: int = 10
    channels: int = 3
    width: float = 1.0
    small_input: bool = True
    last_channels: int = 1280
    cuts: tuple[int, ...] = (3, 6, 13)
    dropout: float = 0.2


def rows(config: MobileNetV2Config) -> list[BlockRow]:
    """Table 2 of the paper; small inputs are not halved by the stem."""
    return [
        BlockRow(1, 16, 1, 1),
        BlockRow(6, 24, 2, 2),
        BlockRow(6, 32, 3, 1 if config.small_input else 2),
        BlockRow(6, 64, 4, 2),
        BlockRow(6, 96, 3, 1),
        BlockRow(6, 160, 3, 2),
        BlockRow(6, 320, 1, 1),
    ]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of `divisor`, never by more than a tenth downwards."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch normalisation and ReLU6: (N, inputs, H, W) -> (N, outputs, H/s, W/s)."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    ]


class InvertedResidual(nn.Module):
    """The bottleneck block of section 3.3: expand, filter depthwise, project linearly."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(nn.Sequential(*conv_bn(inputs, hidden, 1)))
        layers.append(nn.Sequential(*conv_bn(hidden, hidden, 3, stride, groups=hidden)))
        layers.append(nn.Conv2d(hidden, outputs, 1, bias=False))
        layers.append(nn.BatchNorm2d(outputs))
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(Backbone):
    """MobileNetV2 whose `features` are cut into stages, each followed by an exit.

    `features` and `classifier` carry torchvision's names, so its state dictionaries load with
    `load_backbone`; the early exits lie in `exits`.
    """

    def __init__(self, config: MobileNetV2Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        channels = make_divisible(32 * width)
        features: list[nn.Module] = [
            nn.Sequential(*conv_bn(config.channels, channels, 3, 1 if config.small_input else 2))
        ]
        outputs = [channels]
        for row in rows(config):
            for index in range(row.n):
                out = make_divisible(row.c * width)
                features.append(InvertedResidual(channels, out, row.s if index == 0 else 1, row.t))
                channels = out
                outputs.append(out)
        features.append(nn.Sequential(*conv_bn(channels, config.last_channels, 1)))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.last_channels, config.classes)
        )
        self.exits = nn.ModuleList(
            ExitHead(outputs[cut], max(64, 2 * outputs[cut]), config.classes, config.dropout)
            for cut in config.cuts
        )
        self.draw_weights()

    def stages(self) -> list[Stage]:
        """The stages in order, each mapping its input to (activation, logits)."""
        bounds = [0, *(cut + 1 for cut in self.config.cuts)]
        early = [
            Stage(self.features[start:end], head)
            for start, end, head in zip(bounds, bounds[1:], self.exits, strict=False)
        ]
        last = Stage(self.features[bounds[-1] :], nn.Sequential(GlobalPool(), self.classifier))
        return [*early, last]
