"""A real browser without a window, driven over its DevTools."""

import asyncio
import base64
import contextlib
import itertools
import shutil
import time

import aiohttp
import pytest

PATIENCE_S = 60

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-sync", "--disable-background-networking", "--disable-component-update",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


def require_chromium():
    """Returns the browser's path, or skips the tests of a module where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if path is None:
        pytest.skip("no Chromium is installed (apt install chromium)", allow_module_level=True)
    return path


class Tab:
    """One page of a running browser."""

    def __init__(self, channel):
        self._channel = channel
        self._numbers = itertools.count(1)
        self._answers = {}
        self.complaints = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        async for message in self._channel:
            content = message.json()
            if "id" in content:
                self._answers.pop(content["id"]).set_result(content)
            elif content["method"] == "Runtime.exceptionThrown":
                self.complaints.append(content["params"]["exceptionDetails"])
            elif content["method"] == "Log.entryAdded":
                self.complaints.append(content["params"]["entry"])

    async def command(self, method, **parameters):
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._channel.send_json({"id": number, "method": method, "params": parameters})
        content = await asyncio.wait_for(answer, PATIENCE_S)
        assert "error" not in content, content
        return content["result"]

    async def open(self, url, *, size_wh=(1280, 800), dark=False, mobile=False):
        width, height = size_wh
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.command(f"{domain}.enable")
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if mobile else 1, mobile=mobile,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])
        await self.command("Page.navigate", url=url)

    async def value(self, expression):
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, expression):
        """Waits until an expression of JavaScript is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not await self.value(expression):
            assert time.monotonic() < deadline, (expression, self.complaints)
            await asyncio.sleep(0.05)

    async def screenshot(self, path):
        answer = await self.command("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(answer["data"]))


@contextlib.asynccontextmanager
async def tab(folder):
    """Starts a browser with an empty profile in a folder, and gives its page."""
    profile = folder / "profile"
    browser = await asyncio.create_subprocess_exec(
        require_chromium(), *_FLAGS, f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _devtools_port(profile)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
            address = pages[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as channel:
                yield Tab(channel)
    finally:
        browser.kill()
        await browser.wait()


async def _devtools_port(profile):
    deadline = time.monotonic() + PATIENCE_S
    written = profile / "DevToolsActivePort"
    while not (written.exists() and "\n" in written.read_text()):
        assert time.monotonic() < deadline, "the browser does not start"
        await asyncio.sleep(0.05)
    return int(written.read_text().split()[0])
