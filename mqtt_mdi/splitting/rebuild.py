"""From `package.module:build`, or from a bundle, to the network that it stands for."""

import sys
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.bundle.written import WEIGHTS_FILE
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.rebuild import load_weights, network_of
from mqtt_mdi.splitting.module import place_of
from mqtt_mdi.splitting.tapped import Split, TappedModel


def built(network: str) -> nn.Module:
    """Import and call `package.module:build`, also from the current folder; raises ConfigError."""
    module, colon, function = network.partition(":")
    if not (module and colon and function):
        raise ConfigError(
            f"{network!r} is no network: expected package.module:build, or a file that ends in .onnx"
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        given = getattr(import_module(module), function)()
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{network} cannot be built: {type(error).__name__}: {said}{place_of(error)}; expected a "
            "function without arguments that returns a torch.nn.Module"
        ) from error
    if not isinstance(given, nn.Module) or isinstance(given, torch.jit.ScriptModule):
        raise ConfigError(
            f"{network} gives {type(given).__name__}, expected a torch.nn.Module as it was before torch.jit"
        )
    return given


def trained_network_of(folder: Path, manifest: Manifest) -> nn.Module:
    """The network that `mqtt-mdi train`, or `split` from a torch module, has written a bundle of.

    Called with pictures (N, C, H, W) it gives the logits of every exit. Raises BundleError, or ConfigError
    when the module that was split cannot be built.
    """
    recipe, path = manifest.trained.recipe, folder / WEIGHTS_FILE
    if "network" not in recipe or not path.exists():
        return network_of(folder, manifest)
    split = Split(
        str(recipe["network"]), tuple(str(recipe["cuts"]).split(",")), str(recipe.get("last", "")) or None
    )
    example = torch.zeros(2, *manifest.input.shape)
    network = TappedModel(built(split.network), split, example, len(manifest.classes))
    load_weights(network, path, split.network)
    return network
