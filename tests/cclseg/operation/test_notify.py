"""Words to the service manager, over a real socket."""

import os
import socket

import pytest

from cclseg.operation.notify import ServiceManager


@pytest.fixture(params=["file", "abstract"])
def manager_socket(request, tmp_path):
    """A manager that listens, and its address as it would be in the environment."""
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        name = f"\0cclseg-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.settimeout(30)
        yield listening, name.replace("\0", "@")


def heard(listening):
    return listening.recv(4096).decode()


def test_a_manager_hears_the_words_of_sd_notify(manager_socket):
    listening, address = manager_socket
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    manager.ready()
    manager.status("live, 12.5 results/s")
    manager.still_alive()
    manager.status("live, 12.5 results/s")  # nothing new
    manager.status("lost:\nREADY=0")  # a line stays one line
    manager.stopping()
    manager.stopping()
    assert [heard(listening) for _ in range(5)] == [
        "READY=1",
        "STATUS=live, 12.5 results/s",
        "WATCHDOG=1",
        "STATUS=lost: READY=0",
        "STOPPING=1",
    ]
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.recv(1)


def test_only_a_manager_that_watches_is_told_that_all_is_well(manager_socket):
    listening, address = manager_socket
    ServiceManager({"NOTIFY_SOCKET": address}).still_alive()
    other = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    ServiceManager(other).still_alive()
    ours = {**other, "WATCHDOG_PID": str(os.getpid())}
    ServiceManager(ours).still_alive()
    assert heard(listening) == "WATCHDOG=1"


def test_without_a_manager_nothing_is_sent():
    manager = ServiceManager({})
    manager.ready()
    manager.still_alive()
    assert not manager.watches


def test_a_manager_that_is_gone_stops_nothing(tmp_path, caplog):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()
    assert "cannot tell the service manager READY" in caplog.text
