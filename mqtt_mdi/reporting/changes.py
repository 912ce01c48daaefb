"""In what two policies differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def differences(before: Mapping[str, Any], after: Mapping[str, Any], under: str = "") -> Sequence[str]:
    """What differs between two policies, a line for each field: `admission.low: 10 -> 5`."""
    lines: list[str] = []
    for name in sorted({*before, *after} - ({"version"} if not under else set())):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{under}{name}.")
        elif old != new:
            lines.append(f"{under}{name}: {_brief(old)} → {_brief(new)}")
    return lines


def _brief(value: object) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
