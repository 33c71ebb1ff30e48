"""What this machine is: processor, memory, system, board. Read from files; nothing is run."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

# What decides the speed of inference, by its name in /proc/cpuinfo ("flags" on x86, "Features" on
# ARM), slowest first.
_INSTRUCTION_SETS = {
    "avx": "AVX", "avx2": "AVX2", "fma": "FMA", "avx_vnni": "AVX-VNNI", "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512-VNNI", "avx512_bf16": "AVX-512-BF16", "amx_int8": "AMX-INT8",
    "neon": "NEON", "asimd": "NEON", "asimdhp": "NEON-FP16", "asimddp": "NEON-DOTPROD",
    "i8mm": "I8MM", "bf16": "BF16", "sve": "SVE", "sve2": "SVE2",
}  # fmt: skip

# ARM processors give their implementer and part as numbers; these are on common companion boards.
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53", (0x41, 0xD07): "Cortex-A57", (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76", (0x41, 0xD42): "Cortex-A78AE", (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD49): "Neoverse-N2", (0x4E, 0x004): "NVIDIA Carmel",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """One computer, as far as inference is concerned.

    Attributes:
        cpu: Model name of the processor.
        instruction_sets: Those of its instruction sets that decide the speed of inference.
        cores: Processors that this process may use, a container's share counted.
        memory_bytes: Memory that this process may use, a container's limit counted; None where
            it is unknown.
        memory_free_bytes: What of the machine's memory is available now; None where unknown.
        system: Operating system and architecture.
        python: Version of the running Python.
        board: Name of the board where it says so ("NVIDIA Jetson Orin Nano Developer Kit").
        l4t: Version of NVIDIA's Linux for Jetson ("36.4.3"), None elsewhere.
    """

    cpu: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    memory_free_bytes: int | None
    system: str
    python: str
    board: str | None
    l4t: str | None


def read_machine(root: Path = Path("/")) -> Machine:
    """Reads what this machine is.

    Args:
        root: Where ``proc``, ``sys`` and ``etc`` stand.
    """
    cpuinfo = _text(root / "proc/cpuinfo")
    memory = _memory(_text(root / "proc/meminfo"))
    limit = _text(root / "sys/fs/cgroup/memory.max").strip()
    total = memory.get("MemTotal")
    if limit.isdigit():
        total = min(int(limit), total or int(limit))
    return Machine(
        cpu=_cpu_name(cpuinfo),
        instruction_sets=_instruction_sets(cpuinfo),
        cores=_usable_cores(_text(root / "sys/fs/cgroup/cpu.max")),
        memory_bytes=total,
        memory_free_bytes=memory.get("MemAvailable"),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        board=_text(root / "proc/device-tree/model").rstrip("\0 \n") or None,
        l4t=_l4t(_text(root / "etc/nv_tegra_release")),
    )


def _text(path: Path) -> str:
    """Returns a file's text, or nothing where this kind of machine has no such file."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _value(cpuinfo: str, key: str) -> str:
    found = re.search(rf"^{key}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _cpu_name(cpuinfo: str) -> str:
    if name := _value(cpuinfo, "model name"):
        return name
    implementer, part = _value(cpuinfo, "CPU implementer"), _value(cpuinfo, "CPU part")
    if implementer and part:
        unknown = f"ARM implementer {implementer} part {part}"
        return _ARM_CORES.get((int(implementer, 16), int(part, 16)), unknown)
    return platform.processor() or platform.machine()


def _instruction_sets(cpuinfo: str) -> tuple[str, ...]:
    flags = set((_value(cpuinfo, "flags") or _value(cpuinfo, "Features")).split())
    return tuple(dict.fromkeys(name for flag, name in _INSTRUCTION_SETS.items() if flag in flags))


def _usable_cores(cpu_max: str) -> int:
    """Counts processors; ``cpu_max`` is a container's "quota period" in microseconds, or "max"."""
    cores = os.cpu_count() or 1
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    share = re.fullmatch(r"(\d+) (\d+)\s*", cpu_max)
    if share:
        cores = min(cores, max(1, round(int(share.group(1)) / int(share.group(2)))))
    return cores


def _memory(meminfo: str) -> dict[str, int]:
    """Returns the lines of /proc/meminfo in bytes."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", meminfo, re.MULTILINE)
    return {key: int(kib) * 1024 for key, kib in lines}


def _l4t(release: str) -> str | None:
    """Reads "# R36 (release), REVISION: 4.3, GCID: ..."."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"{found.group(1)}.{found.group(2)}" if found else None
