"""The watchdog with a real RTSP server that freezes, and a source that would wait for ever."""

import pytest
from streaming import RtspServer, require_gstreamer, until

from cclseg import open_source
from cclseg.operation import Supervisor
from cclseg.operation.watchdog import WatchdogRules
from cclseg.sources.live import Patience

require_gstreamer()

FOR_EVER = Patience(connect_s=1e6, stall_s=1e6, lost_s=1e6, first_retry_s=0.1)
RULES = WatchdogRules(patience_s=2.0, longest_s=4.0, restarts=1000)


@pytest.fixture
def server():
    with RtspServer() as running:
        yield running


def states_in(health):
    return {event.state for event in health.events}


def test_a_frozen_server_is_connected_to_again_by_the_watchdog(segment, server):
    with (
        open_source(server.url, patience=FOR_EVER) as camera,
        segment.stream(camera) as stream,
        Supervisor(rules=RULES, look_every_s=0.05) as supervisor,
    ):
        supervisor.watch(stream)
        next(stream)
        server.freeze()
        until(lambda: {"restarted", "lost"} <= states_in(supervisor.health))
        assert supervisor.health.streams[0].restarts >= 1
        assert supervisor.health.state != "live"
        server.thaw()
        until(lambda: next(stream) and supervisor.health.state == "live")
        assert "restored" in states_in(supervisor.health)
        details = [event.detail for event in supervisor.health.events]
        assert any(detail.startswith("restarted by the watchdog") for detail in details)
        frame = supervisor.newest().frame
        assert frame.name == f"frame_{frame.index:06d}"
