"""The models that can be trained by name; one family a file."""

from collections.abc import Callable
from dataclasses import replace

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.mobilenetv2 import MobileNetV2, MobileNetV2Config, make_divisible
from mqtt_mdi.models.resnet import ResNet, ResNetConfig
from mqtt_mdi.models.stage import Backbone
from mqtt_mdi.models.vgg import VGG, VGGConfig

Builder = Callable[[int, int, float, bool], Backbone]
"""Classes, channels, width (1.0 is the paper's) and whether pictures are small, to an untrained model."""

SMALL_PIXELS = 64
"""Pictures with shorter sides are small: the stem keeps their resolution."""


def _mobilenetv2(classes: int, channels: int, width: float, small: bool) -> MobileNetV2Config:  # noqa: FBT001
    # Small pictures have few classes to tell apart: half the paper's last channels do for them.
    last = make_divisible(640 * width) if small else make_divisible(1280 * max(1.0, width))
    return MobileNetV2Config(classes, channels, width, small_input=small, last_channels=last)


def _resnet18(classes: int, channels: int, width: float, small: bool) -> ResNetConfig:  # noqa: FBT001
    return ResNetConfig((2, 2, 2, 2), False, classes, channels, width, small)  # noqa: FBT003


def _resnet50(classes: int, channels: int, width: float, small: bool) -> ResNetConfig:  # noqa: FBT001
    return ResNetConfig((3, 4, 6, 3), True, classes, channels, width, small)  # noqa: FBT003


MODELS: dict[str, Builder] = {
    "mobilenetv2": lambda *chosen: MobileNetV2(_mobilenetv2(*chosen)),
    "resnet18": lambda *chosen: ResNet(_resnet18(*chosen)),
    "resnet50": lambda *chosen: ResNet(_resnet50(*chosen)),
    "vgg16": lambda *chosen: VGG(VGGConfig(*chosen)),
    # Without early exits: one stage, the control that a network with exits has to beat.
    "mobilenetv2-static": lambda *chosen: MobileNetV2(replace(_mobilenetv2(*chosen), cuts=())),
    "resnet18-static": lambda *chosen: ResNet(replace(_resnet18(*chosen), early=0)),
    "resnet50-static": lambda *chosen: ResNet(replace(_resnet50(*chosen), early=0)),
    "vgg16-static": lambda *chosen: VGG(replace(VGGConfig(*chosen), cuts=())),
}


def build(name: str, classes: int, channels: int, width: float, *, pixels: int = 32) -> Backbone:
    """Build an untrained model by name for pictures whose shorter side is `pixels`.

    Raises ConfigError for names that are not registered.
    """
    if name not in MODELS:
        raise ConfigError(f"no model {name!r}; known: {', '.join(sorted(MODELS))}")
    return MODELS[name](classes, channels, width, pixels < SMALL_PIXELS)
