"""What a test must not leave behind."""

import threading
from contextlib import contextmanager


@contextmanager
def no_new_threads():
    """Fails where a thread that was started inside still runs at the end."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
