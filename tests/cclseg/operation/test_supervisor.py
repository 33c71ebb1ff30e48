"""The supervisor: a health file, and a service manager that hears the right things."""

import json
import socket
import threading

import pytest
from cameras import Camera
from streaming import until

from cclseg.operation.health import judge, read_health
from cclseg.operation.notify import ServiceManager
from cclseg.operation.supervisor import STALE_AFTER_S, Supervisor
from cclseg.operation.watchdog import WatchdogRules

QUICK_S = 0.02


@pytest.fixture
def manager(tmp_path):
    """A service manager that notes what it hears."""
    heard, address = [], tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))

        def listen():
            while words := listening.recv(4096):
                heard.append(words.decode())

        thread = threading.Thread(target=listen)
        thread.start()
        service = ServiceManager({"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "60000000"})
        service.heard = heard
        yield service
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", str(address))
        thread.join()


def state_in(path):
    return read_health(path)["state"] if path.exists() else None


def wait_for_a_look(supervisor):
    last = supervisor.health
    until(lambda: supervisor.health is not last)


def test_a_health_file_tells_of_the_whole_life(segment, tmp_path):
    path = tmp_path / "health.json"
    with Supervisor(health_file=path, look_every_s=QUICK_S) as supervisor:
        assert state_in(path) == "starting"
        with segment.stream(Camera()) as stream:
            supervisor.watch(stream)
            next(stream)
            until(lambda: state_in(path) == "live")
            content = read_health(path)
            assert judge(content).healthy
            assert content["about"]["model"] == "brightest-band"
            assert content["about"]["source"] == "camera"
            assert content["streams"][0]["delivered"] == 1
            assert content["written"]["stale_after_s"] == STALE_AFTER_S
    assert state_in(path) == "ended"
    assert not judge(read_health(path)).healthy
    assert [left.name for left in tmp_path.iterdir()] == ["health.json"]


def test_an_error_is_the_end_that_it_tells_of(tmp_path):
    path = tmp_path / "health.json"
    with (
        pytest.raises(RuntimeError),
        Supervisor(health_file=path, look_every_s=QUICK_S),
    ):
        raise RuntimeError("the network failed")
    assert judge(read_health(path)).text == "failed: the network failed"


def test_a_reader_never_meets_half_a_file(segment, tmp_path):
    path = tmp_path / "health.json"
    with (
        segment.stream(Camera()) as stream,
        Supervisor(health_file=path, look_every_s=0.001) as supervisor,
    ):
        supervisor.watch(stream)
        for _ in range(200):
            next(stream)
            json.loads(path.read_bytes())


def test_a_health_file_that_cannot_be_written_stops_nothing(segment, tmp_path, caplog):
    folder = tmp_path / "gone"
    folder.mkdir()
    path = folder / "health.json"
    with (
        segment.stream(Camera()) as stream,
        Supervisor(health_file=path, look_every_s=QUICK_S) as supervisor,
    ):
        supervisor.watch(stream)
        path.unlink()
        path.mkdir()  # as good as a full disk
        until(lambda: "readers take it as stale" in caplog.text)
        next(stream)
        until(lambda: supervisor.health.state == "live")
        path.rmdir()
        until(path.is_file)
    assert caplog.text.count("readers take it as stale") == 1


def test_a_service_is_ready_alive_and_stopping(segment, manager):
    with Supervisor(manager=manager, look_every_s=QUICK_S) as supervisor:
        until(lambda: "WATCHDOG=1" in manager.heard)  # also while a model loads for minutes
        assert "READY=1" not in manager.heard
        with segment.stream(Camera()) as stream:
            supervisor.watch(stream)
            until(lambda: "READY=1" in manager.heard)
            next(stream)
            until(lambda: any(words.startswith("STATUS=live, ") for words in manager.heard))
            assert "STOPPING=1" not in manager.heard
    until(lambda: "STATUS=ended" in manager.heard)
    assert manager.heard.count("STOPPING=1") == 1


def test_a_service_that_hangs_is_not_called_alive(segment, manager):
    rules = WatchdogRules(patience_s=0.05)
    with (
        segment.stream(Camera(restartable=False)) as stream,
        Supervisor(manager=manager, rules=rules, look_every_s=QUICK_S) as supervisor,
    ):
        supervisor.watch(stream)
        next(stream)  # and nobody asks for the next result
        until(lambda: any("but no results" in words for words in manager.heard))
        count = manager.heard.count("WATCHDOG=1")
        for _ in range(3):
            wait_for_a_look(supervisor)
        assert manager.heard.count("WATCHDOG=1") == count
        until(lambda: next(stream) and manager.heard.count("WATCHDOG=1") > count)


def test_it_may_be_closed_twice_and_unused():
    supervisor = Supervisor(manager=ServiceManager({}))
    supervisor.close()
    with Supervisor(manager=ServiceManager({}), look_every_s=QUICK_S) as supervisor:
        supervisor.close()
        supervisor.close()
