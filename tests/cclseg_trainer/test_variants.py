"""Every variant has a class of tests of its own, in whichever file."""

from __future__ import annotations

import runpy
from pathlib import Path

from network_contract import NetworkContract

from cclseg_trainer.models import VARIANTS


def test_every_variant_keeps_the_contract():
    files = [path for path in Path(__file__).parent.glob("test_*.py") if _has_contracts(path)]
    tested = {
        value.variant
        for file in files
        for value in runpy.run_path(str(file)).values()
        if isinstance(value, type)
        and issubclass(value, NetworkContract)
        and hasattr(value, "variant")
    }
    assert tested == set(VARIANTS)


def _has_contracts(path):
    return "(NetworkContract):" in path.read_text()
