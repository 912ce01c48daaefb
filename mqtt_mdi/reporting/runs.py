"""The runs that a report is about: one, or two to compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.reporting.text import one_line
from mqtt_mdi.storage.history import History, pipelines, read_history, span, stretch_length

MOST_RUNS = 2


@dataclass(frozen=True, slots=True)
class Run:
    """A pipeline's history, and what a report calls it."""

    name: str
    history: History


def read_runs(databases: Sequence[Path], names: Sequence[str]) -> list[Run]:
    """The runs of one or two databases, cut into stretches of the same length.

    Args:
        databases: One or two files.
        names: Pipelines: none where each database has just one, one for all of them, or two.

    Raises:
        ConfigError: A database has no results, or several pipelines and none is named.
        StorageError: A database cannot be read.
    """
    places = _places(databases, names)
    seconds = stretch_length(max(span(path, pipeline) for path, pipeline in places))
    histories = [read_history(path, pipeline, seconds) for path, pipeline in places]
    return [Run(name, history) for name, history in zip(_names(places), histories, strict=True)]


def _places(databases: Sequence[Path], names: Sequence[str]) -> list[tuple[Path, str]]:
    if max(len(databases), len(names)) > MOST_RUNS:
        raise ConfigError("at most two runs are compared: name two databases, or one and two pipelines")
    if len(names) > len(databases):
        return [(databases[0], name) for name in names]
    if len(names) == 1:
        return [(path, names[0]) for path in databases]
    if names:
        return list(zip(databases, names, strict=True))
    return [(path, _only_pipeline(path)) for path in databases]


def _only_pipeline(path: Path) -> str:
    found = pipelines(path)
    if not found:
        raise ConfigError(f"{path}: no results in it yet; there is nothing to report")
    if len(found) > 1:
        raise ConfigError(
            f"{path}: results of pipelines {', '.join(found)}; name one with --pipeline, or two to compare"
        )
    return found[0]


def _names(places: Sequence[tuple[Path, str]]) -> list[str]:
    """The shortest names that tell the runs apart."""
    for kind in (
        [path.stem for path, _ in places],
        [pipeline for _, pipeline in places],
        [f"{path}, {pipeline}" for path, pipeline in places],
    ):
        if len(set(kind)) == len(places):
            return [one_line(name) for name in kind]
    return [f"run {number}" for number in range(1, len(places) + 1)]
