"""The watchdog's patience, by a clock of the tests' own."""

import pytest

from cclseg.operation.watchdog import Watchdog, WatchdogRules
from cclseg.sources.live import SourceEvent

RULES = WatchdogRules(patience_s=10, longest_s=35, restarts=3)


class Owing:
    """A source that owes a frame since second 0, looked at once a second."""

    def __init__(self, rules=RULES):
        self.watchdog, self.now_s = Watchdog(rules), 0

    def restarts_until(self, end_s):
        found = []
        while self.now_s < end_s:
            self.now_s += 1
            if self.watchdog.look(self.now_s, self.now_s):
                found.append(self.now_s)
        return found


def test_a_source_is_restarted_with_longer_and_longer_waits_and_then_given_up():
    owing = Owing()
    assert owing.restarts_until(99) == [10, 30, 65]
    assert not owing.watchdog.gave_up
    assert owing.restarts_until(1000) == []
    assert owing.watchdog.gave_up
    assert owing.watchdog.restarts == 3


def test_a_frame_forgives_everything():
    owing = Owing()
    owing.restarts_until(1000)
    assert not owing.watchdog.look(0.5, 1000)  # it gave a frame and owes the next one
    assert not owing.watchdog.gave_up
    assert owing.watchdog.look(10, 1010)


def test_a_source_that_owes_nothing_is_left_alone():
    watchdog = Watchdog(RULES)
    assert not any(watchdog.look(None, now_s) for now_s in range(1000))
    assert not watchdog.gave_up


def test_a_source_that_is_about_to_connect_again_has_its_time():
    owing = Owing()
    for moment_s in range(5, 3600, 20):
        assert owing.restarts_until(moment_s) == []
        owing.watchdog.hear(SourceEvent("camera", "lost", "no route", retry_s=15), moment_s)
    assert owing.restarts_until(3625) == [3585 + 15 + 10]


@pytest.mark.parametrize("state", ["stalled", "live"])
def test_a_source_that_only_says_how_it_is_has_not(state):
    owing = Owing()
    owing.restarts_until(9)
    owing.watchdog.hear(SourceEvent("camera", state), 9)
    assert owing.restarts_until(12) == [10]


def test_what_cannot_be_restarted_is_given_up():
    watchdog = Watchdog(RULES)
    assert watchdog.look(10, 10)
    watchdog.give_up()
    assert watchdog.gave_up
    assert not watchdog.look(1000, 1000)
