"""Writes protobuf's wire form by hand, for messages that no library would write."""


def varint(value):
    """Writes a base-128 number."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    """Writes a field that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content
