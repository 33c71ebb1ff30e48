"""As much of TensorRT as the backend calls, for one network: the means of 4 x 4 blocks.

A plan is JSON with the shapes that it was "built" for. Names and signatures are those of TensorRT
10.3. Where the library would crash or refuse, this one raises.
"""

import ctypes
import json
from enum import Enum

__version__ = "10.3.0"

DataType = Enum("DataType", ["FLOAT", "HALF"])
ExecutionContextAllocationStrategy = Enum(
    "ExecutionContextAllocationStrategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"]
)
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
_driver = ctypes.CDLL("libcuda.so.1")


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


def init_libnvinfer_plugins(logger, namespace):
    return True


class _Registry:
    def load_library(self, plugin_path):
        return plugin_path


class Runtime:
    def __init__(self, logger):
        self._logger = logger
        self.engine_host_code_allowed = False

    def get_plugin_registry(self):
        return _Registry()

    def deserialize_cuda_engine(self, serialized_engine):
        content = json.loads(serialized_engine)
        if content.get("host_code", False) != self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "host code is not as allowed")
            return None
        if "broken" in content:
            self._logger.log(ILogger.ERROR, "Serialization assertion failed:\nmagic tag")
            return None
        return _Engine(content, self._logger)


class _Engine:
    def __init__(self, content, logger):
        self.batches, self.channels = content["batches"], content["channels"]
        self.logger, self.fails = logger, content.get("fails", False)
        fixed = self.batches[0] == self.batches[2]
        batch = self.batches[0] if fixed else -1
        self.shapes = {
            "images": (batch, self.channels, 32, 32),
            "extra": (batch, 5),
            "logits": (batch, self.channels, 8, 8),
        }

    @property
    def num_io_tensors(self):
        return len(self.shapes)

    def get_tensor_name(self, index):
        return list(self.shapes)[index]

    def get_tensor_dtype(self, name):
        return DataType.HALF if name == "extra" else DataType.FLOAT

    def get_tensor_bytes_per_component(self, name):
        return 2 if name == "extra" else 4

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return self.shapes[name]

    def get_tensor_profile_shape(self, name, profile_index):
        assert (name, profile_index) == ("images", 0)
        return [(batch, *self.shapes[name][1:]) for batch in self.batches]

    @property
    def device_memory_size_v2(self):
        return 1000

    def create_execution_context(self, strategy):
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return _Context(self)


class _Context:
    def __init__(self, engine):
        self._engine = engine
        self._tiles = None
        self._addresses = {}
        self._scratch = None

    def set_device_memory(self, memory, size):
        assert size >= self._engine.device_memory_size_v2
        self._scratch = memory

    def set_input_shape(self, name, shape):
        assert self._tiles is None, "a graph may have been captured from this context"
        low, _, high = self._engine.batches
        if name != "images" or tuple(shape[1:]) != self._engine.shapes[name][1:]:
            return False
        self._tiles = shape[0]
        return low <= shape[0] <= high

    def get_tensor_shape(self, name):
        return (self._tiles, *self._engine.shapes[name][1:])

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        assert _driver.emulated_is_stream(ctypes.c_void_p(stream_handle))
        assert set(self._addresses) == set(self._engine.shapes), "a tensor has no memory"
        assert self._scratch, "the context has no memory"
        if self._engine.fails:
            self._engine.logger.log(ILogger.ERROR, "Cask convolution execution")
            return False
        count, bands, height, width = self.get_tensor_shape("images")
        images, logits = (ctypes.c_void_p(self._addresses[name]) for name in ("images", "logits"))
        status = _driver.emulated_block_means(
            images, logits, count * bands, height, width, ctypes.c_void_p(stream_handle)
        )
        assert status == 0
        ctypes.memset(self._addresses["extra"], 0, self._tiles * 5 * 2)
        return True
