"""Which commands a page of the documentation has. docs/README.md, "Writing here", is the rule for authors.

An indented block, or one fenced as `sh`, is run in a shell. HTML comments say the rest:

    <!-- not run: WHY -->      the next block is not run
    <!-- stays up: TEXT -->    the next block has its own terminal; go on once it said TEXT, or at once
    <!-- wait for: TEXT -->    go on once a command that stays up has said TEXT
    <!-- ended: PART -->       the reader has ended what stays up and has PART in it; or all
    <!-- given                 the lines that follow are run, but not shown; with `given, stays up: TEXT`
    -->                        they stay up
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
SHELLS = {"sh", "bash", "shell", "console"}
COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
DIRECTIVE = re.compile(
    r"(not run|stays up|wait for|given(?:, stays up)?|ended)(?::[ ]*([^\n]*))?(?:\n(.*))?", re.DOTALL
)

Kind = Literal["run", "stays up", "not run", "wait for", "ended"]
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


class MistakeInPageError(Exception):
    """An author has to change the page."""


@dataclass(frozen=True)
class Step:
    """One thing to do: commands to run, or `text` to wait for; a reason for what is not run."""

    kind: Kind
    page: str
    line: int
    commands: str = ""
    text: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def found() -> list[Path]:
    """Every page whose commands are run."""
    return [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """The page as authors name it."""
    return page.relative_to(ROOT).as_posix()


def steps(page: Path) -> list[Step]:
    """What a reader of the page does."""
    return list(steps_in(name_of(page), page.read_text("utf-8")))


def steps_in(page: str, text: str) -> Iterator[Step]:
    """The same, of a text; MistakeInPageError where its author meant something else."""
    told: Step | None = None
    for token in MarkdownIt().parse(text):
        first = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            for said in _comments(page, first, token.content):
                if told:
                    raise MistakeInPageError(
                        f"{said.where}: {said.kind!r} after a comment that wants a block"
                    )
                if said.kind in ("not run", "stays up") and not said.commands:
                    told = said
                else:
                    yield said
        elif _is_shell(page, first, token):
            yield _block(replace(told or Step("run", page, first), line=first, commands=token.content))
            told = None
        elif told:
            raise MistakeInPageError(
                f"{told.where}: {told.kind!r} must stand right before its block of commands"
            )


def _comments(page: str, line: int, content: str) -> Iterator[Step]:
    for comment in COMMENT.finditer(content):
        if said := DIRECTIVE.fullmatch(comment[1]):
            kind = said[1] if said[1] != "given" else "run"
            yield Step(KINDS[kind.removeprefix("given, ")], page, line, said[3] or "", said[2] or "")


def _is_shell(page: str, line: int, token: Token) -> bool:
    language = token.info.split(" ")[0]
    if token.type == "fence" and not language:
        raise MistakeInPageError(
            f"{page}:{line}: the fence names no language: ```sh for commands, ```text or ```json for the rest"
        )
    return token.type == "code_block" or (token.type == "fence" and language in SHELLS)


def _block(step: Step) -> Step:
    if step.kind == "not run" and not step.text:
        raise MistakeInPageError(f"{step.where}: 'not run' needs a reason: <!-- not run: it needs root -->")
    if step.kind != "not run" and re.search(r"(?<!&)&\s*$", step.commands, re.MULTILINE):
        raise MistakeInPageError(
            f"{step.where}: a command ends with &: give it a block of its own, below <!-- stays up -->"
        )
    return step
