"""The verb predict, as a process."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from contracts import frames_in, images_in
from networks import colour_patches

from cclseg.cli.app import run

COMMAND = [sys.executable, "-m", "cclseg"]


@pytest.fixture
def flight(tmp_path, monkeypatch):
    """A folder of four images; the test runs in the folder above it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "flight"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"photo_{index}.png"), colour_patches((48, 64), seed=index))
    return folder


@pytest.fixture
def predict(network, capfd):
    """Runs the verb in this process; returns the exit code and what was printed."""

    def call(*arguments):
        code = run(
            ["predict", "-m", str(network), "--backend", "onnxruntime", *map(str, arguments)]
        )
        return code, *capfd.readouterr()

    return call


def write_film(path, frames=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for index in range(frames):
        writer.write(colour_patches((48, 64), seed=index))
    writer.release()
    return path


class TestOutputs:
    def test_a_folder_gives_a_folder_of_masks_named_after_it(self, predict, flight, tmp_path):
        code, out, err = predict(flight)
        assert (code, err) == (0, "")
        assert out.startswith("4 frames -> flight_masks")
        assert [mask.shape for mask in images_in(tmp_path / "flight_masks")] == [(48, 64, 1)] * 4

    def test_an_image_gives_a_mask_or_an_overlay(self, predict, flight, tmp_path):
        assert predict(flight / "photo_1.png")[0] == 0
        assert predict(flight / "photo_1.png", "--overlay")[0] == 0
        assert images_in(tmp_path.joinpath("flight"))[1].shape == (48, 64, 3)
        assert (tmp_path / "photo_1_mask.png").exists()
        assert (tmp_path / "photo_1_overlay.jpg").exists()

    def test_a_pattern_with_overlays(self, predict, flight, tmp_path):
        assert predict("flight/photo_[12].png", "--overlay", "-o", "drawn")[0] == 0
        assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
            "photo_1.jpg", "photo_2.jpg",
        ]  # fmt: skip

    def test_a_film_gives_a_film_or_masks(self, predict, flight, tmp_path):
        film = write_film(flight / "film.mp4")
        assert predict(film)[0] == 0
        assert len(frames_in(tmp_path / "film_overlay.mp4")) == 10
        assert predict(film, "-o", "masks")[0] == 0
        assert len(images_in(tmp_path / "masks")) == 10

    def test_figures_as_json(self, predict, flight, tmp_path):
        assert predict(flight, "--json", "figures.json")[0] == 0
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert (figures["done"], figures["failed"]) == (4, [])
        assert (figures["backend"], figures["precision"]) == ("onnxruntime", "fp32")
        assert figures["output"] == "flight_masks"
        assert figures["fps"] > 0

    def test_json_on_standard_output_is_nothing_but_json(self, predict, flight):
        code, out, _ = predict(flight, "--json", "-")
        assert code == 0
        assert json.loads(out)["done"] == 4


