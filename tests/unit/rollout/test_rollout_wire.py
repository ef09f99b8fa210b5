"""The lean client's half of RFC 6455: bytes in, frames out."""

import pytest

wire = pytest.importorskip("example_app.rollout.clients.wire", reason="the example is no part of the wheel")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_frame_of_any_length_is_read_whole_byte_by_byte(size):
    """However the bytes of a frame arrive, it comes out once, when it is complete."""
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65536 else None
    length = length or b"\x7f" + size.to_bytes(8, "big")
    data = b"\x82" + length + b"x" * size
    reader = wire.FrameReader()
    pieces = [data[:1], data[1:2], data[2:5], data[5:]]
    frames = [frame for piece in pieces for frame in reader.feed(piece)]
    assert frames == [(2, b"x" * size)]


def test_frames_that_arrive_together_come_out_one_by_one():
    """A close frame right behind a message is not lost."""
    data = b"\x81\x02hi" + b"\x88\x02\x03\xf4" + b"\x89"
    reader = wire.FrameReader()
    assert list(reader.feed(data)) == [(1, b"hi"), (wire.CLOSE, b"\x03\xf4")]
    assert list(reader.feed(b"\x00")) == [(wire.PING, b"")]


def test_what_a_client_sends_is_masked():
    """RFC 6455 section 5.1: a server must close the connection on a frame that is not masked."""
    data = wire.frame(wire.CLOSE, b"\x03\xf4")
    assert data[:2] == b"\x88\x82"
    mask = data[2:6]
    assert bytes(byte ^ mask[index % 4] for index, byte in enumerate(data[6:])) == b"\x03\xf4"


def test_an_answer_is_read_when_its_head_is_complete():
    """Bytes behind the head belong to the first frame."""
    assert wire.read_answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n") is None
    answer = wire.read_answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x89\x00")
    assert answer == (101, {"upgrade": "websocket"}, b"\x89\x00")


def test_a_refusal_is_read_with_its_headers():
    """Retry-After can be honoured."""
    status, headers, _ = wire.read_answer(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n")
    assert (status, headers["retry-after"]) == (503, "5")
