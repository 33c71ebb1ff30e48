"""A hidden folder for files that are not finished, and their way out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cclseg.errors import CclsegError, SinkError
from cclseg.files import make_folder

if TYPE_CHECKING:
    from .gate import Verdict

REPORTS = ("parity.json", "parity.html")
_REJECTED = ".rejected"


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder inside ``out`` that is gone afterwards, and ``out`` if it is empty."""
    existed = out.exists()
    make_folder(out)
    try:
        with TemporaryDirectory(prefix=".export-", dir=out) as staging:
            yield Path(staging)
    except OSError as error:
        if isinstance(error, CclsegError):
            raise
        raise SinkError(
            f"cannot write to {out}: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()


def publish(staging: Path, out: Path, verdicts: Sequence[Verdict]) -> tuple[Path, ...]:
    """Gives the finished files their names; a file of an earlier export gives way."""
    published = []
    for verdict in verdicts:
        name = verdict.file.path.name
        accepted, rejected = out / name, out / f"{name}{_REJECTED}"
        target, other = (rejected, accepted) if verdict.rejected else (accepted, rejected)
        verdict.file.path.replace(target)
        other.unlink(missing_ok=True)
        published.append(target)
    for name in REPORTS:
        (staging / name).replace(out / name)
    return tuple(published)
