"""The server, over real sockets: what it gives, whom it refuses, what it withstands."""

import http.client
import json
import logging
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from cameras import Camera
from streaming import PATIENCE_S, until

pytest.importorskip("aiohttp")

from cclseg.errors import InputError, SinkError
from cclseg.operation import Supervisor, serve
from cclseg.operation.server import PageServer
from cclseg.operation.site import Limits
from cclseg.sources.live import SourceEvent

QUICK_S = 0.02
NEXT_PART = b"\r\n--cclseg-picture\r\nContent-Type: image/jpeg\r\n\r\n"


class Server:
    """A server with a stream, and a camera that may be told things."""

    def __init__(self, segment, cameras, limits, **options):
        self.cameras = cameras
        self.stream = segment.stream(cameras)
        self.supervisor = Supervisor(look_every_s=QUICK_S)
        self.page = PageServer(self.supervisor, port=0, limits=limits, **options)
        self.supervisor.watch(self.stream)
        self.supervisor.__enter__()
        self.port = int(self.page.url.rstrip("/").rpartition(":")[2])

    def close(self):
        self.page.close()
        self.supervisor.close()
        self.stream.close()

    def live(self):
        """Lets results come until the supervisor has seen one of each stream."""
        until(lambda: next(self.stream) and self.supervisor.health.state == "live")
        return self

    def ask(self, path, method="GET", **headers):
        """Returns status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def say(self, words):
        """Sends raw bytes, and returns all that comes back until the other side closes."""
        with self.connect() as channel:
            channel.sendall(words)
            return read_all(channel)


def read_all(channel):
    """Reads until the other side closes, in whatever way."""
    read = b""
    try:
        while piece := channel.recv(65536):
            read += piece
    except ConnectionResetError:
        pass
    return read


@pytest.fixture
def start(segment):
    servers = []

    def start_server(cameras=None, *, limits=None, **options):
        servers.append(Server(segment, cameras or Camera(), limits or Limits(), **options))
        return servers[-1]

    yield start_server
    for server in servers:
        server.close()


@pytest.fixture
def server(start):
    return start()


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def watch(server, query=""):
    """Begins to watch, and returns the connection after the headers."""
    channel = server.connect()
    channel.sendall(f"GET /stream.mjpg{query} HTTP/1.0\r\n\r\n".encode())
    file = channel.makefile("rb")
    status = int(file.readline().split()[1])
    headers = http.client.parse_headers(file)
    if status == 200:
        assert file.read(len(NEXT_PART) - 2) == NEXT_PART[2:]
    return channel, file, status, headers


@contextmanager
def fall_asleep(server):
    """Asks for pictures and reads none."""
    with server.connect() as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        channel.sendall(b"GET /stream.mjpg HTTP/1.0\r\n\r\n")
        until(lambda: server.page.watchers)
        yield


def read_picture(file):
    """Reads one part of a multipart answer, up to the head of the next one."""
    read = b""
    while not read.endswith(NEXT_PART):
        line = file.readline()
        assert line, "the server has closed the connection"
        read += line
    return read.removesuffix(NEXT_PART)


class TestAnswers:
    def test_health_is_json_with_a_status_that_tells(self, server):
        status, headers, body = server.ask("/healthz")
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        server.live()
        health = json.loads(server.ask("/healthz")[2])
        assert health["streams"][0]["classes"][0]["name"] == "redest"
        server.cameras.tell(SourceEvent("camera", "lost", "no route"))
        until(lambda: server.supervisor.health.state == "lost")
        status, _, body = server.ask("/healthz")
        assert (status, json.loads(body)["reason"]) == (503, "no route")

    def test_metrics_are_text(self, server):
        status, headers, body = server.live().ask("/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain")
        assert b"cclseg_results_delivered_total" in body

    @pytest.mark.parametrize(
        ("path", "kind"),
        [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"),
         ("/icon.svg", "image/svg+xml")],
    )  # fmt: skip
    def test_the_page_and_its_parts(self, server, path, kind):
        status, headers, body = server.ask(path)
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert body
        assert server.ask(path, "HEAD")[::2] == (200, b"")

    def test_every_answer_forbids_what_is_not_ours(self, server):
        for path in ("/", "/healthz", "/nothing"):
            headers = server.ask(path)[1]
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Server"] == "cclseg"
            assert "Access-Control-Allow-Origin" not in headers

    def test_nothing_on_the_page_comes_from_elsewhere(self, server):
        for path in ("/", "/page.css", "/page.js"):
            body = server.ask(path)[2].decode()
            assert "http://" not in body
            assert "https://" not in body
        page = server.ask("/")[2].decode()
        assert "style=" not in page
        assert "<script>" not in page

    def test_pictures_follow_one_another(self, server):
        server.live()
        channel, file, status, headers = watch(server)
        with channel, file:
            assert status == 200
            assert headers["Content-Type"] == "multipart/x-mixed-replace; boundary=cclseg-picture"
            seen = []
            while len(set(seen)) < 3:
                next(server.stream)
                seen.append(read_picture(file))
        assert all(jpeg.startswith(b"\xff\xd8") for jpeg in seen)

    def test_other_programs_can_watch_too(self, start):
        server = start(Camera(size_hw=(120, 160))).live()
        film = cv2.VideoCapture(f"{server.page.url}stream.mjpg", cv2.CAP_FFMPEG)
        if not film.isOpened():
            pytest.skip("this OpenCV reads no streams")
        read, picture = film.read()
        film.release()
        assert (read, picture.shape) == (True, (120, 160, 3))

    def test_streams_are_chosen_by_name(self, start):
        server = start({"left": Camera(), "right": Camera(size_hw=(48, 64))})
        server.live()
        for query, width in (("", 32), ("?stream=right", 64)):
            channel, file, status, _ = watch(server, query)
            with channel, file:
                assert status == 200
                picture = cv2.imdecode(np.frombuffer(read_picture(file), np.uint8), 1)
                assert picture.shape[1] == width
        status, _, body = server.ask("/stream.mjpg?stream=rigth")
        assert (status, body.decode()) == (404, "no stream 'rigth'; did you mean 'right'?\n")


class TestWhomItAnswers:
    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "10.0.0.7", "[::1]:8080", "drone.lan"]
    )
    def test_names_of_this_machine_and_addresses(self, start, host):
        assert start(names=["Drone.lan"]).ask("/healthz", Host=host)[0] == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[evil]", ""],
    )
    def test_a_name_that_a_stranger_points_here_is_refused(self, server, host):
        status, _, body = server.ask("/healthz", Host=host)
        assert status == 421
        assert b"--serve-name" in body

    def test_an_old_client_without_a_name_is_answered(self, server):
        assert server.say(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")

    def test_it_listens_on_this_machine_alone_unless_told(self, start, caplog):
        assert start().page.url.startswith("http://127.0.0.1:")
        assert not caplog.records
        assert start(address="0.0.0.0").page.url.startswith("http://0.0.0.0:")
        assert "there is no password and no encryption" in caplog.text

    def test_a_place_that_is_taken_is_an_error(self, server):
        with pytest.raises(SinkError, match=r"cannot listen on 127\.0\.0\.1 port"):
            PageServer(server.supervisor, port=server.port)
        with pytest.raises(SinkError, match="choose another port or an address"):
            PageServer(server.supervisor, address="192.0.2.1", port=0)


class TestWhatItWithstands:
    @pytest.mark.parametrize(
        ("words", "status"),
        [
            (b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", b"404"),
            (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.0\r\n\r\n", b"404"),
            (b"GET /page.js/../../site.py HTTP/1.0\r\n\r\n", b"404"),
            (b"GET //etc/passwd HTTP/1.0\r\n\r\n", b"404"),
            (b"GET /" + b"a" * 100_000 + b" HTTP/1.0\r\n\r\n", b"400"),
            (b"GET / HTTP/1.0\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"400"),
            (b"GET / HTTP/1.0\r\n" + b"X: a\r\n" * 100_000 + b"\r\n", b"400"),
            (b"PROPFIND / HTTP/1.0\r\n\r\n", b"405"),
            (b"DELETE /healthz HTTP/1.0\r\n\r\n", b"405"),
            (b"POST / HTTP/1.0\r\nContent-Length: 4000000000\r\n\r\n", b"405"),
            (b"GET / HTTP/9.9\r\n\r\n", b"400"),
            (b"GET / HTTP/1.0\r\nContent-Length: -1\r\n\r\n", b"400"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
            (b"\0" * 5000, b"400"),
            (b"nonsense\r\n\r\n", b"400"),
            (b"\xff\xfe\r\n\r\n", b"400"),
        ],
    )  # fmt: skip
    def test_garbage_gets_a_refusal_and_no_line_in_the_log(self, start, words, status, caplog):
        caplog.set_level(logging.INFO)
        server = start(limits=Limits(request_s=PATIENCE_S))
        try:
            answer = server.say(words)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if answer or len(words) < 1000:  # it need not read so much nonsense to its end
            assert answer.split(b" ", 2)[1] == status
        assert b"root:" not in answer
        assert not caplog.records
        assert server.ask("/healthz")[0] == 200

    def test_who_sends_a_request_byte_by_byte_is_cut_off(self, start):
        server = start(limits=Limits(request_s=0.3))
        with server.connect() as channel:
            cut = False
            deadline = time.monotonic() + PATIENCE_S
            for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000:
                try:
                    channel.sendall(bytes([byte]))
                except OSError:
                    cut = True
                    break
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert cut
        assert server.ask("/healthz")[0] == 200

    def test_who_says_nothing_is_cut_off_too(self, start):
        server = start(limits=Limits(request_s=0.2))
        assert server.say(b"") == b""

    def test_who_says_nothing_more_is_cut_off_as_well(self, start):
        server = start(limits=Limits(idle_s=0.2))
        answer = server.say(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")  # and it has an end, by the server

    def test_one_connection_too_many_is_turned_away_and_room_is_made_again(self, start):
        server = start(limits=Limits(connections=3))
        with ExitStack() as crowd:
            for _ in range(3):
                crowd.enter_context(server.connect())
            assert server.say(b"").startswith(b"HTTP/1.1 503")
        until(lambda: server.say(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200"))

    def test_one_watcher_too_many_is_asked_to_come_later(self, start):
        server = start(limits=Limits(watchers=2)).live()
        watchers = [watch(server) for _ in range(2)]
        assert [status for _, _, status, _ in watchers] == [200, 200]
        status, headers, body = server.ask("/stream.mjpg")
        assert (status, headers["Retry-After"]) == (503, "10")
        assert body == b"2 watch already; try again later\n"
        for channel, file, _, _ in watchers:
            file.close()
            channel.close()

        def there_is_room():
            channel, file, status, _ = watch(server)
            with channel, file:
                return status == 200

        until(there_is_room)

    def test_a_watcher_that_does_not_read_slows_nobody(self, start):
        server = start(Camera(size_hw=(720, 960))).live()
        with fall_asleep(server):
            channel, file, _, _ = watch(server)
            with channel, file:
                seen = set()
                while len(seen) < 3:
                    next(server.stream)  # the stream goes on, and so do the pictures of others
                    seen.add(read_picture(file))

    def test_a_watcher_that_does_not_read_is_left_behind(self, start):
        server = start(Camera(size_hw=(720, 960)), limits=Limits(watchers=1, picture_s=0.2)).live()
        with fall_asleep(server):
            until(lambda: next(server.stream) and not server.page.watchers)

    def test_five_hundred_requests_and_no_descriptor_is_left(self, server):
        server.ask("/healthz")
        before = open_files()
        for _ in range(500):
            server.say(b"GET /healthz HTTP/1.0\r\n\r\n")
        until(lambda: open_files() <= before)


class TestServe:
    def test_a_stream_of_a_program_gets_a_page(self, segment, tmp_path):
        path = tmp_path / "health.json"
        with (
            segment.stream(Camera()) as stream,
            serve(stream, port=0, health_file=path) as page,
        ):
            next(stream)
            port = int(page.url.rstrip("/").rpartition(":")[2])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", "/healthz")
            assert json.loads(connection.getresponse().read())["about"]["source"] == "camera"
            connection.close()
        assert json.loads(path.read_bytes())["state"] == "ended"
        page.close()

    def test_an_error_in_the_program_is_told(self, segment, tmp_path):
        path = tmp_path / "health.json"
        with (
            pytest.raises(InputError),
            segment.stream(Camera()) as stream,
            serve(stream, port=0, health_file=path),
        ):
            raise InputError("no such waypoint")
        assert json.loads(path.read_bytes())["reason"] == "no such waypoint"

    def test_it_can_be_opened_and_closed_again_and_again(self, segment):
        for _ in range(30):
            with segment.stream(Camera()) as stream, serve(stream, port=0):
                next(stream)
