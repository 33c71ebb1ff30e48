"""Items cross threads in order, errors reach the caller, and no thread stays behind."""

import threading

import pytest
from leftovers import no_new_threads

from cclseg.handover import Background, Channel, Lane, Lanes


@pytest.fixture(autouse=True)
def _no_thread_stays_behind():
    with no_new_threads():
        yield


class TestChannel:
    def test_items_come_in_order_and_no_more_than_fit_wait(self):
        channel, waiting = Channel(3), []

        def produce():
            for number in range(50):
                channel.put(number)
            channel.close()

        thread = threading.Thread(target=produce)
        thread.start()
        taken = []
        while item := channel.take():
            taken += item
            waiting.append(len(channel._items))
        thread.join()
        assert taken == list(range(50))
        assert max(waiting) <= 3

    def test_closing_wakes_those_who_wait_on_either_side(self):
        full, empty, outcome = Channel(1), Channel(1), []
        full.put(0)
        threads = [
            threading.Thread(target=lambda: outcome.append(full.put(1))),
            threading.Thread(target=lambda: outcome.append(empty.take())),
        ]
        for thread in threads:
            thread.start()
        full.close(drop=True)
        empty.close()
        for thread in threads:
            thread.join()
        assert sorted(map(str, outcome)) == ["False", "[]"]

    def test_what_waits_is_still_handed_out_unless_it_is_dropped(self):
        kept, dropped = Channel(2), Channel(2)
        for channel in (kept, dropped):
            channel.put("a")
        kept.close()
        dropped.close(drop=True)
        assert (kept.take(), kept.take(), dropped.take()) == (["a"], [], [])

    def test_one_may_look_without_waiting(self):
        assert Channel(1).take(wait=False) == []


class TestLanes:
    def test_lanes_take_turns(self):
        lanes = Lanes([Lane(9), Lane(9), Lane(9)])
        for number in range(6):
            lanes.put(0, f"busy {number}")
        lanes.put(1, "quiet")
        lanes.put(2, "also")
        assert [lanes.take()[0] for _ in range(4)] == ["busy 0", "quiet", "also", "busy 1"]

    def test_a_full_lane_gives_up_its_oldest_and_counts_it(self):
        lanes = Lanes([Lane(3, drops=True), Lane(3)])
        for number in range(10):
            lanes.put(0, number)
        assert [lanes.take()[0] for _ in range(3)] == [7, 8, 9]
        assert lanes.dropped == [7, 0]

    def test_the_last_item_of_a_lane_is_never_given_up(self):
        lanes = Lanes([Lane(1, drops=True)])
        lanes.put(0, "frame")
        lanes.end(0, "end")
        assert not lanes.put(0, "late")
        assert [lanes.take(), lanes.take(), lanes.take()] == [["frame"], ["end"], []]

    def test_one_end_for_all_comes_behind_what_waits(self):
        lanes = Lanes([Lane(2), Lane(2)])
        lanes.end(0, "first is over")
        lanes.put(1, "frame")
        lanes.end_all("failure")
        assert [lanes.take()[0] for _ in range(3)] == ["first is over", "frame", "failure"]
        assert lanes.take() == []

    def test_closing_wakes_who_waits_for_room_and_who_waits_for_an_item(self):
        lanes, outcome = Lanes([Lane(1), Lane(1)]), []
        lanes.put(0, 0)
        putting = threading.Thread(target=lambda: outcome.append(lanes.put(0, 1)))
        putting.start()
        lanes.close()
        putting.join()
        assert (outcome, lanes.take()) == ([False], [])


class TestBackground:
    def test_all_items_are_done_when_it_is_left(self):
        done = []
        with Background(done.append, waiting=2) as worker:
            for number in range(100):
                worker.put(number)
        assert done == list(range(100))

    def test_they_are_done_in_another_thread(self):
        names = []
        with Background(
            lambda _: names.append(threading.current_thread().name), waiting=1
        ) as worker:
            worker.put(None)
        assert names == ["cclseg-background"]

    def test_an_error_stops_the_caller_who_goes_on_putting(self):
        def refuse(number):
            raise OSError(f"cannot write {number}")

        put = []

        def put_many():
            with Background(refuse, waiting=1) as worker:
                for number in range(1000):
                    worker.put(number)
                    put.append(number)

        with pytest.raises(OSError, match="cannot write 0"):
            put_many()
        assert len(put) < 1000

    def test_an_error_with_the_last_item_is_raised_on_leaving(self):
        def refuse(number):
            raise OSError(f"cannot write {number}")

        with (
            pytest.raises(OSError, match="cannot write 7"),
            Background(refuse, waiting=1) as worker,
        ):
            worker.put(7)

    def test_an_error_of_the_caller_drops_what_waits(self):
        done = []
        release = threading.Event()
        later = threading.Timer(0.05, release.set)

        def consume(number):
            release.wait(5)
            done.append(number)

        def put_and_fail():
            with Background(consume, waiting=5) as worker:
                for number in range(4):
                    worker.put(number)
                later.start()
                raise RuntimeError("the caller failed")

        with pytest.raises(RuntimeError, match="the caller failed"):
            put_and_fail()
        later.join()
        assert len(done) <= 1
