"""Multi-exit ResNet (He et al., arXiv 1512.03385), with torchvision's parameter names."""

from dataclasses import dataclass

from torch import Tensor, nn

from mqtt_mdi.models.stage import Backbone, ExitHead, GlobalPool, Stage


@dataclass(frozen=True)
class ResNetConfig:
    """What varies between members of the family: table 1 of the paper.

    `blocks` counts the blocks of the four layers; `bottleneck` takes the blocks of figure 5, right.
    `small_input` keeps the resolution in the stem, as section 4.2 does for pictures of 32 pixels. A stage
    ends after each of the first `early` layers and carries an exit.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool
    classes: int = 10
    channels: int = 3
    width: float = 1.0
    small_input: bool = True
    early: int = 3
    dropout: float = 0.0


class BasicBlock(nn.Module):
    """Two convolutions of 3x3 and a shortcut: figure 5, left."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, planes, H/stride, W/stride)."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.downsample(x))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 and a shortcut: figure 5, right, with the stride in the middle."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 4 * planes, H/stride, W/stride)."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))  # type: ignore[no-any-return]


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or a projection where the shape changes (option B of section 3.3)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(Backbone):
    """ResNet cut after its layers; all but `exits` carries torchvision's names."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        block = Bottleneck if config.bottleneck else BasicBlock
        base = max(8, round(64 * config.width))
        kernel, stride = (3, 1) if config.small_input else (7, 2)
        self.conv1 = nn.Conv2d(config.channels, base, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if config.small_input else nn.MaxPool2d(3, 2, 1)
        inputs, outputs = base, []
        for index, count in enumerate(config.blocks):
            planes = base * 2**index
            layer = []
            for place in range(count):
                layer.append(block(inputs, planes, 2 if index and not place else 1))
                inputs = planes * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*layer))
            outputs.append(inputs)
        self.fc = nn.Linear(inputs, config.classes)
        self.exits = nn.ModuleList(
            ExitHead(channels, max(64, channels // 2), config.classes, config.dropout)
            for channels in outputs[: config.early]
        )
        self.draw_weights()

    def stages(self) -> list[Stage]:
        """The stages in order, each mapping its input to (activation, logits)."""
        stem = [self.conv1, self.bn1, self.relu, self.maxpool]
        layers = [self.get_submodule(f"layer{n + 1}") for n in range(4)]
        early = self.config.early
        if not early:
            return [Stage(nn.Sequential(*stem, *layers), nn.Sequential(GlobalPool(), self.fc))]
        first = Stage(nn.Sequential(*stem, layers[0]), self.exits[0])
        middle = [Stage(layers[n], self.exits[n]) for n in range(1, early)]
        last = Stage(nn.Sequential(*layers[early:]), nn.Sequential(GlobalPool(), self.fc))
        return [first, *middle, last]
