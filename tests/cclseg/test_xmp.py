"""XMP: properties in either form, and XML that means harm."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.errors import InputError
from cclseg.xmp import read_xmp

DJI = "http://www.dji.com/drone-dji/1.0/"
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description xmlns:d="http://www.dji.com/drone-dji/1.0/" xmlns:o="urn:other"
    d:GimbalYawDegree="+42.00" o:GimbalYawDegree="7" rdf:about="DJI Meta Data">
   <d:RelativeAltitude> +40.10
   </d:RelativeAltitude>
   <o:RelativeAltitude>1</o:RelativeAltitude>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


def test_attributes_and_elements_of_the_namespace_alone():
    found = read_xmp(PACKET, DJI)
    assert found == {"GimbalYawDegree": "+42.00", "RelativeAltitude": "+40.10"}


def test_padding_is_harmless():
    assert read_xmp(PACKET + b" \n" * 1000 + bytes(4), DJI) == read_xmp(PACKET, DJI)


def test_the_first_of_two_counts():
    twice = b'<r xmlns:d="http://www.dji.com/drone-dji/1.0/" d:A="1"><d:A>2</d:A></r>'
    assert read_xmp(twice, DJI) == {"A": "1"}


@pytest.mark.parametrize(
    "document_type",
    [
        "<!DOCTYPE r [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;'>]>",
        "<!DOCTYPE r [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
        "<!DOCTYPE r SYSTEM 'http://192.0.2.1/r.dtd'>",
        "<!DOCTYPE r>",
    ],
)
def test_a_document_type_is_refused_and_with_it_every_entity(document_type):
    with pytest.raises(InputError, match="document type"):
        read_xmp(f"{document_type}<r>&a;</r>".encode(), DJI)


def test_what_is_too_large_is_refused_unread():
    with pytest.raises(InputError, match="expected 1048576 at most"):
        read_xmp(b"<r>" + bytes(1 << 20), DJI)


@pytest.mark.parametrize(
    "packet",
    [b"", b"no xml", b"<r>", b"<r>&undefined;</r>", b'<?xml version="1.0" encoding="x"?><r/>'],
)
def test_damage_is_told(packet):
    with pytest.raises(InputError, match="XMP is damaged"):
        read_xmp(packet, DJI)


@given(place=st.integers(0, len(PACKET) - 1), value=st.integers(0, 255), end=st.integers(0, 4000))
def test_any_damage_is_an_input_error_or_harmless(place, value, end):
    damaged = bytearray(PACKET)
    damaged[place] = value
    with contextlib.suppress(InputError):
        read_xmp(bytes(damaged[:end]), DJI)
