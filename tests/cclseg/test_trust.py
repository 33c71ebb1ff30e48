"""What a device with pinned keys loads, and what it refuses."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import openvino
import pytest
from networks import block_means, brightest_band_spec, write_graph
from onnx import helper, numpy_helper

from cclseg import Segmenter
from cclseg.backends.choose import open_backend
from cclseg.built_engines import engine_sidecar, record_built
from cclseg.engine_record import EngineRecord, write_record
from cclseg.errors import EngineMismatchError, InputError, UntrustedModelError
from cclseg.models import bundled_digests, bundled_models
from cclseg.signing import new_key, sign_model
from cclseg.trust import keys_folder, pinned_keys, vetted


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Settings and state of a device that has neither yet."""
    monkeypatch.delenv("CCLSEG_TRUSTED_KEYS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The paths of a private and a public key."""
    return new_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def pinned(pair):
    """The folder of trusted keys, with one key in it."""
    keys_folder().mkdir(parents=True)
    return Path(shutil.copy(pair[1], keys_folder() / "office.pem")).parent


@pytest.fixture
def model(network, tmp_path):
    (tmp_path / "models").mkdir()
    return shutil.copy(network, tmp_path / "models" / "net.onnx")


@pytest.fixture
def engine(tmp_path):
    """A file that goes for an engine, with a sidecar of another device."""
    path = tmp_path / "net.engine"
    path.write_bytes(b"ftrt" + bytes(60))
    record = EngineRecord(
        library="tensorrt",
        library_version="10.3.0",
        engine_bytes=64,
        engine_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        source="net.onnx",
        source_sha256="0" * 64,
        precision="int8",
        device="Orin",
    )
    write_record(path, record)
    return path


def write_weighted(path):
    """Writes block means followed by a convolution with weights."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["m"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["m", "w"], ["logits"]),
    ]
    values = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    return write_graph(
        path,
        nodes,
        inputs={"images": [1, 3, 32, 32]},
        outputs={"logits": [1, 3, 8, 8]},
        weights=[numpy_helper.from_array(values, "w")],
    )


class TestPinning:
    def test_without_keys_every_model_is_loaded_where_it_is(self, model):
        assert pinned_keys() is None
        with vetted(model) as loadable:
            assert loadable == model

    def test_a_signed_model_is_loaded(self, model, pair, pinned):
        sign_model(model, pair[0])
        images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
        with open_backend(model, backend="onnxruntime") as backend:
            np.testing.assert_allclose(backend.infer(images), block_means(images), atol=1e-5)

    @pytest.mark.parametrize("tile", [None, 32])
    def test_an_unsigned_model_is_refused_with_a_remedy(self, model, pinned, tile):
        with pytest.raises(UntrustedModelError) as refusal:
            Segmenter(model, tile=tile)
        text = str(refusal.value)
        assert "net.onnx is not signed (net.onnx.sig is absent)" in text
        assert str(pinned) in text
        assert text.endswith("sign it: cclseg sign net.onnx --key private.pem")

    @pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
    def test_an_altered_model_is_refused(self, model, pair, pinned, backend):
        sign_model(model, pair[0])
        model.write_bytes(model.read_bytes().replace(b"redest", b"rudest"))
        with pytest.raises(UntrustedModelError, match=r"net\.onnx was altered after it was signed"):
            open_backend(model, backend=backend)

    def test_a_model_that_somebody_else_signed_is_refused(self, model, pinned, tmp_path):
        sign_model(model, new_key(tmp_path / "foreign")[0])
        with pytest.raises(UntrustedModelError, match=r"expected one of: office\.pem"):
            open_backend(model)

    def test_the_weights_of_an_openvino_network_are_checked_with_it(self, tmp_path, pair, pinned):
        path = tmp_path / "net.xml"
        openvino.save_model(openvino.convert_model(write_weighted(tmp_path / "net.onnx")), path)
        assert [file.name for file in sign_model(path, pair[0]).files] == ["net.xml", "net.bin"]
        with open_backend(path, spec=brightest_band_spec()) as backend:
            assert backend.infer(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 3, 8, 8)
        weights = bytearray((tmp_path / "net.bin").read_bytes())
        weights[0] ^= 1
        (tmp_path / "net.bin").write_bytes(weights)
        with pytest.raises(UntrustedModelError, match=r"net\.bin was altered"):
            open_backend(path, spec=brightest_band_spec())

    def test_any_of_several_keys_will_do(self, model, pair, pinned, tmp_path):
        private, public = new_key(tmp_path / "second")
        shutil.copy(public, pinned / "second.pem")
        for key in (pair[0], private):
            sign_model(model, key)
            with vetted(model) as loadable:
                assert loadable.read_bytes() == model.read_bytes()

    def test_models_of_the_package_need_no_signature(self, pinned, tmp_path):
        (nano,) = (path for name, path in bundled_models().items() if name == "ccl-nano")
        with vetted(nano) as loadable:
            assert loadable.read_bytes() == nano.read_bytes()
        altered = tmp_path / nano.name
        altered.write_bytes(nano.read_bytes() + b"\x42\x00")
        with pytest.raises(UntrustedModelError, match="not signed"), vetted(altered):
            pass

    def test_digests_of_the_package_are_those_of_its_models(self):
        found = {
            hashlib.sha256(path.read_bytes()).hexdigest() for path in bundled_models().values()
        }
        assert found == bundled_digests(), "run: sha256sum *.onnx > SHA256SUMS in that folder"


class TestSettings:
    def test_the_environment_names_another_folder(self, model, pair, tmp_path, monkeypatch):
        monkeypatch.setenv("CCLSEG_TRUSTED_KEYS", str(pair[1].parent))
        (tmp_path / "net.onnx").write_bytes(model.read_bytes())
        with pytest.raises(InputError, match=r"private\.pem is a private key"):
            open_backend(sign_model(model, pair[0]).files[0])

    def test_the_environment_may_name_one_key(self, model, pair, monkeypatch):
        monkeypatch.setenv("CCLSEG_TRUSTED_KEYS", str(pair[1]))
        with pytest.raises(UntrustedModelError, match=r"what a key in .*public\.pem signed"):
            open_backend(model)
        sign_model(model, pair[0])
        with vetted(model) as loadable:
            assert loadable.read_bytes() == model.read_bytes()

    def test_a_folder_that_is_named_but_absent_is_no_consent(self, model, tmp_path, monkeypatch):
        monkeypatch.setenv("CCLSEG_TRUSTED_KEYS", str(tmp_path / "absent"))
        with pytest.raises(InputError, match="correct CCLSEG_TRUSTED_KEYS"):
            open_backend(model)

    def test_an_empty_folder_is_no_consent(self, model, pinned):
        (pinned / "office.pem").unlink()
        with pytest.raises(InputError, match="holds no public key"):
            open_backend(model)

    @pytest.mark.parametrize("name", ["", "office.pem"])
    def test_a_key_that_everybody_may_write_proves_nothing(self, model, pinned, name):
        (pinned / name).chmod(0o777)
        with pytest.raises(InputError, match="chmod o-w"):
            open_backend(model)

    def test_a_broken_key_is_named(self, model, pair, pinned):
        (pinned / "broken.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
        sign_model(model, pair[0])
        with pytest.raises(InputError, match=r"broken\.pem is no public key"):
            open_backend(model)


class TestEngines:
    def test_an_engine_from_elsewhere_is_refused(self, engine):
        with pytest.raises(UntrustedModelError) as refusal, vetted(engine):
            pass
        text = str(refusal.value)
        assert text.startswith(f"{engine} was not built on this device")
        assert "it was built on 'Orin' with tensorrt 10.3.0. Build it here: cclseg build" in text
        assert "cclseg-" not in text  # the folder of the copy

    def test_an_engine_of_unknown_origin_is_refused(self, engine):
        engine_sidecar(engine).unlink()
        unknown = pytest.raises(EngineMismatchError, match=r"no sidecar net\.engine\.json")
        with unknown as refusal, vetted(engine):
            pass
        assert str(refusal.value).startswith(f"{engine} ")

    @pytest.mark.parametrize("keys", ["no keys", "pinned"])
    def test_an_engine_that_was_built_here_is_loaded(self, engine, keys, request):
        if keys == "pinned":
            request.getfixturevalue("pinned")
        record_built(engine)
        with vetted(engine) as loadable:
            assert loadable.read_bytes() == engine.read_bytes()
            assert engine_sidecar(loadable).read_text() == engine_sidecar(engine).read_text()

    @pytest.mark.parametrize("suffix", [".engine", ".engine.json"])
    def test_an_engine_that_was_altered_is_refused(self, engine, suffix):
        record_built(engine)
        with engine.with_suffix(suffix).open("ab") as file:
            file.write(b" ")
        with pytest.raises(UntrustedModelError), vetted(engine):
            pass

    def test_an_engine_from_elsewhere_is_loaded_with_a_signature(self, engine, pair, pinned):
        sign_model(engine, pair[0])
        with vetted(engine) as loadable:
            assert loadable.read_bytes() == engine.read_bytes()
        with engine_sidecar(engine).open("a") as sidecar:
            sidecar.write(" ")
        altered = pytest.raises(UntrustedModelError, match=r"net\.engine\.json was altered")
        with altered, vetted(engine):
            pass

    def test_a_signature_without_pinned_keys_says_nothing(self, engine, pair):
        sign_model(engine, pair[0])
        with pytest.raises(UntrustedModelError, match="put the public key into"), vetted(engine):
            pass


class TestTimeOfUse:
    """What was checked is what is loaded, whatever happens to the files in between."""

    def test_a_file_that_changes_after_the_check_changes_nothing(self, model, pair, pinned):
        sign_model(model, pair[0])
        signed = model.read_bytes()
        with vetted(model) as loadable:
            model.write_bytes(b"something else")
            assert loadable.read_bytes() == signed

    def test_nobody_else_can_reach_the_copy(self, model, pair, pinned):
        sign_model(model, pair[0])
        with vetted(model) as loadable:
            assert stat.S_IMODE(loadable.parent.stat().st_mode) == 0o700
            assert loadable.parent.stat().st_uid == os.getuid()
        assert not loadable.parent.exists()

    def test_a_file_that_changes_while_a_library_loads_it_changes_nothing(
        self, model, pair, pinned, monkeypatch
    ):
        from cclseg.backends.onnx_runtime import OnnxRuntimeBackend

        sign_model(model, pair[0])
        load = OnnxRuntimeBackend.open

        def open_late(path, **options):
            model.write_bytes(b"something else")
            return load(path, **options)

        monkeypatch.setattr(OnnxRuntimeBackend, "open", open_late)
        with open_backend(model, backend="onnxruntime") as backend:
            assert backend.spec.name == "brightest-band"
        assert model.read_bytes() == b"something else"
