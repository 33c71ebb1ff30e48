"""Pictures: drawn once for all who watch, only while somebody does."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from networks import brightest_band_spec, colour_patches

from cclseg.frame import Frame
from cclseg.operation import pictures
from cclseg.operation.pictures import Pictures, jpeg_of
from cclseg.result import Segmentation

LONG_S = 60


def result_of(image, bands=3):
    height, width = image.shape[:2]
    names = ("red", "green", "blue", "infrared")[:bands]
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    logits = np.zeros((1, bands, 1, 1), np.float32)
    spec = brightest_band_spec(bands=names)
    return Segmentation(mask, logits, spec, frame=Frame(image, 0, "frame_0"))


class Stream:
    """Gives a newest result, and counts how often a picture of one was drawn."""

    def __init__(self, monkeypatch):
        self.newest = None
        self.drawn = []
        draw = pictures.jpeg_of
        monkeypatch.setattr(
            pictures, "jpeg_of", lambda result: self.drawn.append(result) or draw(result)
        )

    def show(self, seed=0):
        self.newest = result_of(colour_patches((24, 32), seed=seed))
        return self.newest


@pytest.fixture
def stream(monkeypatch):
    return Stream(monkeypatch)


def watching(stream, scenario):
    """Runs a scenario with the pictures of a stream."""

    async def run():
        with ThreadPoolExecutor(1) as executor:
            await asyncio.wait_for(scenario(Pictures(lambda: stream.newest, executor)), LONG_S)

    asyncio.run(run())


def test_a_picture_is_the_frame_with_its_classes():
    result = result_of(colour_patches((120, 160)))
    picture = cv2.imdecode(np.frombuffer(jpeg_of(result), np.uint8), cv2.IMREAD_COLOR)
    difference = np.abs(picture.astype(int) - result.overlay(result.frame.image))
    assert difference.mean() < 12  # JPEG of noise


def test_a_large_picture_is_made_smaller():
    jpeg = jpeg_of(result_of(np.zeros((1500, 3000, 3), np.uint8)))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (640, 1280, 3)


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_images_of_any_number_of_bands_have_a_picture(bands):
    image = np.full((32, 48, bands), 90, np.uint8)
    assert jpeg_of(result_of(image, bands=max(2, bands))).startswith(b"\xff\xd8")


def test_nothing_is_drawn_while_nobody_watches(stream):
    async def scenario(shown):
        stream.show()
        await asyncio.sleep(0.2)
        assert not stream.drawn
        with shown.watched():
            number, jpeg = await shown.next(0, longest_s=LONG_S)
            assert (number, jpeg[:2]) == (1, b"\xff\xd8")
        stream.show(1)
        await asyncio.sleep(0.2)
        assert len(stream.drawn) == 1

    watching(stream, scenario)


def test_many_watchers_share_one_drawing(stream):
    async def scenario(shown):
        async def watch():
            with shown.watched():
                return [await shown.next(0, longest_s=LONG_S) for _ in range(1)]

        tasks = [asyncio.create_task(watch()) for _ in range(50)]
        await asyncio.sleep(0)
        stream.show()
        pictures_seen = await asyncio.gather(*tasks)
        assert len({jpeg for ((_, jpeg),) in pictures_seen}) == 1
        assert len(stream.drawn) == 1

    watching(stream, scenario)


def test_a_slow_watcher_gets_the_newest_and_no_queue(stream):
    async def scenario(shown):
        with shown.watched():
            for seed in range(5):
                result = stream.show(seed)
                while not stream.drawn or stream.drawn[-1] is not result:
                    await asyncio.sleep(0.005)
            newest, _ = await shown.next(0, longest_s=LONG_S)
            while newest < 5:
                newest, _ = await shown.next(newest, longest_s=LONG_S)
            assert newest == 5

    watching(stream, scenario)


def test_without_another_picture_the_same_comes_again(stream):
    async def scenario(shown):
        with shown.watched():
            assert await shown.next(0, longest_s=0.01) == (0, b"")
            stream.show()
            first = await shown.next(0, longest_s=LONG_S)
            assert await shown.next(first[0], longest_s=0.01) == first

    watching(stream, scenario)


def test_who_comes_later_sees_no_picture_of_long_ago(stream):
    async def scenario(shown):
        old = stream.show(0)
        with shown.watched():
            _, jpeg = await shown.next(0, longest_s=LONG_S)
            assert jpeg == jpeg_of(old)
        new = stream.show(1)
        with shown.watched():
            _, jpeg = await shown.next(0, longest_s=LONG_S)
            assert jpeg == jpeg_of(new)

    watching(stream, scenario)


def test_an_error_in_drawing_reaches_who_watches(stream):
    async def scenario(shown):
        stream.newest = object()
        with shown.watched():
            while not shown._drawing.done():
                await asyncio.sleep(0.005)
            with pytest.raises(AttributeError):
                await shown.next(0, longest_s=LONG_S)

    watching(stream, scenario)
