"""What comes out of a pipe: whole frames, in any pieces, and refusals of anything else."""

import os
import struct
import threading

import numpy as np
import pytest

from cclseg.errors import SourceError
from cclseg.gdp import GdpReader

CAPS = b"video/x-raw, format=(string)BGR, width=(int)%d, height=(int)%d, framerate=(fraction)30/1\0"


def packet(kind, payload, *, time_ns=0, version=(1, 0)):
    header = struct.pack(
        ">BBBBHIQQQQH18s", *version, 1, 0, kind, len(payload), time_ns, 0, 0, 0, 0, b""
    )
    return header + payload


def frame(image, time_ns=0):
    rows = [row.tobytes() + bytes(-3 * image.shape[1] % 4) for row in image]
    return packet(1, b"".join(rows), time_ns=time_ns)


def caps(image):
    return packet(2, CAPS % (image.shape[1], image.shape[0]))


def picture(size_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    ends = {"reading": reading, "writing": writing}
    yield ends
    for descriptor in ends.values():
        os.close(descriptor)


def close_writing(pipe):
    os.close(pipe.pop("writing"))


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (10, 33), (48, 64)])
def test_frames_of_any_width_arrive_as_they_were(pipe, size_hw):
    image = picture(size_hw)
    os.write(pipe["writing"], caps(image) + frame(image, 123))
    raw = GdpReader(pipe["reading"]).read(5)
    np.testing.assert_array_equal(raw.image, image)
    assert raw.time_ns == 123


@pytest.mark.parametrize("end", [b"", b"\0", b";\0"])
def test_the_format_may_be_said_last(pipe, end):
    image = picture((7, 13))
    said = b"video/x-raw, width=(int)13, height=(int)7, format=(string)BGR" + end
    os.write(pipe["writing"], packet(2, said) + frame(image))
    np.testing.assert_array_equal(GdpReader(pipe["reading"]).read(5).image, image)


def test_pieces_are_put_together_and_nobody_waits_for_the_rest(pipe):
    image = picture((7, 13))
    data, reader, seen = (
        caps(image) + frame(image) + frame(image + 1),
        GdpReader(pipe["reading"]),
        [],
    )
    for place in range(len(data)):
        os.write(pipe["writing"], data[place : place + 1])
        raw = reader.read(0)
        if raw is not None:
            seen.append((place, raw.image))
    assert [place for place, _ in seen] == [len(data) - len(frame(image)) - 1, len(data) - 1]
    np.testing.assert_array_equal([one for _, one in seen], [image, image + 1])


def test_frames_larger_than_the_pipe(pipe):
    image = picture((720, 1280))
    writer = threading.Thread(target=lambda: os.write(pipe["writing"], caps(image) + frame(image)))
    writer.start()
    raw = GdpReader(pipe["reading"]).read(5)
    writer.join()
    np.testing.assert_array_equal(raw.image, image)


def test_the_size_may_change_between_frames(pipe):
    small, large = picture((4, 6)), picture((8, 10))
    os.write(pipe["writing"], caps(small) + frame(small) + caps(large) + frame(large))
    reader = GdpReader(pipe["reading"])
    assert [reader.read(5).image.shape for _ in range(2)] == [(4, 6, 3), (8, 10, 3)]


def test_events_are_passed_over_and_a_missing_stamp_is_none(pipe):
    image = picture((4, 6))
    data = packet(10318, b"GstEventStreamStart\0") + packet(64, b"") + caps(image)
    os.write(pipe["writing"], data + frame(image, (1 << 64) - 1))
    assert GdpReader(pipe["reading"]).read(5).time_ns is None


def test_the_end_of_the_pipe_is_an_end_even_inside_a_frame(pipe):
    image = picture((4, 6))
    os.write(pipe["writing"], caps(image) + frame(image)[:-1])
    close_writing(pipe)
    with pytest.raises(EOFError):
        GdpReader(pipe["reading"]).read(5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Setting pipeline to PAUSED ...\n" * 3, "let nothing else write into its pipe"),
        (packet(1, b"", version=(2, 0)), "version 2.0"),
        (struct.pack(">BBBBHI", 1, 0, 0, 0, 2, 1 << 30) + bytes(52), "1073741824 bytes"),
        (packet(2, CAPS.replace(b"BGR", b"I420") % (4, 4)), "expected BGR"),
        (packet(2, CAPS.replace(b"BGR", b"BGRx") % (4, 4)), "expected BGR"),
        (packet(2, b"video/x-raw, format=(string)BGR, width=(int)0, height=(int)4"), "fixed size"),
        (packet(2, b"video/x-raw, format=(string)BGR, height=(int)4"), "fixed size"),
        (packet(2, CAPS % (99999, 99999)), "fixed size"),
        (packet(1, b"123"), "size said to be 0 x 0"),
        (packet(2, CAPS % (4, 4)) + packet(1, b"123"), "expected whole rows"),
        (packet(2, CAPS % (4, 4)) + packet(1, b"1234"), "expected whole rows"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(pipe, data, message):
    os.write(pipe["writing"], data)
    with pytest.raises(SourceError, match=message):
        GdpReader(pipe["reading"]).read(5)


def test_random_bytes_never_do_more_than_be_refused(pipe):
    random = np.random.default_rng(0)
    for _ in range(300):
        reader = GdpReader(pipe["reading"])
        noise = random.integers(0, 256, 62, np.uint8).tobytes()
        os.write(pipe["writing"], bytes([1, 0]) + noise[2:6] + bytes(3) + noise[9:])
        try:
            while reader.read(0) is not None:
                pass
        except SourceError:
            continue
