"""How hot the machine is, and whether it slows itself down. Read from files; nothing is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Cooling that takes speed away; fans are cooling too, but cost none.
_SLOWING = re.compile(r"cpufreq|devfreq|gpufreq|^Processor$|^cpu-|^gpu-", re.IGNORECASE)

# Counters of throttling, for x86 processors and for the over-current guard of Jetsons.
_COUNTERS = (
    "sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count",
    "sys/class/hwmon/hwmon*/oc*_event_cnt",
)
# Bits 0 to 3 of the Raspberry Pi's firmware: what slows it down at this moment.
_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_FIRMWARE_NOW = 0xF


@dataclass(frozen=True, slots=True)
class Heat:
    """Temperatures, and what they lead to.

    Attributes:
        temperature_c: Degrees Celsius, by the sensor's name.
        throttled: The machine slows itself down; None where it does not say.
    """

    temperature_c: dict[str, float]
    throttled: bool | None


class HeatReader:
    """Reads how hot the machine is.

    Some machines only count how often they throttled, so "now" is "since the last look".

    Args:
        root: Where ``sys`` stands.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._counted = self._counts()

    def read(self) -> Heat:
        """Returns how hot it is now."""
        signs: list[bool] = []
        for device in sorted(self._root.glob("sys/class/thermal/cooling_device*")):
            state = _number(device / "cur_state")
            if state is not None and _SLOWING.search(_text(device / "type")):
                signs.append(state > 0)
        firmware = _text(self._root / _FIRMWARE)
        if re.fullmatch(r"(0x)?[0-9a-fA-F]+", firmware):
            signs.append(bool(int(firmware, 16) & _FIRMWARE_NOW))
        counted = self._counts()
        signs += [count > self._counted.get(path, count) for path, count in counted.items()]
        self._counted = counted
        return Heat(self._temperatures(), any(signs) if signs else None)

    def _temperatures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for zone in sorted(self._root.glob("sys/class/thermal/thermal_zone*")):
            millidegrees = _number(zone / "temp")  # a sensor that is switched off has no reading
            if millidegrees is not None and millidegrees > 0:
                name = _text(zone / "type") or zone.name
                found[name if name not in found else f"{name}-{zone.name[12:]}"] = (
                    millidegrees / 1000
                )
        return found

    def _counts(self) -> dict[Path, int]:
        paths = (path for pattern in _COUNTERS for path in self._root.glob(pattern))
        return {path: count for path in paths if (count := _number(path)) is not None}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # absent, or its driver has nothing to say now
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?\d+", text) else None
