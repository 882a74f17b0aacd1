"""Documents damaged byte by byte: flipped, cut, doubled, overwritten, mixed with tokens that parsers stumble over."""

from hypothesis import strategies as st

TOKENS = (
    *(b"\0", b"\0" * 64, b"\r", b"\n", b"\n" * 500, b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28", b"\xed\xa0\x80"),
    *(b'"', b"'''", b'"""', b"{", b"}", b"[", b"]", b",", b":", b"=", b"#", b"\\", b"\\u0000", b"\\ud800"),
    *(b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"1979-05-27T07:32:00Z"),
    *(b"-9223372036854775809", b"18446744073709551616", b"9" * 400, b"9" * 5000),
    *(b"[" * 3000, b"[" * 100_000, b'{"a":' * 3000, b"a." * 3000, b"x" * 100_000),
    *(
        b"../../../outside/kept.txt",
        b"..\\..\\outside",
        b"/etc/passwd",
        b"C:\\CON",
        b"con.txt",
        b"<script>",
        b"\x1b[2J",
    ),
    *("\u202e".encode(), "漢字🎉".encode()),
)
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
LARGEST = 4_000_000  # bytes of a document


@st.composite
def bitten(draw: st.DrawFn, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """The document after one to four bites; `others` are documents that pieces are taken from."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data), 1)))
        length = min(draw(st.sampled_from((1, 2, 4, 8, 16, 64, 500, 5000))), len(data) - place)
        data = BITES[draw(st.sampled_from(sorted(BITES)))](draw, data, place, max(length, 0), others)
        data = data[:LARGEST]
    return data


def flip(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    if place >= len(data):
        return data
    return data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]


def cut(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    return data[:place]


def remove(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    return data[:place] + data[place + length :]


def double(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    times = draw(st.sampled_from((1, 2, 30)))
    return data[:place] + data[place : place + length] * times + data[place:]


def overwrite(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    """A number of 1, 2, 4 or 8 bytes with one at the end of its range."""
    size, order = draw(st.sampled_from((1, 2, 4, 8))), draw(st.sampled_from(("little", "big")))
    number = draw(st.sampled_from(EXTREMES)) % (1 << 8 * size)
    return data[:place] + number.to_bytes(size, order) + data[place + size :]


def insert(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    return data[:place] + draw(st.sampled_from(TOKENS)) + data[place:]


def replace(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    return data[:place] + draw(st.sampled_from(TOKENS)) + data[place + length :]


def splice(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    other = draw(st.sampled_from(others))
    return data[:place] + other[draw(st.integers(0, max(len(other), 1))) :]


def noise(draw: st.DrawFn, data: bytes, place: int, length: int, others: tuple[bytes, ...]) -> bytes:
    return data[:place] + draw(st.binary(max_size=40)) + data[place + length :]


BITES = {bite.__name__: bite for bite in (flip, cut, remove, double, overwrite, insert, replace, splice, noise)}
