import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mqtt_mdi.cli import reference
from mqtt_mdi.cli.main import COMMANDS, cli

KEPT = Path(__file__).parents[2] / "docs/reference"


def commands(command: click.Command = cli, *path: str) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(["mqtt-mdi", *path]), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from commands(inner, *path, name)


EVERY = dict(commands())
EXAMPLES = [
    line.strip()
    for command in EVERY.values()
    for line in (command.help or "").splitlines()
    if re.match(r"\s+(MDI_\S+ )?mqtt-mdi ", line)
]


def test_the_kept_pages_are_what_the_code_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "mqtt_mdi.cli.reference", str(tmp_path / "new")], check=True)
    for name, text in reference.files().items():
        assert (tmp_path / "new" / name).read_text() == text
        assert (KEPT / name).read_text() == text, f"docs/reference/{name} has drifted: make schemas"


def test_every_command_and_option_is_there() -> None:
    page = reference.files()["cli.md"]
    assert {path.split()[1] for path in EVERY if " " in path} == set(COMMANDS)
    for path, command in EVERY.items():
        section = page.partition(f"## {path}\n")[2].partition("\n## ")[0]
        assert section
        for param in command.params:
            names = (
                param.opts
                if isinstance(param, click.Option)
                else [param.make_metavar(click.Context(command))]
            )
            for name in names:
                assert f"`{name}`" in section.replace(r"\|", "|"), f"{path}: {name}"


def test_nothing_of_this_machine_is_in_it() -> None:
    for text in reference.files().values():
        assert str(Path.home()) not in text
        assert str(Path(reference.__file__).parents[2]) not in text


def test_the_program_asks_for_a_folder() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mqtt_mdi.cli.reference"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr == "usage: python -m mqtt_mdi.cli.reference FOLDER\n"


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_of_the_help_is_understood(line: str) -> None:
    """A remark stands after two spaces or more."""
    words = shlex.split(re.split(r" {2,}| \| ", line)[0], comments=True)
    words = words[words.index("mqtt-mdi") :]
    named = max((path for path in EVERY if words[: len(path.split())] == path.split()), key=len)
    try:
        EVERY[named].make_context(named, words[len(named.split()) :])
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # a file of the reader's
            raise
