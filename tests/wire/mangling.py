"""Bytes as a broken or hostile peer would send them."""

from collections.abc import Sequence

from hypothesis import strategies as st

PIECES = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.sampled_from(
        [b"\x00", b"\xff", b"\x7f", b"\x80", b"(", b"[", b"{", b"'", b"null", b"1e999", b"\xd8\x1c"]
    ),
)


@st.composite
def mangled(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A valid message with a few places overwritten, cut out, put in or said twice; or just any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["overwrite", "delete", "insert", "repeat", "truncate"])):
            case "overwrite":
                piece = draw(PIECES)
                data[start : start + len(piece)] = piece
            case "delete":
                del data[start : start + draw(st.integers(1, 12))]
            case "insert":
                data[start:start] = draw(PIECES)
            case "repeat":
                data[start:start] = data[start : start + draw(st.integers(1, 24))]
            case _:
                del data[start:]
    return bytes(data)
