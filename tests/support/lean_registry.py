"""Loads a plugin into the registry of TensorRT's lean runtime; needs no GPU and no driver.

Started as ``lean_registry.py LIBRARY FIELD=INTEGER...``; prints what the registry says as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorrt_lean_bindings as trt


def main(library: str, *fields: str) -> None:
    trt.Logger(trt.Logger.WARNING)
    registry = trt.get_plugin_registry()
    registry.load_library(library)
    creator = registry.get_creator("LocalCorrelation", "1", "cclseg")
    values = [field.split("=") for field in fields]
    arrays = [np.array([int(value)], np.int32) for _, value in values]
    collection = trt.PluginFieldCollection(
        [
            trt.PluginField(name, array, trt.PluginFieldType.INT32)
            for (name, _), array in zip(values, arrays, strict=True)
        ]
    )
    plugin = creator.create_plugin("correlation", collection, trt.TensorRTPhase.BUILD)
    kinds = trt.PluginCapabilityType
    core = plugin.get_capability_interface(kinds.CORE) if plugin else None
    others = (
        [plugin.get_capability_interface(kind) for kind in (kinds.BUILD, kinds.RUNTIME)]
        if plugin
        else []
    )
    report = {
        "fields": [field.name for field in creator.field_names],
        "plugin": core and [core.plugin_name, core.plugin_version, core.plugin_namespace],
        "capabilities": [type(other).__name__ for other in others],
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
