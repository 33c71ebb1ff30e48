"""The reader of packets against those of pymavlink, and against anything else."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mavlink_wire import dialect

from cclseg.mavlink.messages import (
    FORMS,
    Attitude,
    GimbalAttitude,
    Heartbeat,
    ImageCaptured,
    Position,
    SystemTime,
    decode,
)
from cclseg.mavlink.packets import PacketReader

message = dialect()
whole = st.integers
degrees7 = st.tuples(whole(-899_999_999, 899_999_999), whole(-1_799_999_999, 1_799_999_999))
millimetres = whole(-(2**31), 2**31 - 1)
boot = whole(0, 2**32 - 1)
angle = st.floats(-3, 3, width=32)


def packed(one, *, version=2, sequence=0, signed=False):
    """The bytes of a message of pymavlink."""
    link = dialect(version).MAVLink(None, srcSystem=7, srcComponent=3)
    link.seq = sequence
    if signed:
        link.signing.secret_key = b"k" * 32
        link.signing.sign_outgoing = True
    return bytes(one.pack(link))


def read(data):
    """The only message in some bytes."""
    reader = PacketReader()
    (packet,) = reader.feed(data)
    assert (packet.system, packet.component) == (7, 3)
    assert reader.found.skipped_bytes == reader.found.bad_checksums == 0
    return decode(FORMS[packet.message], packet.payload)


class TestMessages:
    @given(boot, degrees7, millimetres, millimetres, st.tuples(*[whole(-32768, 32767)] * 3))
    def test_positions(self, boot_ms, place, altitude, height, speeds):
        sent = message.MAVLink_global_position_int_message(
            boot_ms, *place, altitude, height, *speeds, 65535
        )
        got = read(packed(sent))
        if place == (0, 0):
            assert got is None
            return
        assert isinstance(got, Position)
        assert got.boot_ms == boot_ms
        assert got.latitude_deg == pytest.approx(place[0] / 1e7, abs=1e-12)
        assert got.longitude_deg == pytest.approx(place[1] / 1e7, abs=1e-12)
        assert (got.altitude_m, got.height_m) == (altitude / 1000, height / 1000)
        assert (got.north_m_s, got.east_m_s, got.down_m_s) == tuple(v / 100 for v in speeds)

    @given(boot, angle, angle, angle)
    def test_attitudes_in_both_versions(self, boot_ms, roll, pitch, yaw):
        for version in (1, 2):
            set_ = dialect(version)
            sent = set_.MAVLink_attitude_message(boot_ms, roll, pitch, yaw, 0.25, -0.5, 1.0)
            got = read(packed(sent, version=version))
            assert isinstance(got, Attitude)
            assert got.boot_ms == boot_ms
            assert got.rates == (0.25, -0.5, 1.0)

    @pytest.mark.parametrize(
        ("flags", "from_north"),
        [(0, False), (16, True), (32, False), (32 | 16, False), (64, True), (64 | 16, True)],
    )
    def test_gimbals_tell_from_where_their_yaw_counts(self, flags, from_north):
        q = [0.5, 0.5, 0.5, 0.5]
        sent = message.MAVLink_gimbal_device_attitude_status_message(
            0, 0, 1234, flags, q, 0.5, float("nan"), 0.25, 0
        )
        got = read(packed(sent))
        assert got == GimbalAttitude(1234, (0.5, 0.5, 0.5, 0.5), (0.5, 0.0, 0.25), from_north)

    def test_pictures(self):
        sent = message.MAVLink_camera_image_captured_message(
            5000, 77, 1, 470000000, 80000000, 512_000, 112_000, [1, 0, 0, 0], 12, 1, b"a.jpg"
        )
        got = read(packed(sent))
        assert got == ImageCaptured(5000, 12, 47.0, 8.0, 512.0, 112.0, (1.0, 0.0, 0.0, 0.0))

    def test_heartbeats_tell_autopilots_from_others(self):
        kinds = {(2, 3): True, (6, 8): False, (6, 3): False, (26, 8): False, (1, 12): True}
        for (kind, autopilot), expected in kinds.items():
            sent = message.MAVLink_heartbeat_message(kind, autopilot, 0, 0, 4, 3)
            assert read(packed(sent)) == Heartbeat(expected)

    def test_the_time(self):
        sent = message.MAVLink_system_time_message(1_700_000_000_000_000, 99)
        assert read(packed(sent)) == SystemTime(99, 1_700_000_000_000_000)

    @pytest.mark.parametrize(
        "sent",
        [
            message.MAVLink_system_time_message(0, 99),
            message.MAVLink_attitude_message(1, float("nan"), 0, 0, 0, 0, 0),
            message.MAVLink_attitude_message(1, 0, 0, float("inf"), 0, 0, 0),
            message.MAVLink_global_position_int_message(1, 910000000, 1, 0, 0, 0, 0, 0, 0),
            message.MAVLink_global_position_int_message(1, 1, 1810000000, 0, 0, 0, 0, 0, 0),
            message.MAVLink_gimbal_device_attitude_status_message(0, 0, 1, 0, [0] * 4, 0, 0, 0, 0),
            message.MAVLink_gimbal_device_attitude_status_message(
                0, 0, 1, 0, [float("nan")] * 4, 0, 0, 0, 0
            ),
        ],
        ids=lambda sent: sent.get_type(),
    )
    def test_what_is_not_known_or_cannot_be_is_none(self, sent):
        assert read(packed(sent)) is None

    def test_a_signed_packet_is_read_and_said_to_be_signed(self):
        sent = message.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3)
        (packet,) = PacketReader().feed(packed(sent, signed=True))
        assert packet.signed
        (plain,) = PacketReader().feed(packed(sent))
        assert not plain.signed

    def test_forms_are_those_of_the_message_set(self):
        for number, form in FORMS.items():
            theirs = dialect().mavlink_map[number]
            assert theirs.msgname == form.name
            assert theirs.crc_extra == form.seed
            assert theirs.unpacker.size == form.fields.size


PACKETS = [
    packed(message.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3)),
    packed(message.MAVLink_attitude_message(1000, 0.1, 0.2, 0.3, 0, 0, 0)),
    packed(message.MAVLink_vfr_hud_message(1, 2, 3, 4, 5, 6)),  # not known to us
    packed(dialect(1).MAVLink_attitude_message(1000, 0.1, 0.2, 0.3, 0, 0, 0), version=1),
    packed(message.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3), signed=True),
]


class TestStreams:
    @given(st.lists(st.sampled_from(PACKETS), max_size=8), st.data())
    def test_pieces_of_any_size_give_the_same_packets(self, packets, data):
        stream = b"".join(packets)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
        reader, got = PacketReader(), []
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            got += reader.feed(stream[begin:end])
        assert len(got) == len(packets) == reader.found.packets

    @given(st.lists(st.one_of(st.sampled_from(PACKETS), st.binary(max_size=300)), max_size=10))
    @settings(max_examples=300)
    def test_anything_is_survived_and_little_is_kept(self, pieces):
        reader = PacketReader()
        for piece in pieces:
            for packet in reader.feed(piece):
                form = FORMS.get(packet.message)
                assert form is None or decode(form, packet.payload) is not None
            assert len(reader._rest) < 300
        assert reader.found.skipped_bytes <= sum(map(len, pieces))

    @given(st.binary(max_size=64))
    def test_a_packet_is_found_behind_garbage(self, garbage):
        """At the latest when more bytes show that the garbage before it was no packet."""
        reader = PacketReader()
        packets = reader.feed(garbage + PACKETS[1] + bytes(600))
        assert 30 in [packet.message for packet in packets] or _swallowed(packets)

    @given(st.sampled_from(PACKETS[:2] + PACKETS[3:]), st.data())
    def test_a_damaged_packet_is_not_believed(self, packet, data):
        place = data.draw(st.integers(1, len(packet) - 1))
        changed = bytearray(packet)
        changed[place] ^= data.draw(st.integers(1, 255))
        got = PacketReader().feed(bytes(changed))
        same = [one for one in got if one.message in FORMS]
        assert not same or place >= len(packet) - 13  # the signature's bytes are not checked

    def test_noise_for_long_yields_next_to_nothing(self):
        noise = random.Random(1).randbytes(200_000)
        reader = PacketReader()
        packets = reader.feed(noise)
        assert not [packet for packet in packets if packet.message in FORMS]
        assert len(packets) < 50
        assert len(reader._rest) < 300

    def test_an_unknown_compatibility_flag_is_not_read(self):
        changed = bytearray(PACKETS[0])
        changed[2] |= 2
        assert PacketReader().feed(bytes(changed) + bytes(300)) == []


def _swallowed(packets):
    """Garbage may begin like a packet of an unknown message, and its checksum may fit by chance."""
    return any(packet.message not in FORMS for packet in packets)
