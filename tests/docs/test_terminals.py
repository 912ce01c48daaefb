"""What follows a page notices what goes wrong, and says it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from steps import Step, steps_in
from terminals import Reader


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "checkout")
    yield reader
    reader.end()


def page(text: str) -> list[Step]:
    return list(steps_in("a.md", text))


def test_a_command_that_fails_is_shown_with_its_words_and_what_to_do(reader: Reader) -> None:
    with pytest.raises(AssertionError) as raised:
        reader.do(page("    echo before\n    ls nothing-here\n    echo after\n")[0])
    for words in ("a.md:1: exit code 2", "before", "nothing-here", "<!-- not run: WHY -->"):
        assert words in str(raised.value)
    assert "\nafter" not in str(raised.value)


def test_a_failure_within_a_pipe_counts(reader: Reader) -> None:
    with pytest.raises(AssertionError, match="exit code 3"):
        reader.do(page("    (exit 3) | cat\n")[0])


def test_what_ends_instead_of_staying_up_is_noticed(reader: Reader) -> None:
    with pytest.raises(AssertionError, match=r"a\.md:3: ended before 'ready' was said"):
        reader.do(page("<!-- stays up: ready -->\n\n    echo never\n")[0])


def test_what_dies_while_others_go_on_is_noticed(reader: Reader) -> None:
    first, second = page("<!-- stays up: here -->\n\n    echo here; exit 7\n\n<!-- ended -->\n")
    reader.do(first)
    reader.open[0].process.wait(20)
    with pytest.raises(AssertionError, match=r"a\.md:3 ended with code 7"):
        reader.do(second)


def test_what_was_waited_for_once_must_be_said_again(reader: Reader) -> None:
    command = "    echo tick; echo tick; sleep 60\n"
    first, second, third = page(
        f"<!-- stays up: tick -->\n\n{command}\n<!-- wait for: tick -->\n<!-- ended -->\n"
    )
    reader.do(first)
    reader.do(second)
    assert reader.open[0].said()[reader.open[0].read :].strip() == ""
    reader.do(third)
    assert reader.open == []


def test_ports_and_brokers_are_of_this_machine_and_the_same_for_the_page(reader: Reader) -> None:
    command = (
        "MDI_BROKER=mqtt://ann:pw@{} a --port {} -b mqtts://localhost:{} --http :{} '{{\"window\":1024}}'"
    )
    made = reader._localised(command.format("gateway.local", 1883, 8883, 8080))
    port, secure, http = (reader.ports[name] for name in ("1883", "8883", "8080"))
    assert made == command.format(f"127.0.0.1:{port}", port, secure, http)
    assert reader._localised("mosquitto_pub -p 1883") == f"mosquitto_pub -p {port}"
