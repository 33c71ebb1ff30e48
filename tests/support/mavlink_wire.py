"""Packets as an autopilot sends them, made by pymavlink."""

import functools
import itertools
import math

import pytest


@functools.cache
def dialect(version=2):
    """The message set of pymavlink; the tests that use it skip where it is absent."""
    reason = "pymavlink (test group) is not installed"
    return pytest.importorskip(f"pymavlink.dialects.v{version}0.common", reason=reason)


class Autopilot:
    """Sends what an aircraft sends that flies on a circle and watches the ground.

    Its clock shows ``boot_s`` at our time 0.
    """

    radius_m, speed_m_s, height_m, ground_m = 200.0, 10.0, 100.0, 400.0
    latitude, longitude = 47.0, 8.0

    def __init__(self, *, system=1, component=1, boot_s=50.0, version=2):
        self.messages = dialect(version)
        self.link = self.messages.MAVLink(None, srcSystem=system, srcComponent=component)
        self.boot_s = boot_s

    def pack(self, message):
        data = bytes(message.pack(self.link))
        self.link.seq = (self.link.seq + 1) % 256
        return data

    def boot_ms(self, time_s):
        return round((self.boot_s + time_s) * 1000)

    def heartbeat(self):
        return self.pack(self.messages.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3))

    def place(self, time_s):
        """Metres north and east of the circle's centre, and the yaw in degrees."""
        angle = time_s * self.speed_m_s / self.radius_m
        north, east = self.radius_m * math.cos(angle), self.radius_m * math.sin(angle)
        return north, east, math.degrees(angle) + 90

    def degrees(self, time_s):
        north, east, _ = self.place(time_s)
        metre = math.degrees(1 / 6_378_137)
        shrunk = math.cos(math.radians(self.latitude))
        longitude = self.longitude + east * metre / shrunk
        return self.latitude + north * metre, (longitude + 180) % 360 - 180

    def position(self, time_s):
        latitude, longitude = self.degrees(time_s)
        yaw = math.radians(self.place(time_s)[2])
        speeds = (100 * self.speed_m_s * math.cos(yaw), 100 * self.speed_m_s * math.sin(yaw))
        return self.pack(
            self.messages.MAVLink_global_position_int_message(
                self.boot_ms(time_s),
                round(latitude * 1e7),
                round(longitude * 1e7),
                round((self.ground_m + self.height_m) * 1000),
                round(self.height_m * 1000),
                *map(round, speeds),
                0,
                65535,
            )
        )

    def attitude(self, time_s, *, roll_deg=0.0, pitch_deg=0.0):
        yaw = math.radians((self.place(time_s)[2] + 180) % 360 - 180)
        angles = (math.radians(roll_deg), math.radians(pitch_deg), yaw)
        rate = self.speed_m_s / self.radius_m
        return self.pack(
            self.messages.MAVLink_attitude_message(self.boot_ms(time_s), *angles, 0, 0, rate)
        )

    def flight(self, seconds, *, rate_hz=10, start_s=0.0):
        """Yields (time, bytes) of a flight: heartbeats every second, all else at a rate."""
        for step in itertools.count():
            time_s = start_s + step / rate_hz
            if time_s >= start_s + seconds:
                return
            if step % rate_hz == 0:
                yield time_s, self.heartbeat()
            yield time_s, self.position(time_s)
            yield time_s, self.attitude(time_s)
