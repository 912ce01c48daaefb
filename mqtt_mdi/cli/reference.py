"""Writes `docs/reference/`: the commands and the policy, as the code has them.

`python -m mqtt_mdi.cli.reference FOLDER`.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from mqtt_mdi.cli.fields import policy_page
from mqtt_mdi.cli.main import cli
from mqtt_mdi.cli.tables import table

_DEFAULT = re.compile(r"\s*\[default: (?P<value>.+)\]$")
_HEAD = """\
# Commands

Made from the commands themselves by `make schemas`; `mqtt-mdi COMMAND --help` says the same. Each setting can
also stand in the environment, or in a file `.env` in the folder that a command is run in, under the name in
the third column. What is on the command line goes before the environment, the environment before `.env`.
"""


def command_page() -> str:
    """Every command, argument and option, as Markdown."""
    context = click.Context(cli, info_name="mqtt-mdi")
    return "\n".join([_HEAD, *_sections(cli, context)]).rstrip() + "\n"


def files() -> dict[str, str]:
    """What `docs/reference/` holds: text by file name."""
    return {"cli.md": command_page(), "policy.md": policy_page()}


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    yield from _prose(command.help or command.short_help or "")
    rows = [_row(param, context) for param in command.params]
    if rows:
        yield table(["option", "value", "environment", "default", "what"], rows)
    if command.epilog:
        yield from _prose(command.epilog)
    inner = [click.Context(part, info_name=name, parent=context) for name, part in _parts(command, context)]
    if inner:
        yield table(["command", "what"], [[_link(part.command_path), _first_line(part)] for part in inner])
    for part in inner:
        yield from _sections(part.command, part)


def _parts(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            assert part is not None
            yield name, part


def _link(path: str) -> str:
    return f"[{path}](#{path.replace(' ', '-')})"


def _first_line(context: click.Context) -> str:
    return context.command.get_short_help_str(limit=100)


def _prose(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        # click's mark for lines to keep, or lines that are indented
        verbatim = paragraph.startswith(("\b", " "))
        kept = textwrap.dedent(paragraph.removeprefix("\b\n"))
        yield f"```text\n{kept}\n```\n" if verbatim else f"{paragraph}\n"


def _row(param: click.Parameter, context: click.Context) -> list[str]:
    if not isinstance(param, click.Option):
        return [f"`{param.make_metavar(context)}`", "", "", "needed" if param.required else "", ""]
    about, default, extra = param.help or "", "", param.get_help_extra(context)
    if said := _DEFAULT.search(about):
        about, default = about[: said.start()], said["value"]
    elif param.required:
        default = "needed"
    elif "default" in extra:
        default = f"`{extra['default']}`"
    value = "" if param.is_flag else f"`{param.make_metavar(context).removesuffix(' RANGE')}`"
    if "range" in extra:
        value += f" {extra['range']}"
    envvar = f"`{param.envvar}`" if param.envvar else ""
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    return [names, value, envvar, default, about]


def write(folder: Path) -> None:
    """Write `files()` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 -- the program and one folder
        sys.exit("usage: python -m mqtt_mdi.cli.reference FOLDER")
    write(Path(sys.argv[1]))
