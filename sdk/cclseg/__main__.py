"""``python -m cclseg`` is the program ``cclseg``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
