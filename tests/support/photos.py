"""Photos with tags, written by Pillow, the library that others write them with."""

import io

from networks import colour_patches
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

DJI = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"
   drone-dji:AbsoluteAltitude="+198.61" drone-dji:RelativeAltitude="+40.10"
   drone-dji:GimbalRollDegree="+0.50" drone-dji:GimbalYawDegree="-42.00"
   drone-dji:GimbalPitchDegree="-89.90" drone-dji:FlightYawDegree="+39.70"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""

LENS = {Base.FocalLength: 3.61, Base.FocalLengthIn35mmFilm: 20}
SOMEWHERE = {
    GPS.GPSLatitudeRef: "S", GPS.GPSLatitude: (33.0, 51.0, 24.84),
    GPS.GPSLongitudeRef: "E", GPS.GPSLongitude: (151.0, 12.0, 54.0),
    GPS.GPSAltitudeRef: b"\x00", GPS.GPSAltitude: 75.5,
}  # fmt: skip


def exif_of(*, photo=None, gps=None, **image):
    """Returns EXIF; names of the image's own tags are those of Pillow's ExifTags.Base."""
    exif = Image.Exif()
    for name, value in image.items():
        exif[Base[name]] = value
    exif.get_ifd(IFD.Exif).update(photo or {})
    exif.get_ifd(IFD.GPSInfo).update(gps or {})
    return exif


def photo_bytes(form="JPEG", *, exif=None, xmp=None, size_hw=(48, 64)):
    """Encodes colour patches with tags."""
    file = io.BytesIO()
    exif = exif_of() if exif is None else exif
    options = {}
    if xmp is not None and form == "TIFF":
        exif[Base.XMLPacket] = xmp.encode()
    elif xmp is not None:
        options["xmp"] = xmp.encode()
    options["exif"] = exif.tobytes()
    Image.fromarray(colour_patches(size_hw)).save(file, form, **options)
    return file.getvalue()
