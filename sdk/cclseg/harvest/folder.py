"""The folder of a harvest: a dataset folder at every moment, whatever ends the program.

``splits.json`` names a frame only while its image and mask are there. ``harvest.json`` says first
which files may be half there (``passing``), so that the next start can clear them away.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, SinkError
from ..files import make_folder, write_bytes, write_json
from ..image_files import encode_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..frame import Image, Mask

SPLIT = "draft"
"""Name of the split: its masks are the network's own until somebody corrects them."""

_VERSION = 1


class HarvestFolder:
    """Images with draft masks, of which each can be taken back.

    Args:
        root: The folder; made where it is missing, gone on with where it holds a harvest.
        class_names: One name per class id.
        palette: One (red, green, blue) colour per class id.
        ignore_index: Mask value of pixels without data.

    Attributes:
        records: What is known of each kept frame, with its file stem under "stem".

    Raises:
        InputError: The folder holds something else, other classes, or labels of a human.
        SinkError: It cannot be written to, or another program harvests into it.
    """

    def __init__(
        self,
        root: Path,
        *,
        class_names: Sequence[str],
        palette: Sequence[tuple[int, int, int]],
        ignore_index: int,
    ) -> None:
        self.root = make_folder(root)
        self._lock = _locked(root)
        self.records: list[dict[str, Any]] = []
        classes = _classes(class_names, palette, ignore_index)
        try:
            self._go_on(classes)
        except BaseException:
            self.close()
            raise

    def add(self, record: dict[str, Any], image: Image, mask: Mask, *, evicted: int | None) -> None:
        """Takes in a frame, last, and takes another one out.

        Args:
            record: What is known of it; its "stem" is made one of its own here.
            image: (H, W, C) uint8, OpenCV order.
            mask: (H, W) class ids.
            evicted: Place of the frame that goes, None for none.

        Raises:
            InputError: No image file holds such an image.
            SinkError: The disk is full or the folder cannot be written to.
        """
        stem = self._free_stem(record["stem"])
        if image.shape[2] not in (1, 3, 4):
            raise InputError(
                f"{stem} has {image.shape[2]} channels; a harvest keeps images of 1, 3 or 4"
            )
        suffix = ".png" if image.shape[2] == 4 else ".jpg"
        image_data, mask_data = encode_image(image, suffix), encode_image(mask, ".png")
        record = record | {"stem": stem, "image": f"{stem}{suffix}", "mask_crc": _crc(mask_data)}
        self._write_records(self.records, passing=[record])
        write_bytes(self.root / "images" / record["image"], image_data)
        write_bytes(self.root / "masks" / f"{stem}.png", mask_data)
        gone = [] if evicted is None else [self.records[evicted]]
        kept = [one for place, one in enumerate(self.records) if place != evicted]
        self.records = [*kept, record]
        self._publish(gone)

    def remove(self, place: int) -> None:
        """Takes a frame out."""
        self._publish([self.records.pop(place)])

    def close(self) -> None:
        """Lets other programs have the folder. May be called twice."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _publish(self, gone: Sequence[dict[str, Any]]) -> None:
        """Makes the records what the folder holds; only then do files go."""
        self._write_records(self.records, passing=gone)
        write_json(self.root / "splits.json", {SPLIT: [one["stem"] for one in self.records]})
        for record in gone:
            self._delete(record)

    def _write_records(
        self, records: Sequence[dict[str, Any]], *, passing: Sequence[dict[str, Any]]
    ) -> None:
        paths = [{"stem": one["stem"], "image": one["image"]} for one in passing]
        content = {"version": _VERSION, "frames": list(records), "passing": paths}
        write_json(self.root / "harvest.json", content)

    def _free_stem(self, stem: str) -> str:
        """Returns the stem, with a number where the harvest has it already from another run."""
        taken = {one["stem"] for one in self.records}
        number, free = 1, stem
        while free in taken:
            number += 1
            free = f"{stem}_{number}"
        return free

    def _delete(self, record: dict[str, Any]) -> None:
        stem = record["stem"]
        targets = {"images": record["image"], "masks": f"{stem}.png"}
        for folder, name in targets.items():
            (self.root / folder / name).unlink(missing_ok=True)
            for path in (self.root / folder).iterdir():
                if path.name.startswith(f".{stem}.") and ".partial" in path.suffixes:
                    path.unlink(missing_ok=True)

    def _go_on(self, classes: dict[str, Any]) -> None:
        """Begins a harvest, or goes on with the one in the folder."""
        record_path = self.root / "harvest.json"
        if not record_path.exists():
            self._refuse_others()
            for part in ("images", "masks"):
                make_folder(self.root / part)
            write_json(self.root / "classes.json", classes)
            self._write_records([], passing=[])
            return
        content, here = _read(record_path), _read(self.root / "classes.json")
        if here != classes:
            raise InputError(
                f"{self.root} is a harvest of other classes ({_names(here)}) than this network's "
                f"({_names(classes)}); give another folder"
            )
        self.records = content["frames"]
        self._refuse_labels()
        for path in self.root.iterdir():
            if path.name.startswith(".") and ".partial" in path.suffixes:
                path.unlink()
        kept = {one["stem"] for one in self.records}
        self._publish([one for one in content["passing"] if one["stem"] not in kept])

    def _refuse_others(self) -> None:
        """Refuses a folder with more in it than a harvest that was ended at its very beginning."""
        own = {self.root / name for name in ("images", "masks", "classes.json")}
        others = [
            path.relative_to(self.root)
            for path in sorted(self.root.rglob("*"))
            if path not in own and ".partial" not in path.suffixes
        ]
        if others:
            raise InputError(
                f"{self.root} holds '{others[0]}' and no harvest; give an empty folder"
            )

    def _refuse_labels(self) -> None:
        """Refuses to go on where a human has begun to work: frames may go, and labels never."""
        splits = self.root / "splits.json"
        changed = [one["stem"] for one in self.records if self._mask_crc(one) != one["mask_crc"]]
        if changed or (splits.exists() and set(_read(splits)) - {SPLIT}):
            what = f"the mask of {changed[0]} was changed" if changed else "it has other splits"
            raise InputError(
                f"{self.root} is a harvest that somebody has begun to label ({what}); harvest into "
                "another folder, so that no label is lost"
            )

    def _mask_crc(self, record: dict[str, Any]) -> int:
        try:
            return _crc((self.root / "masks" / f"{record['stem']}.png").read_bytes())
        except OSError:
            return -1


def _locked(root: Path) -> int:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SinkError(
            f"another program harvests into {root}; give each one a folder of its own"
        ) from error
    return descriptor


def _classes(
    names: Sequence[str], palette: Sequence[tuple[int, int, int]], ignore_index: int
) -> dict[str, Any]:
    colours = [{"color": list(colour)} for colour in palette] or [{} for _ in names]
    entries = [
        {"index": index, "name": name, **colour}
        for index, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    return {"classes": entries, "ignore_index": ignore_index}


def _names(classes: dict[str, Any]) -> str:
    return ", ".join(str(entry["name"]) for entry in classes["classes"])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; give another folder") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no object; give another folder")
    return content


def _crc(data: bytes) -> int:
    return zlib.crc32(data)
