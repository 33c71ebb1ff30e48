"""Live sources: states, back-off and clocks, on connections that do as they are told."""

import logging
import statistics
import threading
import time

import numpy as np
import pytest

from cclseg.errors import SourceError
from cclseg.gdp import RawFrame
from cclseg.sources.arrays import ArraySource
from cclseg.sources.live import (
    DisconnectedError,
    EndOfStream,
    LiveSource,
    Patience,
    SourceClock,
)

QUICK = Patience(connect_s=0.2, stall_s=0.05, lost_s=0.3, first_retry_s=0.01, longest_retry_s=0.02)
FRAME = RawFrame(np.zeros((4, 6, 3), np.uint8), 0)
SILENCE = None


class Scripted:
    """A connection that plays a list of frames, silences and errors, then ends."""

    def __init__(self, script):
        self._script = iter(script)
        self.closed = False

    def next_frame(self, timeout_s):
        step = next(self._script, EndOfStream())
        if isinstance(step, Exception):
            raise step
        return step

    def close(self):
        self.closed = True


def play(*scripts, ends=True, patience=QUICK):
    """Runs a source over connections with these scripts; returns frames, states, connections."""
    connections, states, upcoming = [], [], iter(scripts)

    def connect():
        connections.append(Scripted(next(upcoming)))
        return connections[-1]

    source = LiveSource(
        connect, name="camera", ends=ends, patience=patience,
        on_event=lambda event: states.append(event.state),
    )  # fmt: skip
    return list(source), states, connections


def test_frames_are_numbered_over_all_connections():
    frames, states, connections = play([FRAME, FRAME, DisconnectedError("cut")], [FRAME])
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.name for frame in frames] == ["frame_000000", "frame_000001", "frame_000002"]
    assert states == ["connecting", "live", "lost", "connecting", "restored"]
    assert all(connection.closed for connection in connections)


def test_an_end_is_a_loss_where_the_source_should_not_end():
    states, failures = [], iter([[FRAME], [SourceError("never")]])
    source = LiveSource(
        lambda: Scripted(next(failures)), name="camera", patience=QUICK,
        on_event=lambda event: states.append((event.state, event.detail)),
    )  # fmt: skip
    frames = iter(source)
    next(frames)
    with pytest.raises(SourceError, match="never"):
        next(frames)
    assert ("lost", "the other side has ended the stream") in states


def test_short_silence_is_a_stall_and_longer_silence_a_loss():
    class Slow(Scripted):
        def next_frame(self, timeout_s):
            import time

            step = super().next_frame(timeout_s)
            if step is SILENCE:
                time.sleep(0.03)
            return step

    scripts = iter([[FRAME, *[SILENCE] * 5, FRAME, *[SILENCE] * 50], [FRAME]])
    states = []
    source = LiveSource(
        lambda: Slow(next(scripts)), name="camera", ends=True, patience=QUICK,
        on_event=lambda event: states.append(event.state),
    )  # fmt: skip
    assert len(list(source)) == 3
    assert states == [
        "connecting", "live", "stalled", "restored", "stalled", "lost", "connecting", "restored",
    ]  # fmt: skip


def test_attempts_may_be_limited():
    refused = [DisconnectedError("connection refused")]
    with pytest.raises(SourceError, match="camera is lost: connection refused; gave up after 3"):
        play(*[refused] * 3, patience=Patience(first_retry_s=0.001, attempts=3))


def test_an_interrupt_ends_the_wait_for_the_next_attempt():
    source = LiveSource(
        lambda: Scripted([DisconnectedError("refused")]),
        name="camera",
        patience=Patience(first_retry_s=1000, longest_retry_s=1000),
        on_event=lambda event: event.state == "lost" and source.interrupt(),
    )
    assert list(source) == []


def test_losses_are_logged_as_warnings_and_the_rest_is_not(caplog):
    with caplog.at_level(logging.INFO, logger="cclseg"):
        play([FRAME, DisconnectedError("cut")], [FRAME])
    assert [record.levelname for record in caplog.records] == [
        "INFO", "INFO", "WARNING", "INFO", "INFO",
    ]  # fmt: skip
    assert "camera is lost: cut; next attempt in 0.0 s" in caplog.text


