"""The models that can be trained by name; one family a file."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.mobilenetv2 import MobileNetV2, MobileNetV2Config, make_divisible

Builder = Callable[[int, int, float], nn.Module]
"""Classes, channels and width (1.0 is the paper's) to an untrained StagedModel."""


def _mobilenetv2(classes: int, channels: int, width: float) -> nn.Module:
    return MobileNetV2(_config(classes, channels, width))


def _static_mobilenetv2(classes: int, channels: int, width: float) -> nn.Module:
    """Without early exits: one stage, the control that a network with exits has to beat."""
    return MobileNetV2(replace(_config(classes, channels, width), cuts=()))


def _config(classes: int, channels: int, width: float) -> MobileNetV2Config:
    # Half the paper's 1280 last channels at width 1: small pictures have few classes to tell apart.
    last = make_divisible(640 * width)
    return MobileNetV2Config(classes=classes, channels=channels, width=width, last_channels=last)


MODELS: dict[str, Builder] = {"mobilenetv2": _mobilenetv2, "mobilenetv2-static": _static_mobilenetv2}


def build(name: str, classes: int, channels: int, width: float) -> nn.Module:
    """Build an untrained model by name; raises ConfigError for names that are not registered."""
    if name not in MODELS:
        raise ConfigError(f"no model {name!r}; known: {', '.join(sorted(MODELS))}")
    return MODELS[name](classes, channels, width)
