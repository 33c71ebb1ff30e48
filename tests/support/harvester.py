"""Harvests made-up frames without end, until it is killed: ``harvester.py FOLDER CAPACITY``."""

import itertools
import sys
from pathlib import Path

from unsure import item

from cclseg.harvest import Harvest

if __name__ == "__main__":
    with Harvest(Path(sys.argv[1]), frames=int(sys.argv[2])) as harvest:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for index in itertools.count():
            harvest.offer(*item(index, unsure=(index % 97) / 97))
