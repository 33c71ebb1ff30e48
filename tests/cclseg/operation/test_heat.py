"""Heat, read from trees of files as the kernels of several boards show them."""

import pytest

from cclseg.operation.heat import HeatReader


def write(root, files):
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_a_machine_that_says_nothing(tmp_path):
    heat = HeatReader(tmp_path).read()
    assert heat.temperature_c == {}
    assert heat.throttled is None


def test_this_machine_can_be_read():
    heat = HeatReader().read()
    assert all(-50 < celsius < 150 for celsius in heat.temperature_c.values())


def test_a_jetson(tmp_path):
    zones = {"cpu-thermal": 48500, "gpu-thermal": 51031, "cv0-thermal": -256000}
    for index, (name, millidegrees) in enumerate(zones.items()):
        zone = f"class/thermal/thermal_zone{index}"
        write(tmp_path, {f"{zone}/type": name, f"{zone}/temp": millidegrees})
    for index, (name, state) in enumerate({"pwm-fan": 3, "cpufreq-cpu0": 0}.items()):
        device = f"class/thermal/cooling_device{index}"
        write(tmp_path, {f"{device}/type": name, f"{device}/cur_state": state})
    write(tmp_path, {"class/hwmon/hwmon2/oc1_event_cnt": 7})
    reader = HeatReader(tmp_path)
    heat = reader.read()
    assert heat.temperature_c == {"cpu-thermal": 48.5, "gpu-thermal": 51.031}
    assert heat.throttled is False  # a fan that turns slows nothing down

    write(tmp_path, {"class/thermal/cooling_device1/cur_state": 2})
    assert reader.read().throttled is True
    write(tmp_path, {"class/thermal/cooling_device1/cur_state": 0})
    assert reader.read().throttled is False
    write(tmp_path, {"class/hwmon/hwmon2/oc1_event_cnt": 8})
    assert reader.read().throttled is True  # it happened since the last look
    assert reader.read().throttled is False


def test_an_x86_that_counts(tmp_path):
    name = "devices/system/cpu/cpu{}/thermal_throttle/package_throttle_count"
    write(tmp_path, {name.format(0): 12, name.format(1): 12})
    reader = HeatReader(tmp_path)
    assert reader.read().throttled is False
    write(tmp_path, {name.format(1): 13})
    assert reader.read().throttled is True


@pytest.mark.parametrize(
    ("said", "throttled"), [("0x0", False), ("50005", True), ("0x50000", False), ("?", None)]
)
def test_a_raspberry_pi(tmp_path, said, throttled):
    write(tmp_path, {"devices/platform/soc/soc:firmware/get_throttled": said})
    assert HeatReader(tmp_path).read().throttled is throttled


def test_sensors_of_one_name_are_told_apart(tmp_path):
    zones = {f"class/thermal/thermal_zone{i}": 40000 + i for i in range(2)}
    write(tmp_path, {f"{zone}/type": "acpitz" for zone in zones})
    write(tmp_path, {f"{zone}/temp": temperature for zone, temperature in zones.items()})
    assert HeatReader(tmp_path).read().temperature_c == {"acpitz": 40.0, "acpitz-1": 40.001}
