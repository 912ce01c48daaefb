"""What a decoder may do with one input: take it or refuse it with its own error, soon, in little memory."""

import re
import resource
import sys
import time
import warnings
from dataclasses import dataclass

from fuzz.targets import Target

SLOW_S = 3.0
"""Of processor time, so that a busy machine is no fault; the worst input known takes half a second."""

TRACED = 10
"""How much slower pure Python is, at most, while its coverage is measured."""

GREEDY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Verdict:
    """What came of an input; `said` is the error without what differs from input to input."""

    said: str
    seconds: float
    grown: int
    fault: str | None = None


def judge(target: Target, data: bytes) -> Verdict:
    """Run a target on one input."""
    before, began = peak_bytes(), time.process_time()
    said, fault = "taken", None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow and numpy tell of odd files that they read all the same
            warnings.simplefilter("error", RuntimeWarning)
            target.run(data)
    except target.errors as error:
        said = re.sub(r"\(got .*|'[^']*'|\[[^]]*\]|[0-9]+|[^ -~]", "", str(error))[:100]
    except Exception as error:  # noqa: BLE001 -- this is what is looked for
        said = fault = f"{type(error).__name__} in {place(error)}: {str(error)[:200]}"
    seconds, grown = time.process_time() - began, peak_bytes() - before
    if fault is None and seconds > SLOW_S * (TRACED if sys.gettrace() else 1):
        fault = f"hang: {seconds:.1f} s"
    if fault is None and grown > GREEDY_BYTES:
        fault = f"memory: {grown >> 20} MiB"
    return Verdict(said, seconds, grown, fault)


def peak_bytes() -> int:
    """The most memory this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def place(error: BaseException) -> str:
    """The line that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
