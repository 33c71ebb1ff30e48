"""What is learned of an aircraft, with made-up times: no test here waits or depends on a clock."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mavlink_wire import Autopilot, dialect

from cclseg.attitude import from_angles
from cclseg.geodesy import TangentPlane
from cclseg.mavlink.clock import BootClock
from cclseg.mavlink.packets import Packet, PacketReader
from cclseg.mavlink.vehicle import Vehicle

dialect()
TRUTH = Autopilot()


def fed(vehicle, arrivals):
    """Gives a vehicle (time of arrival, bytes)."""
    reader = PacketReader()
    for arrived_s, data in arrivals:
        for packet in reader.feed(data):
            vehicle.take(packet, arrived_s)
    return vehicle


def flown(seconds=5.0, *, latency_s=0.0, autopilot=None, **options):
    autopilot = autopilot or Autopilot()
    sent = autopilot.flight(seconds)
    return fed(Vehicle(**options), ((time_s + latency_s, data) for time_s, data in sent))


def off_m(pose, time_s):
    """Metres between a pose and the truth."""
    latitude, longitude = TRUTH.degrees(time_s)
    plane = TangentPlane(latitude, longitude)
    east, north, _ = plane.local(pose.latitude_deg, pose.longitude_deg, 0.0)
    return math.hypot(east, north)


def off_deg(pose, time_s):
    return abs((pose.yaw_deg - TRUTH.place(time_s)[2] + 180) % 360 - 180)


class TestPoses:
    whole = flown()

    @given(st.floats(0.1, 4.8))
    def test_between_packets_a_pose_is_interpolated(self, time_s):
        pose = self.whole.pose_at(time_s)
        assert off_m(pose, time_s) < 0.02  # 10 packets a second on a circle of 200 m at 10 m/s
        assert off_deg(pose, time_s) < 0.01
        assert (pose.altitude_m, pose.height_m) == (500, 100)
        assert pose.pitch_deg == pytest.approx(-90, abs=1e-3)

    @given(st.floats(0.0, 1.0))
    def test_after_the_last_packet_it_goes_on_as_it_was(self, late_s):
        pose = self.whole.pose_at(4.9 + late_s)
        assert off_m(pose, 4.9 + late_s) < 0.05 + 0.3 * late_s**2  # 0.5 m/s2 towards the centre
        assert off_deg(pose, 4.9 + late_s) < 0.01

    def test_when_the_link_is_lost_there_is_none_any_more(self):
        vehicle = flown(stale_s=1.5)
        assert vehicle.pose_at(4.9 + 1.4) is not None
        assert vehicle.pose_at(4.9 + 1.6) is None
        assert vehicle.pose_at(-1.6) is None

    def test_in_a_gap_that_is_too_long_there_is_none(self):
        autopilot = Autopilot()
        parts = [*autopilot.flight(2), *autopilot.flight(2, start_s=10)]
        vehicle = fed(Vehicle(), parts)
        assert vehicle.pose_at(1.0) is not None
        assert vehicle.pose_at(6.0) is None
        assert off_m(vehicle.pose_at(11.0), 11.0) < 0.02

    def test_before_a_heartbeat_of_an_autopilot_nothing_is_believed(self):
        autopilot = Autopilot()
        sent = [(0.0, autopilot.position(0.0)), (0.0, autopilot.attitude(0.0))]
        assert fed(Vehicle(), sent).pose_at(0.0) is None

    def test_a_position_without_an_attitude_has_no_angles(self):
        autopilot = Autopilot()
        vehicle = fed(Vehicle(), [(0.0, autopilot.heartbeat()), (0.0, autopilot.position(0.0))])
        pose = vehicle.pose_at(0.0)
        assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == (None, None, None)

    def test_the_antimeridian_is_crossed_the_short_way(self):
        autopilot = Autopilot()
        autopilot.longitude = 179.9999  # 7.6 m before it, which takes 0.76 s
        vehicle = flown(autopilot=autopilot)
        assert vehicle.pose_at(0.7).longitude_deg > 179.9
        assert vehicle.pose_at(0.85).longitude_deg < -179.9
        for step in range(200):
            around = vehicle.pose_at(0.5 + step / 400).longitude_deg % 360
            assert abs(around - 180) < 0.001


class TestCameras:
    def test_a_fixed_camera_is_turned_with_the_aircraft(self):
        autopilot = Autopilot()
        sent = [autopilot.heartbeat(), autopilot.position(0), autopilot.attitude(0, pitch_deg=-5)]
        vehicle = fed(Vehicle(mount_deg=(0, -30, 0)), [(0.0, data) for data in sent])
        pose = vehicle.pose_at(0.0)
        assert (pose.yaw_deg, pose.pitch_deg) == pytest.approx((90, -35), abs=1e-3)

    def test_a_bank_turns_a_camera_that_looks_down(self):
        autopilot = Autopilot()
        sent = [autopilot.heartbeat(), autopilot.position(0), autopilot.attitude(0, roll_deg=20)]
        pose = fed(Vehicle(), [(0.0, data) for data in sent]).pose_at(0.0)
        assert pose.pitch_deg == pytest.approx(-70, abs=1e-3)
        assert pose.yaw_deg == pytest.approx(0, abs=1e-3)  # right wing down: it looks to the left

    @pytest.mark.parametrize(("flags", "yaw"), [(64, 10.0), (16, 10.0), (32, 100.0), (0, 100.0)])
    def test_a_gimbal_counts_from_north_or_from_the_heading(self, flags, yaw):
        autopilot = Autopilot()
        gimbal = Autopilot(component=154, boot_s=7.0)  # with a clock of its own
        q = from_angles(10, -40, 0)
        told = gimbal.messages.MAVLink_gimbal_device_attitude_status_message(
            0, 0, gimbal.boot_ms(0), flags, q, 0, 0, 0, 0
        )
        sent = [autopilot.heartbeat(), autopilot.position(0), autopilot.attitude(0)]
        vehicle = fed(Vehicle(), [(0.0, data) for data in [*sent, gimbal.pack(told)]])
        pose = vehicle.pose_at(0.0)
        assert pose.yaw_deg == pytest.approx(yaw, abs=1e-3)
        assert pose.pitch_deg == pytest.approx(-40, abs=1e-3)

    def test_a_gimbal_that_fell_silent_is_not_replaced_by_a_guess(self):
        autopilot, gimbal = Autopilot(), Autopilot(component=154)
        told = gimbal.messages.MAVLink_gimbal_device_attitude_status_message(
            0, 0, gimbal.boot_ms(0), 64, [1, 0, 0, 0], 0, 0, 0, 0
        )
        sent = [*autopilot.flight(5)]
        vehicle = fed(Vehicle(), [sent[0], (0.0, gimbal.pack(told)), *sent[1:]])
        assert vehicle.pose_at(0.5).yaw_deg == pytest.approx(0)
        later = vehicle.pose_at(4.0)
        assert later.height_m == 100
        assert later.yaw_deg is None

    def test_pictures_tell_their_own_pose(self):
        autopilot = Autopilot()
        told = autopilot.messages.MAVLink_camera_image_captured_message(
            autopilot.boot_ms(3), 0, 0, 471000000, 82000000, 450000, 80000,
            from_angles(33, -80, 0), 12, 1, b"",
        )  # fmt: skip
        vehicle = fed(Vehicle(), [(0.0, autopilot.heartbeat()), (3.0, autopilot.pack(told))])
        pose = vehicle.pose_of_image(12)
        assert (pose.latitude_deg, pose.longitude_deg) == (47.1, 8.2)
        assert (pose.altitude_m, pose.height_m) == (450, 80)
        assert (pose.yaw_deg, pose.pitch_deg) == pytest.approx((33, -80), abs=1e-3)
        assert vehicle.pose_of_image(13) is None

    def test_utc_comes_from_the_aircraft(self):
        autopilot = Autopilot()
        told = autopilot.messages.MAVLink_system_time_message(1_700_000_000_000_000, 51_000)
        vehicle = fed(Vehicle(), [(1.0, autopilot.heartbeat()), (1.0, autopilot.pack(told))])
        assert vehicle.utc_s(3.5) == pytest.approx(1_700_000_002.5)


class TestLinks:
    @pytest.mark.parametrize("seed", range(3))
    def test_packets_that_take_their_time_do_not_move_the_aircraft(self, seed):
        """30 ms to 1 s on the way, so out of order too; the shortest way sets the clock."""
        rng = random.Random(seed)
        sent = [
            (t + 0.03 + min(rng.expovariate(5), 1.0), data) for t, data in Autopilot().flight(40)
        ]
        vehicle = fed(Vehicle(), sorted(sent))
        for time_s in (5.0, 20.05, 39.0):
            assert off_m(vehicle.pose_at(time_s + 0.03), time_s) < 0.1
        assert vehicle.counts.out_of_order > 10

    def test_a_clock_that_drifts_is_followed(self):
        autopilot = Autopilot()
        sent = [(t * (1 + 100e-6), data) for t, data in autopilot.flight(200)]
        vehicle = fed(Vehicle(), sent)
        assert off_m(vehicle.pose_at(199.0 * (1 + 100e-6)), 199.0) < 0.1

    def test_what_is_sent_again_changes_nothing(self):
        sent = list(Autopilot().flight(20))
        clean = fed(Vehicle(), sent)
        rng = random.Random(4)
        noisy = []
        for time_s, data in sent:
            noisy.append((time_s, data))
            if time_s > 1:
                old = rng.choice([d for t, d in sent if t < time_s])
                noisy.append((time_s, old))
        vehicle = fed(Vehicle(), noisy)
        for time_s in (2.0, 10.03, 19.9):
            assert vehicle.pose_at(time_s) == clean.pose_at(time_s)
        assert vehicle.counts.repeated > 100
        assert vehicle.counts.restarts == 0

    def test_an_old_flight_that_is_played_in_between_is_not_believed(self):
        """As by a forgetful router: the aircraft is the same, the times are not."""
        old = Autopilot(boot_s=-4000.0)
        old.latitude = 10.0
        mixed = []
        for time_s, data in Autopilot(boot_s=8000.0).flight(10):
            mixed.append((time_s, data))
            if 2 < time_s < 8:
                mixed.append((time_s, old.pack(_position_at(old, 5000.0 + time_s))))
        vehicle = fed(Vehicle(), mixed)
        assert off_m(vehicle.pose_at(5.0), 5.0) < 0.02
        assert vehicle.counts.untimely > 50

    def test_other_aircraft_are_passed_over_and_counted(self):
        other = Autopilot(system=9)
        other.latitude = 10.0
        mixed = [
            pair
            for both in zip(Autopilot().flight(5), other.flight(5), strict=True)
            for pair in both
        ]
        vehicle = fed(Vehicle(), mixed)
        assert vehicle.system == 1
        assert off_m(vehicle.pose_at(2.0), 2.0) < 0.02
        assert vehicle.counts.foreign == len(mixed) // 2
        assert fed(Vehicle(system=9), mixed).pose_at(2.0).latitude_deg < 11

    def test_a_ground_station_is_no_aircraft(self):
        station = Autopilot(system=255)
        beat = station.pack(station.messages.MAVLink_heartbeat_message(6, 8, 0, 0, 4, 3))
        vehicle = fed(Vehicle(), [(0.0, beat), *Autopilot().flight(2)])
        assert vehicle.system == 1

    def test_lost_packets_are_counted(self):
        sent = [pair for index, pair in enumerate(Autopilot().flight(10)) if index % 10]
        assert flown(10).counts.lost == 0
        assert fed(Vehicle(system=1), sent).counts.lost == pytest.approx(21, abs=1)

    def test_an_autopilot_that_starts_anew_is_followed(self):
        before = Autopilot(boot_s=500.0).flight(5)
        after = Autopilot(boot_s=-6.0).flight(5, start_s=7.0)
        vehicle = fed(Vehicle(), [*before, *after])
        assert vehicle.counts.restarts == 1
        assert off_m(vehicle.pose_at(11.0), 11.0) < 0.02

    def test_memory_is_bounded(self):
        vehicle = Vehicle(kept=256)
        autopilot = Autopilot()
        fed(vehicle, autopilot.flight(100))
        assert len(vehicle._positions) <= 256
        assert off_m(vehicle.pose_at(99.0), 99.0) < 0.02

    @given(
        st.lists(
            st.builds(
                Packet,
                sequence=st.integers(0, 255),
                system=st.integers(1, 2),
                component=st.sampled_from([1, 154]),
                message=st.sampled_from([0, 2, 30, 33, 263, 285, 74]),
                payload=st.binary(max_size=255),
                checksum=st.integers(0, 65535),
                signed=st.booleans(),
            ),
            max_size=30,
        ),
        st.floats(-1e6, 1e6),
    )
    def test_any_packets_at_all_give_poses_that_can_be(self, packets, time_s):
        beat = Packet(0, 1, 1, 0, bytes([0, 0, 0, 0, 2, 3, 0, 4, 3]), 0, False)
        vehicle = Vehicle()
        for place, packet in enumerate([beat, *packets]):
            vehicle.take(packet, place / 10)
        for moment_s in (0.0, len(packets) / 10, time_s):
            pose = vehicle.pose_at(moment_s)
            if pose is not None:
                assert -90 <= pose.latitude_deg <= 90
                assert -180 <= pose.longitude_deg <= 180
                if pose.yaw_deg is not None:
                    assert 0 <= pose.yaw_deg <= 360
                    assert -90 <= pose.pitch_deg <= 90


def _position_at(autopilot, boot_s):
    return autopilot.messages.MAVLink_global_position_int_message(
        round(boot_s * 1000), 100000000, 80000000, 0, 0, 0, 0, 0, 0
    )


class TestClock:
    def test_the_shortest_way_counts(self):
        clock = BootClock()
        for step, latency in enumerate([0.3, 0.05, 0.2, 0.04, 0.4]):
            assert clock.read(100 + step, step + latency)
        assert clock.offset_s == pytest.approx(-99.96)

    def test_it_forgets_after_half_a_minute(self):
        clock = BootClock()
        clock.read(0.0, 0.0)
        for second in range(1, 60):
            clock.read(second, second + 0.2)
        assert clock.offset_s == pytest.approx(0.2)

    def test_seven_packets_of_another_time_change_nothing_the_eighth_does(self):
        clock = BootClock()
        clock.read(100.0, 0.0)
        assert not any(clock.read(5.0 + step, 1.0 + step) for step in range(7))
        assert clock.offset_s == -100
        assert clock.read(12.0, 8.0)
        assert (clock.offset_s, clock.restarts) == (-4, 1)

    def test_misfits_that_do_not_fit_each_other_never_count(self):
        clock = BootClock()
        clock.read(100.0, 0.0)
        rng = random.Random(0)
        for step in range(200):
            clock.read(rng.uniform(-1e5, 0), float(step))
        assert clock.restarts == 0
