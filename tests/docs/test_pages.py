"""Every command in README.md, SECURITY.md and the pages of docs/, run in order against real processes."""

from pathlib import Path

import pytest
from following import follow
from steps import ROOT, MistakeInPageError, Step, found, name_of, steps, steps_in

NOT_RUN = 30
"""Blocks that may say why they are not run. A block more needs another look at whether it cannot be."""

PAGES = [page for page in found() if page.parent.name != "howto"]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_commands_work(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left = [step for page in found() for step in steps(page) if step.kind == "not run"]
    story = "\n".join(f"{step.where}: {step.text}" for step in left)
    assert len(left) <= NOT_RUN, f"{len(left)} blocks are not run, {NOT_RUN} may be:\n{story}"


def test_there_are_commands_in_the_pages_a_newcomer_reads() -> None:
    for name in ("README.md", "docs/tutorial.md"):
        assert sum(step.kind in ("run", "stays up") for step in steps(ROOT / name)) > 5


PAGE = """\
# A page

    mosquitto_pub -t a -m b

<!-- stays up: ready -->

    mqtt-mdi device

<!-- a remark -->
```json
{"not": "a command"}
```

<!-- not run: it needs root -->
```sh
sudo reboot
```

<!-- given, stays up: is up
mqtt-mdi demo --serve
-->
<!-- wait for: class_name -->
<!-- ended -->
"""


def test_a_page_is_read_as_its_author_means_it() -> None:
    assert list(steps_in("a.md", PAGE)) == [
        Step("run", "a.md", 3, "mosquitto_pub -t a -m b\n"),
        Step("stays up", "a.md", 7, "mqtt-mdi device\n", "ready"),
        Step("not run", "a.md", 15, "sudo reboot\n", "it needs root"),
        Step("stays up", "a.md", 19, "mqtt-mdi demo --serve", "is up"),
        Step("wait for", "a.md", 22, text="class_name"),
        Step("ended", "a.md", 23),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- not run -->\n\n    reboot\n", "a.md:3: 'not run' needs a reason"),
        (
            "<!-- stays up: here -->\n\nIt says so.\n\n    reboot\n",
            "a.md:1: 'stays up' must stand right before",
        ),
        ("<!-- stays up -->\n<!-- not run: root -->\n    reboot\n", "'not run' after a comment"),
        ("```\nanything\n```\n", "a.md:1: the fence names no language"),
        ("    mqtt-mdi broker &\n", "a.md:1: a command ends with &"),
    ],
)
def test_a_mistake_of_the_author_is_named(text: str, complaint: str) -> None:
    with pytest.raises(MistakeInPageError) as raised:
        list(steps_in("a.md", text))
    assert complaint in str(raised.value)
