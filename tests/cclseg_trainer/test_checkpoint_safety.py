"""A checkpoint from a stranger can be wrong, but it cannot run code."""

import pickle
import zipfile

import pytest
import torch

from cclseg.errors import BackendError
from cclseg_trainer.backend import TorchBackend
from cclseg_trainer.checkpoint import load_checkpoint


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def as_torch_saves_it(path, bomb):
    torch.save({"format": 1, "weights": bomb}, path)


def as_torch_saved_it_before_1_6(path, bomb):
    torch.save({"format": 1, "weights": bomb}, path, _use_new_zipfile_serialization=False)


def as_a_bare_pickle(path, bomb):
    path.write_bytes(pickle.dumps(bomb))


def as_an_archive_by_hand(path, bomb):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb, protocol=2))
        archive.writestr("archive/version", "3\n")


FORMS = (as_torch_saves_it, as_torch_saved_it_before_1_6, as_a_bare_pickle, as_an_archive_by_hand)


@pytest.mark.parametrize("load", [load_checkpoint, TorchBackend.open], ids=["load", "open"])
@pytest.mark.parametrize("write", FORMS)
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, write, load):
    path, mark = tmp_path / "best.pt", tmp_path / "it-went-off"
    write(path, Bomb(mark))
    with pytest.raises(BackendError, match=r"best\.pt is damaged or no checkpoint of cclseg"):
        load(path)
    assert not mark.exists()


def test_the_bomb_of_these_tests_would_go_off(tmp_path):
    mark = tmp_path / "it-went-off"
    pickle.loads(pickle.dumps(Bomb(mark))).close()
    assert mark.exists()