class TestFailures:
    def test_broken_files_are_named_and_the_exit_code_is_1(self, predict, flight, tmp_path):
        (flight / "photo_1.png").write_bytes(b"")
        (flight / "photo_2.png").write_bytes(b"text")
        code, out, err = predict(flight)
        assert code == 1
        assert out.startswith("2 frames -> flight_masks")
        assert err.startswith("error: 2 frames failed:")
        assert "photo_1.png" in err
        assert "photo_2.png" in err
        assert len(images_in(tmp_path / "flight_masks")) == 2

    def test_masks_never_replace_the_images_they_come_from(self, predict, flight):
        before = [path.read_bytes() for path in sorted(flight.iterdir())]
        code, _, err = predict(flight, "-o", flight)
        assert code == 1
        assert "is the input itself" in err
        assert [path.read_bytes() for path in sorted(flight.iterdir())] == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["flight", "-o", "one.png"], "one.png holds one frame, the source gives 4"),
            (["flight", "-o", "out.tif"], "no results of the form '.tif'"),
            (["flight", "--overlap", "2"], "--overlap"),
            (["flight", "--threads", "0"], "--threads"),
            (["flight", "--tile", "30"], "multiples of the model's output stride"),
            (["flight", "--backends", "auto"], "Did you mean '--backend'"),
            (["flight", "--backend", "onxruntime"], "did you mean 'onnxruntime'"),
            (["flight", "-m", "absent.onnx"], "no such file"),
            ([], "Missing argument 'SOURCE'"),
        ],
    )
    def test_wrong_usage_is_2_and_starts_nothing(
        self, predict, flight, tmp_path, arguments, message
    ):
        code, _, err = predict(*arguments)
        assert code == 2
        assert message in err.replace("\n", " ")
        assert {path.parent for path in tmp_path.rglob("*.*")} == {flight}

    def test_a_missing_source_is_1_with_the_nearest_name(self, predict, flight):
        code, _, err = predict("fligt")
        assert code == 1
        assert "did you mean 'flight'" in err
        assert len(err.splitlines()) == 1

    def test_a_model_cut_in_half_is_1_in_one_line(self, network, flight, tmp_path, capfd):
        whole = network.read_bytes()
        (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
        assert run(["predict", "flight", "-m", "cut.onnx"]) == 1
        assert "cut.onnx is no whole ONNX file" in capfd.readouterr().err


class TestProcess:
    @pytest.fixture
    def long_job(self, network, flight):
        """A job of minutes, on its way: its first results stand, its video is half written."""
        write_film(flight / "film.mp4", 3000)
        arguments = ["predict", "flight/film.mp4", "-m", str(network), "--backend", "onnxruntime"]
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--overlap", "0.9"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not list(flight.parent.glob(".film_overlay.*")) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        yield process
        process.kill()
        process.communicate()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_in_good_order(self, long_job, flight, number):
        long_job.send_signal(number)
        out, err = long_job.communicate(timeout=60)
        assert long_job.returncode == 130
        assert err == "stopping: what is on its way is written; once more to stop at once\n"
        done = int(re.match(r"(\d+) frames? until it was stopped -> film_overlay.mp4", out)[1])
        assert len(frames_in(flight.parent / "film_overlay.mp4")) == done > 0
        assert not list(flight.parent.glob(".film_overlay*"))

    def test_a_second_signal_ends_it_at_once_and_leaves_nothing_half_written(
        self, long_job, flight
    ):
        long_job.send_signal(signal.SIGINT)
        assert long_job.stderr.readline().startswith("stopping")
        long_job.send_signal(signal.SIGINT)
        _, err = long_job.communicate(timeout=60)
        assert long_job.returncode == 130
        assert "Traceback" not in err
        assert len(list(flight.parent.glob("*film_overlay*"))) <= 1  # it may have been quick
        assert not list(flight.parent.glob(".film_overlay*"))

    def test_after_a_kill_no_half_film_stands_under_the_final_name(self, long_job, flight):
        long_job.kill()
        long_job.communicate(timeout=30)
        assert not list(flight.parent.glob("film_overlay*"))

    def test_on_a_terminal_it_shows_how_far_it_is(self, network, flight):
        controller, terminal = pty.openpty()
        arguments = ["predict", "flight", "-m", str(network), "--backend", "onnxruntime"]
        done = subprocess.run(
            [*COMMAND, *arguments], stderr=terminal, stdout=subprocess.PIPE, check=True, text=True,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(terminal)
        shown = os.read(controller, 100_000).decode()
        os.close(controller)
        assert "4/4" in shown
        assert "fps" in shown
        assert "4/4" not in done.stdout


def test_masks_are_those_of_the_segmenter(predict, network, flight, tmp_path):
    from cclseg import Segmenter

    predict(flight)
    with Segmenter(network, backend="onnxruntime") as segment:
        for index, mask in enumerate(images_in(tmp_path / "flight_masks")):
            expected = segment(colour_patches((48, 64), seed=index)).mask
            np.testing.assert_array_equal(mask[:, :, 0], expected)


def test_symmetries_are_asked_for_by_name(predict, network, flight, tmp_path):
    from cclseg import Segmenter

    assert predict(flight, "--tta", "flips", "--json", "j.json")[0] == 0
    assert json.loads((tmp_path / "j.json").read_text())["tta"] == "flips"
    with Segmenter(network, backend="onnxruntime", tta="flips") as segment:
        expected = [segment(colour_patches((48, 64), seed=index)).mask for index in range(4)]
    written = images_in(tmp_path / "flight_masks")
    np.testing.assert_array_equal([mask[:, :, 0] for mask in written], expected)
    assert predict(flight, "--tta", "d8")[0] == 2


@pytest.mark.parametrize("refine", ["fast", "full"])
def test_refinements_are_asked_for_by_name(predict, network, flight, tmp_path, refine):
    from cclseg import Segmenter

    assert predict(flight, "--refine", refine, "--json", "j.json")[0] == 0
    report = json.loads((tmp_path / "j.json").read_text())
    assert report["refine"] == refine
    assert report["stage_ms"]["refine"] > 0
    with Segmenter(network, backend="onnxruntime", refine=refine) as segment:
        expected = [segment(colour_patches((48, 64), seed=index)).mask for index in range(4)]
    written = images_in(tmp_path / "flight_masks")
    np.testing.assert_array_equal([mask[:, :, 0] for mask in written], expected)
    assert predict(flight, "--refine", "best")[0] == 2


class TestSteadyOutput:
    def test_smoothing_is_asked_for_by_name(self, predict, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        ground = colour_patches((48, 120), patch=12)
        (tmp_path / "pan").mkdir()
        for index in range(6):
            cv2.imwrite(str(tmp_path / f"pan/{index}.png"), ground[:, 3 * index : 3 * index + 64])
        assert predict("pan", "-o", "off")[0] == 0
        code, out, _ = predict("pan", "-o", "smooth", "--temporal", "smooth", "--json", "j.json")
        assert code == 0
        assert json.loads((tmp_path / "j.json").read_text())["stage_ms"]["temporal"] > 0
        off, smooth = (images_in(tmp_path / name) for name in ("off", "smooth"))
        np.testing.assert_array_equal(off[0], smooth[0])
        assert any((a != b).any() for a, b in zip(off, smooth, strict=True))
        assert "frames by level" not in out

    def test_a_budget_tells_the_levels_of_the_frames(self, predict, flight, tmp_path):
        code, out, _ = predict(flight, "--budget-ms", "0.001", "--json", "j.json")
        levels = json.loads((tmp_path / "j.json").read_text())["levels"]
        assert code == 0
        assert sum(levels.values()) == 4
        for name in levels.keys() - {"full"}:
            assert f"{name} {levels[name]}" in out
        assert [mask.shape for mask in images_in(tmp_path / "flight_masks")] == [(48, 64, 1)] * 4

    @pytest.mark.parametrize(
        "wrong", [("--temporal", "smoth"), ("--budget-ms", "0"), ("--budget-ms", "-3")]
    )
    def test_what_cannot_be_is_wrong_usage(self, predict, flight, wrong):
        assert predict(flight, *wrong)[0] == 2
