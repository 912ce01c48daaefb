"""A report as CSV: plain numbers, a row for each run's part, for other programs to read."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.reporting.runs import Run
from mqtt_mdi.storage.history import DeviceChange, DeviceTotals, PolicyVersion, Stretch

_PARTS = {"stretches": Stretch, "devices": DeviceTotals, "changes": DeviceChange, "policies": PolicyVersion}


def write_csv(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write summary, stretches, devices, changes, policies and failures; ConfigError where that fails."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, kind in _PARTS.items():
            rows = [{"run": run.name, **asdict(row)} for run in runs for row in getattr(run.history, name)]
            written.append(
                _write(folder / f"{name}.csv", ["run", *(part.name for part in fields(kind))], rows)
            )
        summaries = [_summary(run) for run in runs]
        written.append(_write(folder / "summary.csv", list(summaries[0]), summaries))
        failures = [
            {"run": run.name, "reason": reason, "frames": count}
            for run in runs
            for reason, count in run.history.failures.items()
        ]
        written.append(_write(folder / "failures.csv", ["run", "reason", "frames"], failures))
    except OSError as error:
        raise ConfigError(f"--csv {folder}: {error}; name a folder that can be written") from error
    return written


def _summary(run: Run) -> dict[str, Any]:
    history = run.history
    ends = {"run": run.name, "database": str(history.path), "first": history.first, "last": history.last}
    return {**ends, **history.summary, "exits": history.exits, "dead_letters": history.dead_letters}


def _write(path: Path, headings: Sequence[str], rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, headings)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})
    return path


def _cell(value: object) -> object:
    """What has parts becomes JSON."""
    return json.dumps(value) if isinstance(value, dict | list | tuple) else value
