"""A real RTSP server for tests; runs in the system's Python, which has GStreamer's bindings.

    rtsp_server.py ADDRESS PORT LOSS [FOLDER]

Serves rtsp://ADDRESS:PORT/live: a moving picture of 160 x 120 in H.264 behind a sound, LOSS being
the share of encoded pictures that get lost. With a folder it takes streams of H.264 at
rtsp://ADDRESS:PORT/taken, whose pictures it writes there. Prints "ready" when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - the version comes first

SOUND = "audiotestsrc is-live=true volume=0 ! alawenc ! rtppcmapay name=pay0 pt=8"
PICTURE = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=25/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! h264parse ! "
    "identity drop-probability={loss} ! rtph264pay name=pay1 pt=96 config-interval=1"
)
TAKEN = (
    "rtph264depay name=depay0 ! h264parse ! avdec_h264 ! videoconvert ! pngenc ! "
    "multifilesink location={folder}/%06d.png"
)


def serve(address, port, loss, folder=None):
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port, address=address)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {SOUND} {PICTURE.format(loss=loss)} )")
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    if folder is not None:
        taker = GstRtspServer.RTSPMediaFactory()
        taker.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        taker.set_launch(f"( {TAKEN.format(folder=folder)} )")
        server.get_mount_points().add_factory("/taken", taker)
    server.attach(None)
    print("ready", flush=True)  # noqa: T201 - what the test waits for
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
