"""The options of predict about positions."""

import json
import socket

import cv2
import numpy as np
import pytest
from mavlink_wire import Autopilot
from networks import colour_patches

from cclseg.cli.app import run

VIRTUAL = "virtual:seed=3,frames=3,size=96x64,gsd_m=1.0"


@pytest.fixture
def predict(network, tmp_path, monkeypatch, capfd):
    """Runs the verb in this process; returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run(
            ["predict", "-m", str(network), "--backend", "onnxruntime", *map(str, arguments)]
        )
        return code, *capfd.readouterr()

    return call


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_virtual_flight_knows_where_it_is(predict, tmp_path):
    code, out, err = predict(VIRTUAL, "-o", "a.geojsonl")
    assert (code, err) == (0, "")
    assert out.startswith("3 frames -> a.geojsonl")
    features = lines(tmp_path / "a.geojsonl")
    assert [feature["geometry"]["type"] for feature in features] == ["Polygon"] * 3
    assert features[0]["properties"]["gsd_m"] == pytest.approx(1, rel=0.1)


def test_regions_come_on_request(predict, tmp_path):
    predict(VIRTUAL, "-o", "a.geojsonl", "--regions", "--min-area", "50")
    kinds = [feature["properties"]["kind"] for feature in lines(tmp_path / "a.geojsonl")]
    assert kinds.count("frame") == 3
    assert kinds.count("region") > 3


def test_photos_get_positions_from_a_log_and_a_lens(predict, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    autopilot = Autopilot()
    data = (10**15).to_bytes(8, "big") + autopilot.heartbeat()
    for index in range(3):
        cv2.imwrite(str(photos / f"{index}.png"), colour_patches((48, 64), seed=index))
        told = autopilot.messages.MAVLink_camera_image_captured_message(
            autopilot.boot_ms(index), 0, 0, 470000000 + index, 80000000, 500000, 100000,
            [0.7071068, 0, -0.7071068, 0], index, 1, b"",
        )  # fmt: skip
        data += (10**15 + index * 10**6).to_bytes(8, "big") + autopilot.pack(told)
    (tmp_path / "flight.tlog").write_bytes(data)
    code, out, _ = predict(
        "photos", "-o", "a.geojsonl", "--mavlink", "flight.tlog", "--hfov", "90", "--json", "r.json"
    )
    assert code == 0
    assert "positions: 3 frames with, 0 without" in out
    telemetry = json.loads((tmp_path / "r.json").read_text())["telemetry"]
    assert (telemetry["poses"], telemetry["system"]) == (3, 1)
    for feature in lines(tmp_path / "a.geojsonl"):
        assert feature["properties"]["gsd_m"] == pytest.approx(100 / 32, rel=1e-3)


def test_a_link_on_which_nobody_speaks_is_said_and_does_not_stop_the_job(predict, tmp_path):
    (tmp_path / "photos").mkdir()
    cv2.imwrite("photos/a.png", np.zeros((48, 64, 3), np.uint8))
    code, out, err = predict("photos", "-o", "a.geojsonl", "--mavlink", "udp://127.0.0.1:0")
    assert code == 0
    assert "positions: 0 frames with, 1 without" in out
    assert err == "warning: no autopilot was heard on the telemetry\n"
    (feature,) = lines(tmp_path / "a.geojsonl")
    assert feature["geometry"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "a.jsonl", "--regions"], "go into a .geojsonl"),
        (["-o", "a.geojsonl", "--min-area", "5"], "are about regions"),
        (["-o", "a.geojsonl", "--camera", "0"], "expected more than 0 pixels"),
        (["-o", "a.geojsonl", "--camera", "9", "--hfov", "9"], "give one of them"),
        (["-o", "a.geojsonl", "--dem", "none.tif"], "none.tif"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(predict, options, message, tmp_path):
    code, _, err = predict(VIRTUAL, *options)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_telemetry_that_cannot_be_opened_fails_before_anything_is_done(predict, tmp_path):
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = predict(VIRTUAL, "-o", "a.geojsonl", "--mavlink", address)
    assert code == 1
    assert "cannot listen" in err
    assert not list(tmp_path.iterdir())
