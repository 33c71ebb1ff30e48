"""The pages about positions and harvests keep their word: snippets and commands run."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from streaming import free_port

from cclseg.models import bundled_models

PAGES = ("position.md", "harvest.md")
DOCS = Path(__file__).parent.parent / "docs"


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(page: str, tmp_path: Path) -> None:
    if "ccl-lite0" not in bundled_models():
        pytest.skip("the model 'ccl-lite0' is not bundled in this checkout")
    script = f'cclseg() {{ "{sys.executable}" -m cclseg "$@"; }}\n' + "".join(_blocks(page, "sh"))
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    snippets = _blocks(page, "python")
    assert snippets
    for shown in snippets:
        snippet = shown.replace("14550", str(free_port(socket.SOCK_DGRAM)))
        subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, check=True)
