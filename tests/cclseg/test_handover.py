"""Items cross threads in order, errors reach the caller, and no thread stays behind."""

import threading
import time
import traceback

import pytest

from cclseg.handover import Background, prefetched


@pytest.fixture(autouse=True)
def _no_thread_stays_behind():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class TestPrefetched:
    def test_items_come_in_order(self):
        assert list(prefetched(range(100), ahead=3)) == list(range(100))

    def test_no_more_than_asked_wait(self):
        fetched = []

        def items():
            for number in range(50):
                fetched.append(number)
                yield number

        for number in prefetched(items(), ahead=2):
            time.sleep(0.002)
            assert len(fetched) - number <= 4  # this one, two that wait, one that is being put

    def test_an_error_comes_after_the_items_before_it_and_shows_its_origin(self):
        def items():
            yield 1
            yield 2
            raise ValueError("the disk is gone")

        seen = []
        with pytest.raises(ValueError, match="the disk is gone") as caught:
            seen.extend(prefetched(items(), ahead=5))
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert "items" in [frame.name for frame in frames]

    def test_items_before_an_error_are_handed_out(self):
        def items():
            yield from (1, 2)
            raise ValueError

        seen = []
        with pytest.raises(ValueError):  # noqa: PT011, PT012
            for item in prefetched(items(), ahead=5):
                seen.append(item)
        assert seen == [1, 2]

    def test_leaving_early_ends_the_thread_and_the_iterator(self):
        ended = []

        def items():
            try:
                yield from range(10**9)
            finally:
                ended.append(True)

        stream = prefetched(items(), ahead=2)
        assert next(stream) == 0
        stream.close()
        assert ended == [True]

    def test_an_unused_one_starts_no_thread(self):
        before = threading.active_count()
        stream = prefetched(range(3), ahead=1)
        assert threading.active_count() == before
        stream.close()


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

        def consume(number):
            release.wait(5)
            done.append(number)

        def put_and_fail():
            with Background(consume, waiting=5) as worker:
                for number in range(4):
                    worker.put(number)
                threading.Timer(0.05, release.set).start()
                raise RuntimeError("the caller failed")

        with pytest.raises(RuntimeError, match="the caller failed"):
            put_and_fail()
        assert len(done) <= 1