def test_waits_double_up_to_the_longest_and_vary_by_the_jitter():
    patience = Patience(first_retry_s=0.5, longest_retry_s=30, jitter=0.25)
    middle = [patience.retry_s(failures, 0.5) for failures in range(1, 9)]
    assert middle == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert patience.retry_s(10**6, 0.5) == 30
    spread = [patience.retry_s(3, chance) for chance in np.linspace(0, 0.999, 1000)]
    assert min(spread) == 1.5
    assert max(spread) == pytest.approx(2.5, abs=0.01)
    assert statistics.mean(spread) == pytest.approx(2, abs=0.01)


class TestSourceClock:
    """Times in milliseconds here, for the eye."""

    @staticmethod
    def read(clock, time_ms, arrived_ms):
        time_ns = None if time_ms is None else time_ms * 1_000_000
        captured_ns, elapsed_s = clock.read(time_ns, arrived_ms * 1_000_000)
        return captured_ns / 1e6, elapsed_s * 1000

    def test_a_frame_that_waited_shows_its_age(self):
        clock = SourceClock()
        assert self.read(clock, 0, 1000) == (1000, 0)
        assert self.read(clock, 40, 1040) == (1040, 40)
        assert self.read(clock, 80, 1380) == (1080, 80)  # 300 ms on the way

    def test_the_shortest_way_sets_the_offset(self):
        clock = SourceClock()
        self.read(clock, 0, 1300)
        assert self.read(clock, 40, 1045) == (1045, 40)
        assert self.read(clock, 80, 1090)[0] == 1085

    def test_a_clock_set_back_or_forward_never_gives_the_future_nor_a_false_age(self):
        clock = SourceClock()
        self.read(clock, 5000, 1000)
        assert self.read(clock, 0, 1040) == (1040, 40)
        assert self.read(clock, 40, 1085) == (1080, 80)
        assert self.read(clock, 90_000, 1120)[0] == 1120

    def test_without_stamps_the_arrival_counts(self):
        clock = SourceClock()
        assert self.read(clock, None, 1000) == (1000, 0)
        assert self.read(clock, None, 1050) == (1050, 50)

    def test_the_seconds_go_on_after_a_restart(self):
        clock = SourceClock()
        self.read(clock, 0, 1000)
        self.read(clock, 100, 1100)
        clock.restart()
        assert self.read(clock, 7, 4000) == (4000, 3000)
        assert self.read(clock, 47, 4040) == (4040, 3040)


class Stuck:
    """A connection that never brings a frame and never fails."""

    def next_frame(self, timeout_s):
        time.sleep(0.005)

    def close(self):
        pass


class TestRestart:
    PATIENT = Patience(connect_s=1e6, stall_s=1e6, lost_s=1e6, first_retry_s=0.01)

    def test_a_connection_that_brings_nothing_is_given_up_for_another(self):
        connections = iter([Stuck(), Scripted([FRAME, FRAME])])
        source = LiveSource(
            lambda: next(connections), name="camera", ends=True, patience=self.PATIENT
        )
        heard, asked = [], threading.Event()

        def hear(event):
            heard.append((event.state, event.detail))
            asked.set()

        def ask_again_and_again():  # the first words may come before the connection stands
            asked.wait(60)
            while len(heard) == 1:
                assert source.restart("no result for a while")
                time.sleep(0.01)

        source.listen(hear)
        watchdog = threading.Thread(target=ask_again_and_again)
        watchdog.start()
        frames = list(source)
        watchdog.join()
        assert [frame.index for frame in frames] == [0, 1]
        assert heard == [
            ("connecting", ""), ("lost", "no result for a while"), ("connecting", ""), ("live", ""),
        ]  # fmt: skip

    def test_a_frame_makes_a_restart_needless(self):
        source = LiveSource(
            lambda: Scripted([FRAME, FRAME, FRAME]), name="camera", ends=True, patience=self.PATIENT
        )
        frames = iter(source)
        next(frames)
        source.restart("too early")
        assert [frame.index for frame in frames] == [1, 2]

    def test_files_cannot_be_restarted(self):
        source = ArraySource([FRAME.image])
        assert not source.restart("no result")
        source.listen(print)
