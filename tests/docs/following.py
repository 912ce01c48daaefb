"""What the tests that follow pages share; there are two, so that two processes can run them."""

import re
import shutil
from pathlib import Path

import pytest
from steps import name_of, steps
from terminals import PATH, Reader

PROGRAMS = ("mosquitto", "mosquitto_pub", "sqlite3", "curl", "make")


def follow(page: Path, folder: Path) -> None:
    """Do what a page says, in order; skips where a program that it uses is missing."""
    todo = steps(page)
    text = "\n".join(step.commands for step in todo if step.kind in ("run", "stays up"))
    if not text:
        return
    used = {"mosquitto"} | set(re.findall(r"\w+", text)) & set(PROGRAMS)
    missing = [program for program in sorted(used) if shutil.which(program, path=PATH) is None]
    if missing:
        pytest.skip(f"{name_of(page)} uses {', '.join(missing)}, not on PATH: apt-get install them")
    reader = Reader(folder / "checkout")
    try:
        for step in todo:
            reader.do(step)
    finally:
        reader.end()
