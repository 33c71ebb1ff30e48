"""What is read from the files of a system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cclseg.machine import read_machine

_X86_CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: 11th Gen Intel(R) Core(TM) i7-1185G7 @ 3.00GHz
flags\t\t: fpu sse2 fma avx avx2 avx512f avx512_vnni
bugs\t\t: spectre_v1

processor\t: 1
model name\t: 11th Gen Intel(R) Core(TM) i7-1185G7 @ 3.00GHz
"""

_ORIN_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
"""

_MEMINFO = "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    5000000 kB\n"


def _system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_x86_processor_is_named_with_what_speeds_up_inference(tmp_path: Path) -> None:
    machine = read_machine(_system(tmp_path, {"proc/cpuinfo": _X86_CPUINFO}))
    assert machine.cpu == "11th Gen Intel(R) Core(TM) i7-1185G7 @ 3.00GHz"
    assert machine.instruction_sets == ("AVX", "AVX2", "FMA", "AVX-512", "AVX-512-VNNI")
    assert machine.board is None
    assert machine.l4t is None


def test_a_jetson_is_named_with_its_release(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": _ORIN_CPUINFO,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    }
    machine = read_machine(_system(tmp_path, files))
    assert machine.cpu == "Cortex-A78AE"
    assert machine.instruction_sets == ("NEON", "NEON-FP16", "NEON-DOTPROD")
    assert machine.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.l4t == "36.4.3"


def test_an_unknown_arm_core_keeps_its_numbers(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": _ORIN_CPUINFO.replace("0xd42", "0xfff")}
    assert read_machine(_system(tmp_path, files)).cpu == "ARM implementer 0x41 part 0xfff"


@pytest.mark.parametrize(("limit", "expected"), [("max\n", 8_192_000_000), ("1048576\n", 1 << 20)])
def test_memory_is_that_of_the_container(tmp_path: Path, limit: str, expected: int) -> None:
    files = {"proc/meminfo": _MEMINFO, "sys/fs/cgroup/memory.max": limit}
    machine = read_machine(_system(tmp_path, files))
    assert machine.memory_bytes == expected
    assert machine.memory_free_bytes == 5_120_000_000


@pytest.mark.parametrize("share", ["100000 100000\n", "50000 100000\n"])
def test_cores_are_those_of_the_container(tmp_path: Path, share: str) -> None:
    assert read_machine(_system(tmp_path, {"sys/fs/cgroup/cpu.max": share})).cores == 1


def test_cores_without_a_container_are_those_of_the_process(tmp_path: Path) -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system does not say which processors a process may use")
    files = {"sys/fs/cgroup/cpu.max": "max 100000\n"}
    assert read_machine(_system(tmp_path, files)).cores == len(os.sched_getaffinity(0))


def test_a_system_without_these_files_is_no_error(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert machine.cpu
    assert machine.memory_bytes is None
    assert machine.instruction_sets == ()
