"""Operation from the command line, as real processes: health, page, log lines, signals."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import pytest
from networks import colour_patches
from streaming import PATIENCE_S, until

COMMAND = [sys.executable, "-m", "cclseg"]


@pytest.fixture
def film(tmp_path):
    """A film of two minutes, which ends no test by its end."""
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for index in range(1200):
        writer.write(colour_patches((48, 64), seed=index % 8))
    writer.release()
    return path


@pytest.fixture
def fly(network, film, tmp_path):
    """Starts ``cclseg predict`` on the film in real time, in a folder of its own."""
    processes = []

    def start(*options, before=()):
        words = [*COMMAND, *before, "predict", f"realtime:{film}", "-m", str(network)]
        words += ["--backend", "onnxruntime", "--threads", "1", *options]
        process = subprocess.Popen(
            words, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def run(*words):
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)


def state_in(path):
    return json.loads(path.read_bytes())["state"] if path.exists() else None


def end(process):
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=PATIENCE_S)


class TestHealth:
    def test_a_health_check_follows_a_flight_from_start_to_end(self, fly, tmp_path):
        path = tmp_path / "health.json"
        flight = fly("--health", str(path), "-o", "shares.jsonl")
        until(lambda: state_in(path) == "live")
        check = run("doctor", "--health", str(path), "--max-age", str(PATIENCE_S))
        assert (check.returncode, check.stderr) == (0, "")
        assert re.fullmatch(r"live, [\d.]+ results/s\n", check.stdout)
        end(flight)
        assert flight.returncode == 0
        check = run("doctor", "--health", str(path))
        assert (check.returncode, check.stdout) == (1, "ended\n")

    def test_a_flight_that_was_killed_is_found_out(self, fly, tmp_path):
        path = tmp_path / "health.json"
        flight = fly("--health", str(path), "-o", "shares.jsonl")
        until(lambda: state_in(path) == "live")
        flight.kill()
        flight.wait()
        check = run("doctor", "--health", str(path), "--max-age", "0.001", "--json", "-")
        report = json.loads(check.stdout)
        assert (check.returncode, report["healthy"]) == (1, False)
        assert report["verdict"].startswith("stale: written ")

    def test_what_cannot_start_has_failed(self, tmp_path):
        path = tmp_path / "health.json"
        done = run("predict", str(tmp_path / "nothing.mp4"), "--health", str(path))
        assert done.returncode == 1
        assert "no such file" in json.loads(path.read_bytes())["reason"]

    def test_without_a_health_file_there_is_advice(self, tmp_path):
        check = run("doctor", "--health", str(tmp_path / "health.json"))
        assert check.returncode == 1
        assert "is 'cclseg predict --health" in check.stderr


class TestServiceManager:
    def test_it_hears_of_the_whole_flight(self, fly, tmp_path, monkeypatch):
        address, heard = tmp_path / "notify", []
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(address))
            manager.settimeout(PATIENCE_S)

            def hear(beginning):
                while not (heard and heard[-1].startswith(beginning)):
                    heard.append(manager.recv(4096).decode())

            flight = fly("-o", "shares.jsonl")
            for beginning in ("WATCHDOG=1", "READY=1", "STATUS=live, ", "WATCHDOG=1"):
                hear(beginning)
            flight.send_signal(signal.SIGTERM)
            hear("STOPPING=1")
            hear("STATUS=ended")
            flight.communicate(timeout=PATIENCE_S)
        assert heard.count("READY=1") == heard.count("STOPPING=1") == 1


class TestServe:
    def test_the_page_of_a_flight(self, fly, tmp_path):
        pytest.importorskip("aiohttp")
        flight = fly("--serve", "0")
        url = re.fullmatch(r"page: (http://127\.0\.0\.1:\d+/)\n", flight.stderr.readline())[1]

        def is_live():
            with urllib.request.urlopen(f"{url}healthz", timeout=PATIENCE_S) as answer:
                return json.load(answer)["state"] == "live"

        until(is_live)
        with urllib.request.urlopen(f"{url}stream.mjpg", timeout=PATIENCE_S) as pictures:
            assert b"image/jpeg" in pictures.read(200)
        stdout, _ = end(flight)
        assert flight.returncode == 0
        assert "until it was stopped -> page" in stdout
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".mp4"] == ["film.mp4"]
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=PATIENCE_S)

    @pytest.mark.parametrize("place", ["here", "1:2:3", "65536", "localhost:", ":80:"])
    def test_a_place_that_is_none_is_wrong_usage(self, place):
        done = run("predict", "virtual:frames=1", "--serve", place)
        assert done.returncode == 2
        assert f"'{place}' is no place to listen" in done.stderr


class TestLogLines:
    def test_every_line_is_json(self, fly, tmp_path):
        flight = fly("-o", "shares.jsonl", before=("--log-json", "-v"))
        until((tmp_path / "shares.jsonl").exists)
        _, stderr = end(flight)
        lines = [json.loads(line) for line in stderr.splitlines()]
        assert any(line["message"].startswith("stopping: ") for line in lines)
        assert {"time", "level", "logger", "message"} <= set(lines[0])

    def test_an_error_is_json_too(self, tmp_path):
        done = run("--log-json", "predict", str(tmp_path / "nothing.mp4"))
        (line,) = [json.loads(line) for line in done.stderr.splitlines()]
        assert (done.returncode, line["level"], line["exit_code"]) == (1, "error", 1)
        assert "no such file" in line["message"]

    def test_wrong_usage_is_json_too(self):
        done = run("--log-json", "predict", "--polcy", "all")
        (line,) = [json.loads(line) for line in done.stderr.splitlines()]
        assert (done.returncode, line["exit_code"]) == (2, 2)
        assert "--polcy" in line["message"]

    def test_a_trace_is_a_field(self):
        done = run("--log-json", "--debug", "predict", "nothing.mp4")
        (line,) = [json.loads(line) for line in done.stderr.splitlines()]
        assert line["trace"].rstrip().splitlines()[-1].startswith("cclseg.errors.SourceError")

    def test_failed_frames_are_named(self, network, tmp_path):
        folder = tmp_path / "photos"
        folder.mkdir()
        cv2.imwrite(str(folder / "a.png"), colour_patches((32, 32)))
        (folder / "b.png").write_bytes(b"no image")
        done = run(
            "--log-json", "predict", str(folder), "-m", str(network), "-o", str(tmp_path / "m")
        )
        (line,) = [json.loads(line) for line in done.stderr.splitlines()]
        assert done.returncode == 1
        assert list(line["failed"]) == ["b.png"]


class TestLibrary:
    def test_the_library_adds_no_handlers(self):
        code = (
            "import logging, cclseg.operation.server, cclseg.operation.supervisor, cclseg.cli.app;"
            "names = [n for n in logging.root.manager.loggerDict if n.startswith('cclseg')];"
            "print([n for n in names if logging.getLogger(n).handlers], logging.root.handlers)"
        )
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == "[] []\n"
