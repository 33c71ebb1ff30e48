"""The page in a real browser: what it shows, on a phone too, and that its policy lets it work."""

import asyncio

import cv2
import pytest

pytest.importorskip("aiohttp")
from browser import require_chromium, tab
from cameras import Camera
from streaming import PATIENCE_S

from cclseg.operation import Supervisor
from cclseg.operation.server import PageServer
from cclseg.operation.site import Limits
from cclseg.sources.live import SourceEvent

require_chromium()

PICTURE_SHOWN = "!document.getElementById('picture').hidden && picture.naturalWidth > 0"
STATE = "document.getElementById('state').innerText"


class Shown:
    """A stream whose page is open in a browser."""

    def __init__(self, segment, cameras):
        self.cameras = cameras
        self.stream = segment.stream(cameras)
        self.supervisor = Supervisor(look_every_s=0.05)
        self.server = None

    def serve(self, port=0):
        # A picture is not sent again only because there is no other.
        limits = Limits(picture_s=1e6)
        self.server = PageServer(self.supervisor, port=port, limits=limits)
        return self.server.url

    async def flow(self):
        """Takes results as they come."""
        while True:
            await asyncio.to_thread(next, self.stream)
            await asyncio.sleep(0.02)

    def __enter__(self):
        self.supervisor.watch(self.stream)
        self.supervisor.__enter__()
        self.serve()
        return self

    def __exit__(self, *_):
        self.server.close()
        self.supervisor.close()
        self.stream.close()


@pytest.fixture
def show(segment, tmp_path):
    """Runs a scenario with a browser's tab on a page."""

    def run(scenario, cameras=None):
        async def browse(shown):
            flowing = asyncio.create_task(shown.flow())
            try:
                async with tab(tmp_path) as page:
                    await scenario(shown, page)
                    assert [entry for entry in page.complaints if is_ours(entry)] == []
            finally:
                flowing.cancel()
                await asyncio.gather(flowing, return_exceptions=True)

        with Shown(segment, cameras or Camera(size_hw=(180, 320))) as shown:
            asyncio.run(browse(shown))

    return run


def is_ours(entry):
    """Leaves out that a connection was lost or health was bad, which the tests bring about."""
    return entry.get("source") != "network"


def test_it_shows_pictures_figures_and_classes(show, tmp_path):
    async def scenario(shown, page):
        await page.open(shown.server.url)
        await page.until(PICTURE_SHOWN)
        await page.until(f"{STATE} === 'live'")
        await page.until("document.querySelectorAll('#classes .row').length === 3")
        assert await page.value("picture.naturalWidth") == 320
        assert await page.value("document.getElementById('source').innerText") == "camera"
        assert "brightest-band" in await page.value("document.getElementById('model').innerText")
        names = "[...document.querySelectorAll('#classes .row span')].map(e => e.innerText)"
        assert await page.value(names) == ["redest", "greenest", "blueest"]
        colours = "[...document.querySelectorAll('#classes i')].map(e => e.style.background)"
        assert (await page.value(colours))[0] == "rgb(200, 30, 30)"
        await page.until("parseFloat(document.getElementById('fps').innerText) > 0")
        shares = "[...document.querySelectorAll('#classes b')].map(e => parseFloat(e.innerText))"
        assert sum(await page.value(shares)) == pytest.approx(100, abs=0.2)
        assert await page.value("document.title") == "live · camera"
        shot = tmp_path / "shot.png"
        await page.screenshot(shot)
        assert cv2.imread(str(shot)).shape == (800, 1280, 3)

    show(scenario)


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_cut_off(show, tmp_path, dark):
    async def scenario(shown, page):
        await page.open(shown.server.url, size_wh=(390, 844), dark=dark, mobile=True)
        await page.until(PICTURE_SHOWN)
        assert await page.value("document.documentElement.scrollWidth") == 390
        assert await page.value("picture.getBoundingClientRect().width") == 390
        shot = tmp_path / "shot.png"
        await page.screenshot(shot)
        corner = cv2.imread(str(shot))[:4, :4].mean()
        assert corner < 60 if dark else corner > 200

    show(scenario)


def test_it_says_when_a_camera_is_lost_and_comes_back(show):
    async def scenario(shown, page):
        await page.open(shown.server.url)
        await page.until(f"{STATE} === 'live'")
        shown.cameras.tell(SourceEvent("camera", "lost", "no <b>route</b> to host"))
        await page.until(f"{STATE} === 'lost'")
        reason = await page.value("document.getElementById('reason').innerText")
        assert reason == "no <b>route</b> to host"  # text, not markup
        await page.until("document.querySelectorAll('#events li[data-state=lost]').length === 1")
        shown.cameras.tell(SourceEvent("camera", "restored"))
        await page.until(f"{STATE} === 'live'")
        assert await page.value("document.getElementById('reason').hidden")

    show(scenario)


def test_it_says_when_the_device_is_gone_and_goes_on_when_it_is_back(show):
    async def scenario(shown, page):
        await page.open(shown.server.url)
        await page.until(PICTURE_SHOWN)
        port = int(shown.server.url.rstrip("/").rpartition(":")[2])
        await asyncio.to_thread(shown.server.close)
        await page.until(f"{STATE} === 'unreachable'")
        attempt = await page.value("shown.attempt")
        shown.serve(port)
        await page.until(f"{STATE} === 'live' && shown.attempt > {attempt} && {PICTURE_SHOWN}")

    show(scenario)


def test_a_picture_is_seen_although_no_other_follows(show):
    async def scenario(shown, page):
        await page.open(shown.server.url)
        await page.until(f"{STATE} === 'live'")
        shown.cameras.silent.set()
        await page.command("Page.reload")
        await page.until(PICTURE_SHOWN)
        shown.cameras.silent.clear()

    show(scenario)


def test_of_several_streams_one_is_chosen(show):
    async def scenario(shown, page):
        await page.open(shown.server.url)
        await page.until("document.querySelectorAll('#streams button').length === 2")
        await page.until("picture.naturalWidth === 320")
        await page.value("document.querySelectorAll('#streams button')[1].click()")
        await page.until(f"picture.naturalWidth === 160 && {PICTURE_SHOWN}")
        pressed = "[...document.querySelectorAll('#streams button')].map(e => e.ariaPressed)"
        await page.until(f"{pressed}.join() === 'false,true'")

    show(scenario, {"left": Camera(size_hw=(180, 320)), "right": Camera(size_hw=(90, 160))})


def test_a_tab_in_the_background_takes_no_pictures(show):
    async def scenario(shown, page):
        await page.open(shown.server.url)
        await page.until(PICTURE_SHOWN)
        assert shown.server.watchers == 1
        await page.value(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        for _ in range(20 * PATIENCE_S):
            if not shown.server.watchers:
                break
            await asyncio.sleep(0.05)
        assert shown.server.watchers == 0

    show(scenario)


def test_its_policy_lets_no_other_script_run(show):
    async def scenario(shown, page):
        await page.open(shown.server.url)
        await page.until(PICTURE_SHOWN)
        await page.value(
            "document.body.append(Object.assign(document.createElement('script'),"
            "{textContent: 'window.foreign = 1'}))"
        )
        assert await page.value("window.foreign === undefined")
        blocked = [entry for entry in page.complaints if "Content Security Policy" in str(entry)]
        assert blocked
        page.complaints.clear()

    show(scenario)
