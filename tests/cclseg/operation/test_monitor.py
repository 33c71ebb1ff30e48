"""What the monitor sees of real streams with cameras that fall silent; its clock goes by hand."""

import pytest
from cameras import Camera
from networks import colour_patches
from streaming import until

from cclseg.operation.monitor import Monitor
from cclseg.operation.watchdog import WatchdogRules
from cclseg.sources.live import SourceEvent

RULES = WatchdogRules(patience_s=0.05, longest_s=1e6, restarts=2)
PATIENT = WatchdogRules(patience_s=1e6)


@pytest.fixture
def watched(segment, clock):
    """Opens a stream that a monitor watches."""
    streams = []

    def open_stream(cameras, rules=PATIENT, **options):
        stream = segment.stream(cameras, **options)
        streams.append(stream)
        monitor = Monitor(rules, clock=clock)
        monitor.watch(stream)
        return stream, monitor

    yield open_stream
    for stream in streams:
        stream.close()


def test_before_a_stream_there_is_a_start(clock):
    health = Monitor(clock=clock).look()
    assert (health.state, health.healthy, health.streams) == ("starting", True, ())


def test_results_make_it_live(watched, clock):
    stream, monitor = watched(Camera())
    assert monitor.look().state == "starting"
    for _ in range(5):
        next(stream)
        clock.now_s += 0.5
    health = monitor.look()
    (one,) = health.streams
    assert (health.state, one.state, one.delivered) == ("live", "live", 5)
    assert one.fps == pytest.approx(5 / 2.5)
    assert one.last_result_s == pytest.approx(0.5)
    assert one.age_ms is not None
    assert [share.name for share in one.classes] == ["redest", "greenest", "blueest"]
    assert [share.colour for share in one.classes] == ["#c81e1e", "#1ec81e", "#1e1ec8"]
    assert sum(share.share for share in one.classes) == pytest.approx(1)
    assert monitor.newest("") is not None
    assert health.uptime_s == 2.5


def test_rates_forget_what_was_long_ago(watched, clock):
    stream, monitor = watched(Camera())
    next(stream)
    next(stream)
    clock.now_s += 60  # seconds
    assert monitor.look().streams[0].fps == 0
    assert monitor.look().streams[0].last_result_s == 60


def test_what_a_source_says_is_its_state_and_is_remembered(watched):
    camera = Camera()
    stream, monitor = watched(camera)
    next(stream)
    for state, detail, seen in (
        ("stalled", "no frame for 2 s", "stalled"),
        ("lost", "no route to host", "lost"),
        ("connecting", "", "lost"),
        ("restored", "", "live"),
    ):
        camera.tell(SourceEvent("camera", state, detail))
        health = monitor.look()
        assert (health.state, health.healthy) == (seen, seen == "live")
        assert health.streams[0].reason == (
            detail or ("no route to host" if seen == "lost" else "")
        )
    assert [event.state for event in monitor.look().events] == [
        "stalled", "lost", "connecting", "restored",
    ]  # fmt: skip
    assert not monitor.stuck  # a camera that is gone comes back without a new process


def test_a_silent_source_is_restarted_and_results_come_again(watched, clock):
    camera = Camera()
    stream, monitor = watched(camera, RULES)
    next(stream)
    camera.silent.set()
    until(lambda: monitor.look().streams[0].restarts == 1)
    assert "no frame for" in camera.restarts[0]
    assert monitor.look().events[-1].state == "restarted"
    for _ in range(3):  # what was on its way, and what comes after the restart
        next(stream)


def test_a_source_that_stays_silent_is_given_up_and_only_a_new_process_helps(watched, clock):
    camera = Camera(mends=False)
    stream, monitor = watched(camera, RULES)
    next(stream)
    camera.silent.set()

    def given_up():
        clock.now_s += 1e5
        return monitor.look().state == "failed"

    until(given_up)
    assert len(camera.restarts) == 2
    assert monitor.stuck
    assert "restarting the source is in vain" in monitor.look().reason

    camera.silent.clear()
    next(stream)
    until(lambda: next(stream) and monitor.look().state == "live")
    assert not monitor.stuck


def test_a_source_that_cannot_be_restarted_is_given_up_at_once(watched):
    camera = Camera(restartable=False)
    stream, monitor = watched(camera, RULES)
    next(stream)
    camera.silent.set()
    until(lambda: monitor.look().state == "failed")
    assert monitor.stuck
    assert "cannot be restarted" in monitor.look().events[-1].detail


def test_results_that_nobody_takes_are_no_fault_of_the_source(watched, clock):
    camera = Camera()
    stream, monitor = watched(camera, WatchdogRules(patience_s=30))
    next(stream)
    until(lambda: stream.stats().superseded > 3)
    monitor.look()
    clock.now_s += 31
    health = monitor.look()
    assert (health.state, camera.restarts) == ("stalled", [])
    assert "frames come, but no results" in health.reason
    assert monitor.stuck
    next(stream)
    assert monitor.look().state == "live"
    assert not monitor.stuck


def test_one_of_two_streams_that_dies_is_told_apart(watched, clock):
    left, right = Camera(name="l"), Camera(name="r", mends=False)
    stream, monitor = watched({"left": left, "right": right}, RULES)
    right.silent.set()

    def right_alone_is_in_trouble():
        next(stream)
        states = {one.name: one.state for one in monitor.look().streams}
        return right.restarts and states["left"] == "live" and states["right"] == "stalled"

    until(right_alone_is_in_trouble)
    assert monitor.look().state != "live"
    assert monitor.names == ("left", "right")


def test_the_end_of_files_is_an_end(watched):
    stream, monitor = watched([colour_patches((24, 32), seed=seed) for seed in range(4)])
    assert len(list(stream)) == 4
    assert monitor.look().streams[0].state == "ended"
    monitor.end("ended")
    assert monitor.look().state == "ended"
    assert not monitor.look().healthy


def test_stopping_is_seen(watched):
    stream, monitor = watched(Camera())
    next(stream)
    stream.stop()
    assert monitor.look().state == "stopping"
