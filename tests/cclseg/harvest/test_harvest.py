"""The harvest's folder: a dataset at every moment."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from streaming import until
from unsure import item

from cclseg import Segmenter, open_sink
from cclseg.cli.app import run
from cclseg.dataset import open_dataset
from cclseg.errors import InputError, SinkError
from cclseg.harvest import SPLIT, Harvest, HarvestSink
from cclseg.pose import Camera, Pose
from cclseg.result import Segmentation

SUPPORT = Path(__file__).parents[2] / "support"


def harvested(folder, items, *, frames=4):
    with Harvest(folder, frames=frames) as harvest:
        for one in items:
            harvest.offer(*one)
    return folder


def records(folder):
    return json.loads((folder / "harvest.json").read_text())["frames"]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def flight(count, *, start=0):
    return [
        item(index, unsure=(index * 37 % 100 + 1) / 101) for index in range(start, start + count)
    ]


def check(folder, *, frames):
    """It is a dataset, holds no more than it may, and nothing lies about."""
    dataset = open_dataset(folder)
    stems = dataset.stems(SPLIT)
    assert dataset.check() == 3
    assert len(stems) <= frames
    return stems


class TestFolder:
    def test_it_is_a_dataset_of_the_frames_that_are_worth_most(self, tmp_path):
        folder = harvested(tmp_path / "a", flight(60))
        stems = check(folder, frames=4)
        assert len(stems) == 4
        assert len(files(folder)) == 3 + 2 * 4  # three lists, and an image and a mask each
        assert min(one["unsure"] for one in records(folder)) > 0.5
        dataset = open_dataset(folder)
        assert dataset.class_names == ("redest", "greenest", "blueest")
        assert (dataset.load(stems[0]).mask == 1).all()

    def test_each_frame_says_where_it_was_and_why_it_was_kept(self, tmp_path):
        pose = Pose(47.0, 8.0, 500.0, 100.0, yaw_deg=5.0)
        one = item(3, unsure=0.5, pose=pose, camera=Camera(50.0, (48, 64)), timestamp_s=1.5)
        (record,) = records(harvested(tmp_path / "a", [one]))
        assert record["why"].startswith("unsure of 50% of the frame, mostly between greenest and")
        assert record["pose"]["latitude_deg"] == 47.0
        assert record["camera"]["focal_length_px"] == 50.0
        assert record["timestamp_s"] == 1.5
        assert record["score"] == pytest.approx(0.475, abs=0.01)

    def test_images_keep_their_colours(self, tmp_path):
        folder = harvested(tmp_path / "a", [item(0, unsure=0.5, tint=(250, 100, 5))])
        (stem,) = check(folder, frames=1)
        mean = open_dataset(folder).load(stem).image.mean(axis=(0, 1))
        np.testing.assert_allclose(mean, [5, 100, 250], atol=3)  # a dataset's are RGB

    def test_four_channels_are_kept_without_loss(self, tmp_path):
        frame, result = item(0, unsure=0.5)
        image = np.random.default_rng(0).integers(0, 256, (48, 64, 4), np.uint8)
        frame = frame.__class__(image, 0, "a")
        folder = harvested(tmp_path / "a", [(frame, result)])
        np.testing.assert_array_equal(open_dataset(folder).load("a").image, image)

    def test_a_second_run_goes_on_with_the_harvest(self, tmp_path):
        folder = harvested(tmp_path / "a", flight(30))
        first = {one["score"] for one in records(folder)}
        harvested(folder, flight(30, start=1000))
        assert len(check(folder, frames=4)) == 4
        assert min(one["score"] for one in records(folder)) >= min(first) * 0.5
        again = [item(0, unsure=0.99, name=check(folder, frames=4)[0], tint=(1, 2, 255))]
        harvested(folder, again)
        assert any(stem.endswith("_2") for stem in check(folder, frames=4))

    def test_a_smaller_harvest_lets_frames_go(self, tmp_path):
        folder = harvested(tmp_path / "a", flight(30), frames=6)
        harvested(folder, flight(1), frames=2)
        assert len(check(folder, frames=2)) == 2
        assert len(files(folder)) == 3 + 2 * 2

    def test_frames_of_several_streams_are_told_apart(self, tmp_path):
        pair = [item(i, unsure=0.5, name="a", stream=s) for i, s in enumerate(("left", "a/b"))]
        assert check(harvested(tmp_path / "a", pair), frames=4) == ("left_a", "a_b_a")


class TestRefusals:
    def test_a_folder_with_something_else(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(InputError, match=r"'thesis\.tex' and no harvest"):
            harvested(tmp_path, flight(1))

    def test_a_folder_of_images_of_somebodys_own(self, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.jpg").write_bytes(b"")
        with pytest.raises(InputError, match=r"'images/a\.jpg' and no harvest"):
            harvested(tmp_path, flight(1))

    def test_a_harvest_of_other_classes(self, tmp_path):
        folder = harvested(tmp_path / "a", flight(3))
        classes = json.loads((folder / "classes.json").read_text())
        classes["classes"][0]["name"] = "roof"
        (folder / "classes.json").write_text(json.dumps(classes))
        with pytest.raises(InputError, match="of other classes"):
            harvested(folder, flight(1))

    def test_a_harvest_that_somebody_labels(self, tmp_path):
        folder = harvested(tmp_path / "a", flight(3))
        stem = check(folder, frames=4)[0]
        mask = folder / "masks" / f"{stem}.png"
        mask.write_bytes(mask.read_bytes() + b"x")
        with pytest.raises(InputError, match="begun to label"):
            harvested(folder, flight(1))

    def test_a_harvest_with_splits_of_a_human(self, tmp_path):
        folder = harvested(tmp_path / "a", flight(3))
        (folder / "splits.json").write_text('{"train": [], "draft": []}')
        with pytest.raises(InputError, match="it has other splits"):
            harvested(folder, flight(1))

    def test_two_programs_at_once(self, tmp_path):
        with Harvest(tmp_path / "a", frames=2) as one, Harvest(tmp_path / "a", frames=2) as other:
            one.offer(*item(0, unsure=0.5))
            with pytest.raises(SinkError, match="another program harvests"):
                other.offer(*item(0, unsure=0.5))

    def test_no_frames_at_all(self, tmp_path):
        with pytest.raises(InputError, match="at least 1"):
            Harvest(tmp_path, frames=0)

    def test_five_channels(self, tmp_path):
        frame, result = item(0, unsure=0.5)
        frame = frame.__class__(np.zeros((48, 64, 5), np.uint8), 0, "a")
        with pytest.raises(InputError, match="5 channels"):
            harvested(tmp_path / "a", [(frame, result)])


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_at_any_moment_leaves_a_dataset_and_the_next_run_clears_up(tmp_path, seed):
    folder = tmp_path / "a"
    for _ in range(3):
        command = [sys.executable, str(SUPPORT / "harvester.py"), str(folder), "3"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            until((folder / "splits.json").exists)
            time.sleep(np.random.default_rng(seed).uniform(0, 0.1))  # any moment will do
            process.send_signal(signal.SIGKILL)
        check(folder, frames=3)
        # At most what was on its way is there beside it.
        assert len(files(folder)) <= 3 + 2 * (3 + 1) + 2
    harvested(folder, [item(0, unsure=0.0)], frames=3)  # opens it, and keeps nothing new
    assert len(files(folder)) == 3 + 2 * len(check(folder, frames=3))


class TestSteps:
    """Every write in turn is the last one: what the dataset is then, and after the next start."""

    @pytest.mark.parametrize("survived", range(12))
    def test_a_crash_after_each_write(self, tmp_path, monkeypatch, survived):
        folder = harvested(tmp_path / "a", flight(10), frames=2)
        writes = iter(range(survived))
        replace, unlink = Path.replace, Path.unlink

        def crashing(action):
            def act(*arguments, **options):
                if next(writes, None) is None:
                    raise KeyboardInterrupt
                return action(*arguments, **options)

            return act

        monkeypatch.setattr(Path, "replace", crashing(replace))
        monkeypatch.setattr(Path, "unlink", crashing(unlink))
        with contextlib.suppress(KeyboardInterrupt):
            harvested(folder, [item(500, unsure=1.0, tint=(0, 255, 0))], frames=2)
        monkeypatch.undo()
        check(folder, frames=2)
        harvested(folder, [item(0, unsure=0.0)], frames=2)
        assert len(check(folder, frames=2)) == 2
        assert len(files(folder)) == 3 + 2 * 2


class TestTogether:
    def test_days_of_frames_cost_no_more_than_an_hour(self, tmp_path):
        """Disk and memory hold as much after 1300 frames as after 300."""
        folder = harvested(tmp_path / "a", flight(300), frames=5)
        before = sum(path.stat().st_size for path in folder.rglob("*"))
        with Harvest(folder, frames=5) as harvest:
            for one in flight(1000, start=300):
                harvest.offer(*one)
            assert len(harvest) == 5
        after = sum(path.stat().st_size for path in folder.rglob("*"))
        assert after < 1.5 * before
        assert len(files(folder)) == 3 + 2 * 5

    def test_a_sink_harvests_on_the_way(self, tmp_path):
        sink = HarvestSink(open_sink(tmp_path / "masks"), Harvest(tmp_path / "a", frames=3))
        with sink:
            for one in flight(20):
                sink.write(*one)
        assert len(list((tmp_path / "masks").iterdir())) == 20
        assert len(check(tmp_path / "a", frames=3)) == 3

    def test_the_verb_harvests(self, network, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = ["predict", "virtual:seed=3,frames=8,size=96x64,gsd_m=1.0", "-o", "a.jsonl"]
        words += ["-m", str(network), "--backend", "onnxruntime", "--harvest", "3"]
        assert run([*words, "--harvest-to", "label"]) == 0
        stems = check(tmp_path / "label", frames=3)
        assert len(stems) == 3
        assert all(one["pose"] for one in records(tmp_path / "label"))
        assert run([*words[:-2], "--harvest-to", "nothing"]) == 2
        assert not (tmp_path / "nothing").exists()
        assert run(words) == 0
        assert (tmp_path / "virtual_3_harvest" / "splits.json").exists()

    def test_what_is_harvested_can_be_measured_at_once(self, network, tmp_path):
        segment = Segmenter(network, backend="onnxruntime", threads=1)
        with segment, Harvest(tmp_path / "a", frames=2) as harvest:
            for out in segment.stream("virtual:seed=3,frames=4,size=96x64,gsd_m=1.0"):
                assert isinstance(out, Segmentation)
                harvest.offer(out.frame, out)
        check(tmp_path / "a", frames=2)
        assert os.access(tmp_path / "a", os.W_OK)
