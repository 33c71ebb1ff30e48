"""Data for the tests of the trainer."""

import pytest
from tiny_dataset import write_dataset

from cclseg.dataset import open_dataset


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    return open_dataset(write_dataset(tmp_path_factory.mktemp("tiny") / "data"))


@pytest.fixture(scope="session")
def dataset_with_heights(tmp_path_factory):
    return open_dataset(write_dataset(tmp_path_factory.mktemp("heights") / "data", heights=True))
