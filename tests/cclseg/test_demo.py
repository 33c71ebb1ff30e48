import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from colour_model import write_colour_model

from cclseg import Segmenter
from cclseg.demo import MASKS_NAME, OVERLAY_NAME, REPORT_NAME, figures, run_demo
from cclseg.errors import InputError
from cclseg.image_files import read_mask
from cclseg.metrics import ConfusionMatrix
from cclseg.virtual import CLASS_NAMES, SceneStyle, VirtualFlight

FRAMES = 6


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "nearest.onnx"
    return write_colour_model(path)


@pytest.fixture(scope="module")
def flight():
    style = SceneStyle(urban_density=0.9, water="lagoon")
    return VirtualFlight(7, frames=FRAMES, frame_hw=(96, 128), gsd_m=0.9, style=style)


@pytest.fixture(scope="module")
def segmenter(model_path):
    with Segmenter(model_path, backend="onnxruntime", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def demo(segmenter, flight, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    calls = []
    result = run_demo(
        segmenter, flight, folder, on_frame=lambda done, live: calls.append((done, live.fps))
    )
    return folder, result, calls


def test_the_masks_are_those_of_the_segmenter_and_give_the_figures(demo, segmenter, flight):
    folder, result, _ = demo
    matrix = ConfusionMatrix(len(CLASS_NAMES))
    names = sorted(path.name for path in (folder / MASKS_NAME).iterdir())
    assert names == [f"frame_{index:06d}.png" for index in range(FRAMES)]
    for index, name in enumerate(names):
        mask = read_mask(folder / MASKS_NAME / name)
        frame = flight.frame(index)
        np.testing.assert_array_equal(mask, segmenter(frame.image).mask)
        matrix.update(mask, frame.mask)
    np.testing.assert_array_equal(matrix.counts, result.matrix.counts)
    assert result.live_mious[-1] == matrix.miou
    assert len(result.frame_mious) == FRAMES


def test_the_video_has_every_frame_at_full_size(demo):
    video = cv2.VideoCapture(str(demo[0] / OVERLAY_NAME), cv2.CAP_FFMPEG)
    sizes = []
    while True:
        there, image = video.read()
        if not there:
            break
        sizes.append(image.shape)
    video.release()
    assert sizes == [(96, 128, 3)] * FRAMES


def test_every_frame_is_reported_while_it_flies(demo):
    _, _, calls = demo
    assert [done for done, _ in calls] == list(range(1, FRAMES + 1))
    assert all(fps > 0 for _, fps in calls)


def test_the_report_shows_the_figures_and_stands_alone(demo):
    folder, result, _ = demo
    document = (folder / REPORT_NAME).read_text()
    assert f"{result.matrix.miou:.3f}" in document
    assert document.count("data:image/") == 4 * 5
    assert "http" not in document
    for name in (*CLASS_NAMES, "nearest-colour", "preprocess", "infer"):
        assert name in document


def test_the_json_figures_hold_the_raw_samples(demo, segmenter, flight):
    report = json.loads(json.dumps(figures(demo[1], segmenter, flight), allow_nan=False))
    assert set(report["per_class"]) == set(CLASS_NAMES)
    assert report["images"] == FRAMES
    assert report["pixels"] == FRAMES * 96 * 128
    assert {"infer", "render", "score", "write"} <= set(report["samples_ms"])
    assert all(len(samples) == FRAMES for samples in report["samples_ms"].values())
    assert report["latency_ms"]["segment"]["p50"] <= report["latency_ms"]["segment"]["p99"]
    assert report["flight"]["style"]["water"] == "lagoon"


def test_a_model_of_other_classes_is_refused_before_anything_is_written(flight, tmp_path):
    path = write_colour_model(tmp_path / "other.onnx", class_names="abcde")
    with (
        Segmenter(path, backend="onnxruntime", threads=1) as other,
        pytest.raises(InputError, match="knows the classes a, b, c, d, e; a virtual flight shows"),
    ):
        run_demo(other, flight, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run_cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cclseg", "demo", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_verb_prints_rate_and_accuracy_and_writes_all_files(model_path, tmp_path):
    figures_path = tmp_path / "figures.json"
    done = run_cli(
        "-m", str(model_path), "-o", str(tmp_path / "out"), "--frames", "3", "--seed", "5",
        "--size", "160x96", "--json", str(figures_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(figures_path.read_text())
    assert f"mIoU {report['miou']:.3f}" in done.stdout
    assert "frames/s" in done.stdout
    assert "frame 3/3" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert report["flight"]["frame_hw"] == [96, 160]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        OVERLAY_NAME, MASKS_NAME, REPORT_NAME,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "big"), "'big' is no size; expected WIDTHxHEIGHT"),
        (("--frames", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage_ends_with_code_two(arguments, message):
    done = run_cli(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
