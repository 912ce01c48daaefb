"""Hostile bytes for hypothesis: valid messages flipped, cut, spliced and extended, and some plain noise."""

from collections.abc import Sequence

from hypothesis import strategies as st
from mangling import mangled


@st.composite
def hostile(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Bytes made of valid ones."""
    seed = st.sampled_from(seeds)
    match draw(st.sampled_from(["mangle", "flip", "truncate", "splice", "extend"])):
        case "mangle":
            return draw(mangled(seeds))
        case "flip":
            data = bytearray(draw(seed) or b"\0")
            for _ in range(draw(st.integers(1, 4))):
                data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
            return bytes(data)
        case "truncate":
            data = draw(seed)
            return data[: draw(st.integers(0, len(data)))]
        case "splice":
            head, tail = draw(seed), draw(seed)
            return head[: draw(st.integers(0, len(head)))] + tail[draw(st.integers(0, len(tail))) :]
        case _:
            return draw(seed) + draw(seed | st.binary(max_size=64))
