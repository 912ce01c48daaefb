"""The state of a training run on disk, and whether it is of the same run."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn

from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.training.recipe import Recipe

_CHUNK = 1000


class Run(TypedDict):
    """What a run begins with: all that decides how it ends."""

    recipe: dict[str, Any]
    model: str
    weights: str
    data: str


def run_of(recipe: Recipe, model: nn.Module, samples: Labelled, normalise: Normalisation) -> Run:
    """Describe a run before its first step; weights and data by their hash."""
    count = len(samples.labels)
    chunks = (samples.pictures[start : start + _CHUNK] for start in range(0, count, _CHUNK))
    return Run(
        recipe=asdict(recipe),
        model=repr(getattr(model, "config", type(model).__name__)),
        weights=_hash(
            value.cpu().flatten().view(torch.uint8).numpy() for value in model.state_dict().values()
        ),
        data=_hash((np.array(normalise.mean), np.array(normalise.std), samples.labels, *chunks)),
    )


def _hash(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    said = hashlib.sha256()
    for array in arrays:
        said.update(f"{array.dtype}{array.shape}".encode())
        said.update(np.ascontiguousarray(array).data)
    return said.hexdigest()


def load_checkpoint(path: Path, run: Run) -> dict[str, Any] | None:
    """The state after the last epoch of this run, None if there is none.

    Raises ConfigError for a file that cannot be read or is of another run.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        kept: Run = state["run"]
        others = [
            f"{name.replace('_', '-')} was {kept['recipe'].get(name)}, is {now}"
            for name, now in run["recipe"].items()
            if kept["recipe"].get(name) != now
        ]
        if kept["model"] != run["model"]:
            others.append(f"the network was {kept['model']}, is {run['model']}")
        elif kept["weights"] != run["weights"]:
            others.append("the network began with other weights")
        if kept["data"] != run["data"]:
            others.append("it learned from other pictures, or they were normalised otherwise")
    except Exception as error:  # a damaged file raises all sorts
        raise ConfigError(
            f"cannot resume from {path}: it is damaged, or no checkpoint ({type(error).__name__}); delete it "
            "to start afresh"
        ) from error
    if others:
        raise ConfigError(
            f"{path} belongs to another run ({'; '.join(others)}); delete it or choose another --out"
        )
    return state


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state in place of that of an earlier epoch; raises OSError when it cannot be."""
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file:  # given a path, torch would keep what the system says to itself
            torch.save(state, file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
