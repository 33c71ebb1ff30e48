"""Engine files and sidecars of every kind, without the library that builds them."""

import dataclasses
import hashlib

from networks import brightest_band_spec

from cclseg.cuda_devices import CudaDevice
from cclseg.engine_record import EngineRecord, write_record

PLAN = b"ptrt" + bytes(range(256)) * 4
ORIN = CudaDevice("Orin", (8, 7), 8 << 30)


def write_engine(folder, *, plan=PLAN, **changes):
    """Writes an engine built from ``model.onnx`` for ``ORIN``, with its sidecar."""
    source = folder / "model.onnx"
    if not source.exists():
        source.write_bytes(b"what it was built from")
    record = EngineRecord(
        library="tensorrt",
        library_version="10.3.0",
        engine_bytes=len(plan),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        source=source.name,
        source_sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        precision="int8",
        capability=ORIN.capability,
        device=ORIN.name,
        driver="540.4.0 (CUDA 12.6)",
        shapes={"images": ((1, 3, 32, 32), (1, 3, 32, 32), (4, 3, 32, 32))},
        spec=brightest_band_spec(),
    )
    engine = folder / "model.engine"
    engine.write_bytes(plan)
    write_record(engine, dataclasses.replace(record, **changes))
    return engine
