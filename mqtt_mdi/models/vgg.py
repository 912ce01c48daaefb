"""Multi-exit VGG-16 (Simonyan and Zisserman, arXiv 1409.1556), with torchvision's names of vgg16_bn."""

from dataclasses import dataclass

from torch import nn

from mqtt_mdi.models.stage import Backbone, ExitHead, GlobalPool, Stage

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of the five blocks: column D of table 1; a pooling ends each."""


@dataclass(frozen=True)
class VGGConfig:
    """What varies; a stage ends after the pooling of each block numbered in `cuts` and carries an exit.

    `small_input` replaces the classifier for 7x7 features by one for the mean over space.
    """

    classes: int = 10
    channels: int = 3
    width: float = 1.0
    small_input: bool = True
    cuts: tuple[int, ...] = (2, 3, 4)
    dropout: float = 0.5


class VGG(Backbone):
    """VGG-16 with batch normalisation; `features` and `classifier` carry torchvision's names."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        outputs = []
        inputs = config.channels
        for base, count in _BLOCKS:
            channels = max(8, round(base * config.width))
            for _ in range(count):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
                inputs = channels
            # Rounding up makes no difference at 32 pixels and leaves something of smaller pictures.
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=config.small_input))
            self.ends.append(len(layers))
            outputs.append(channels)
        self.features = nn.Sequential(*layers)
        hidden = max(8, round((512 if config.small_input else 4096) * config.width))
        self.avgpool = (
            GlobalPool() if config.small_input else nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten())
        )
        self.classifier = nn.Sequential(
            nn.Linear(inputs * (1 if config.small_input else 49), hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, config.classes),
        )
        self.exits = nn.ModuleList(
            ExitHead(outputs[cut - 1], max(64, outputs[cut - 1]), config.classes, 0.0) for cut in config.cuts
        )
        self.draw_weights()

    def stages(self) -> list[Stage]:
        """The stages in order, each mapping its input to (activation, logits)."""
        bounds = [0, *(self.ends[cut - 1] for cut in self.config.cuts)]
        early = [
            Stage(self.features[start:end], head)
            for start, end, head in zip(bounds, bounds[1:], self.exits, strict=False)
        ]
        last = Stage(self.features[bounds[-1] :], nn.Sequential(self.avgpool, self.classifier))
        return [*early, last]
