"""From a bundle back to the network that it was exported from."""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.bundle.written import WEIGHTS_FILE
from mqtt_mdi.errors import BundleError
from mqtt_mdi.models.registry import build
from mqtt_mdi.models.stage import Backbone


def network_of(folder: Path, manifest: Manifest) -> Backbone:
    """The network that a bundle was exported from, built from its recipe and its weights.

    Raises BundleError for a bundle that does not say how, or holds weights of something else.
    """
    recipe, path = manifest.trained.recipe, folder / WEIGHTS_FILE
    if "bottleneck" in recipe:
        raise BundleError(f"{folder} has bottlenecks already; take the bundle that it was made from")
    if "model" not in recipe or not path.exists():
        raise BundleError(
            f"{folder} cannot be trained on: its manifest names no model, or {WEIGHTS_FILE} is missing; "
            "expected a bundle that `mqtt-mdi train` has written"
        )
    network = build(
        str(recipe["model"]),
        len(manifest.classes),
        manifest.input.channels,
        float(recipe.get("width", 1.0)),
        pixels=min(manifest.input.height, manifest.input.width),
    )
    load_weights(network, path, str(recipe["model"]))
    return network


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Load a bundle's weights into the network that it names; raises BundleError when they do not fit."""
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:  # each reader raises errors of its own
        raise BundleError(f"{path} does not fit {name}: {str(error)[:300]}") from error
