"""Exit traces: what every exit said of every sample, so that policies can be replayed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.arrays import read_arrays, write_arrays
from mqtt_mdi.bundle.manifest import OperatingPoint
from mqtt_mdi.errors import BundleError, ConfigError

TRACE_FILE = "trace.npz"
"""Of the test samples: figures are replayed from it, nothing is chosen by it."""
HELD_OUT_FILE = "held-out.npz"
"""Of the samples held out from training: thresholds and plans are found on it."""


@dataclass(frozen=True)
class ExitTrace:
    """Scores (N, K) float32 and labels (N, K) int16 of K exits on N samples, and the truth (N,) int16."""

    score: NDArray[np.float32]
    label: NDArray[np.int16]
    truth: NDArray[np.int16]

    def __post_init__(self) -> None:
        if self.score.ndim != 2 or 0 in self.score.shape:  # noqa: PLR2004 -- samples and exits
            raise BundleError(f"trace has scores of shape {self.score.shape}: expected (samples, exits)")
        if self.label.shape != self.score.shape or self.truth.shape != self.score.shape[:1]:
            raise BundleError(
                f"trace has scores of shape {self.score.shape}, labels {self.label.shape} and truth "
                f"{self.truth.shape}: they do not belong together"
            )
        if not np.isfinite(self.score).all():
            raise BundleError("trace holds scores that are not finite")

    @property
    def exits(self) -> int:
        """K, the number of exits."""
        return int(self.score.shape[1])

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each exit is right about each sample: (N, K)."""
        return np.equal(self.label, self.truth[:, None])


def write_trace(trace: ExitTrace, folder: Path, name: str = TRACE_FILE) -> None:
    """Write a trace into a bundle folder."""
    write_arrays(folder / name, score=trace.score, label=trace.label, truth=trace.truth)


def read_trace(folder: Path, name: str = TRACE_FILE) -> ExitTrace:
    """Read a trace of a bundle folder; raises BundleError when it is missing or damaged."""
    path = folder / name
    score, label, truth = read_arrays(path, ("score", "label", "truth"))
    if score.dtype.kind != "f" or label.dtype.kind not in "ui" or truth.dtype.kind not in "ui":
        raise BundleError(
            f"{path} holds scores of {score.dtype}, labels of {label.dtype} and truth of {truth.dtype}: "
            "expected floating point numbers and integers"
        )
    with np.errstate(over="ignore"):  # ExitTrace finds what does not fit
        score = score.astype(np.float32)
    return ExitTrace(score, label.astype(np.int16), truth.astype(np.int16))


def replay(trace: ExitTrace, thresholds: Sequence[float]) -> NDArray[np.intp]:
    """The exit each sample takes, 1 to K: the first whose score reaches its threshold, else the last.

    Raises ConfigError unless there is one threshold for each exit but the last.
    """
    if len(thresholds) != trace.exits - 1:
        raise ConfigError(f"{trace.exits} exits need {trace.exits - 1} thresholds, not {len(thresholds)}")
    # In double precision, as devices compare: rounding a threshold to float32 could let a sample pass.
    passed = trace.score[:, :-1].astype(np.float64) >= np.asarray(thresholds, np.float64)
    last = np.ones((len(passed), 1), bool)
    exits: NDArray[np.intp] = np.concatenate([passed, last], axis=1).argmax(axis=1) + 1
    return exits


def operating_point(
    trace: ExitTrace, thresholds: Sequence[float], macs_shares: Sequence[float]
) -> OperatingPoint:
    """Accuracy, mean share of multiply-adds and exit shares of a trace under thresholds.

    `macs_shares[k]` is the cost of leaving at exit k + 1 (Manifest.macs_shares).
    """
    exits = replay(trace, thresholds)
    correct = trace.correct[np.arange(len(exits)), exits - 1]
    return OperatingPoint(
        accuracy=float(correct.mean()),
        macs_share=float(np.asarray(macs_shares)[exits - 1].mean()),
        exits=tuple(float((exits == k).mean()) for k in range(1, trace.exits + 1)),
    )
