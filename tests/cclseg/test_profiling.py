"""Stage times."""

import pytest

from cclseg.profiling import StageTimer


def test_a_stage_adds_up_over_its_runs():
    timer = StageTimer()
    with timer.stage("a"):
        pass
    once = timer.ms["a"]
    with timer.stage("a"):
        pass
    assert timer.ms["a"] > once > 0


def test_stages_come_in_the_order_of_their_first_run():
    timer = StageTimer()
    for name in ("b", "a", "b"):
        with timer.stage(name):
            pass
    assert list(timer.ms) == ["b", "a"]


def test_a_stage_that_fails_is_timed_and_its_error_passes():
    timer = StageTimer()
    with pytest.raises(ZeroDivisionError), timer.stage("a"):
        1 / 0  # noqa: B018
    assert timer.ms["a"] > 0
