"""Learning curves: a row an epoch in `curves.csv`, and a picture of them."""

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.export.calibrate import logits_of
from mqtt_mdi.training.loop import Watch

CURVES_FILE, CURVES_PICTURE = "curves.csv", "curves.svg"


def watch_into(folder: Path, held_out: Labelled, normalise: Normalisation) -> Watch:
    """After each epoch add its loss and the accuracy of every exit on `held_out`, and draw anew.

    A run that goes on keeps the rows of its earlier epochs.
    """
    path = folder / CURVES_FILE
    pictures = torch.from_numpy(held_out.pictures)

    def watch(epoch: int, loss: float, model: nn.Module) -> None:
        said = logits_of(model, pictures, normalise).argmax(dim=2).numpy()
        accuracy = (said == held_out.labels).mean(axis=1)
        rows = [row for row in _read(path) if row[0] < epoch]
        rows.append([epoch, round(loss, 5), *(round(float(share), 5) for share in accuracy)])
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            exits = (f"exit {number}" for number in range(1, len(accuracy) + 1))
            csv.writer(file).writerows(
                [["epoch", "loss", *exits], *([int(row[0]), *row[1:]] for row in rows)]
            )
        partial.replace(path)
        draw(rows, folder / CURVES_PICTURE)

    return watch


def _read(path: Path) -> list[list[float]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


def draw(rows: list[list[float]], path: Path) -> None:
    """Draw rows of epoch, loss and accuracies (0..1) into an SVG file."""
    table = np.array(rows)
    # Text as text and fixed ids keep the file small and the same for the same figures.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mqtt-mdi"}):
        figure = Figure(figsize=(8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(table[:, 0], table[:, 1], color="black")
        left.set(xlabel="epoch", title="mean loss while training", ylim=(0, None))
        for number, accuracy in enumerate(table[:, 2:].T, start=1):
            right.plot(table[:, 0], 100 * accuracy, label=f"exit {number}")
        right.set(xlabel="epoch", title="accuracy on samples held out, %")
        right.legend(frameon=False)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
