"""Folds: whole groups are left out, each once, and nothing of them is seen before."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.dataset import UNLABELLED, DatasetFolder
from cclseg.errors import DatasetError, InputError
from cclseg_trainer.folds import find_groups, plan_folds


def dataset_of(root=Path("nowhere"), **splits):
    """A dataset of which only the splits matter."""
    named = {name: tuple(stems) for name, stems in splits.items()}
    return DatasetFolder(root, ("land", "water"), (), 255, named, {})


THREE_TILES = dataset_of(
    train=["tile1_part001", "tile1_part002", "tile7_part9"], val=["tile7_12"], test=["a_b_003"]
)


class TestGroups:
    def test_file_names_tell_the_tile(self):
        assert find_groups(THREE_TILES) == {
            "a_b": ("a_b_003",),
            "tile1": ("tile1_part001", "tile1_part002"),
            "tile7": ("tile7_12", "tile7_part9"),
        }

    def test_a_name_without_a_tile_is_refused_with_advice(self):
        with pytest.raises(DatasetError, match=r"harbour do not say.*groups\.json.*image"):
            find_groups(dataset_of(train=["tile1_1", "harbour"]))

    def test_single_images(self):
        groups = find_groups(THREE_TILES, "image")
        assert len(groups) == 5
        assert all(stems == (name,) for name, stems in groups.items())

    def test_a_file_beside_the_data_says_more_than_names(self, tmp_path):
        content = {"west": ["tile1_part001", "tile1_part002", "tile7_part9", "tile7_12"]}
        content["east"] = ["a_b_003"]
        (tmp_path / "groups.json").write_text(json.dumps(content))
        beside = replace(THREE_TILES, root=tmp_path)
        assert list(find_groups(beside)) == ["west", "east"]
        named = find_groups(THREE_TILES, str(tmp_path / "groups.json"))
        assert named == find_groups(beside)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("{", "is not JSON"),
            ('{"west": "tile1"}', "one list for each group"),
            ('{"west": ["tile1_part001"]}', r"a_b_003, .* are in no group"),
            ('{"../west": []}', "cannot name a folder"),
        ],
    )
    def test_a_wrong_file_is_named_with_what_is_wrong(self, tmp_path, content, problem):
        path = tmp_path / "groups.json"
        path.write_text(content)
        with pytest.raises(DatasetError, match=rf"groups\.json.*{problem}"):
            find_groups(THREE_TILES, str(path))

    def test_strangers_and_doubles_in_a_file(self, tmp_path):
        path, everyone = tmp_path / "groups.json", sorted(sum(THREE_TILES.splits.values(), ()))
        for more, problem in ((["who"], "who are in no split"), (["a_b_003"], "more than one")):
            path.write_text(json.dumps({"one": everyone, "two": more}))
            with pytest.raises(DatasetError, match=problem):
                find_groups(THREE_TILES, str(path))

    def test_folds_of_whole_tiles_hold_about_as_many_images(self):
        sizes = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 2, "f": 1}
        stems = [f"{tile}_{number}" for tile, size in sizes.items() for number in range(size)]
        groups = find_groups(dataset_of(train=stems), "3")
        assert [len(one) for one in groups.values()] == [6, 6, 6]
        homes = {stem[0]: name for name, members in groups.items() for stem in members}
        assert all(stem in groups[homes[stem[0]]] for stem in stems)

    @pytest.mark.parametrize("wanted", ["2", "4", "tiles", "absent.json", "-3"])
    def test_what_cannot_be_is_refused(self, wanted):
        with pytest.raises(InputError, match=r"expected|cannot read"):
            find_groups(THREE_TILES, wanted)


class TestFolds:
    @given(st.lists(st.integers(1, 12), min_size=3, max_size=9))
    def test_each_image_is_left_out_once_and_known_to_nobody_then(self, sizes):
        stems = [f"t{tile}_{number}" for tile, size in enumerate(sizes) for number in range(size)]
        dataset = dataset_of(train=stems)
        folds = plan_folds(dataset, find_groups(dataset))
        assert sorted(s for fold in folds for s in fold.dataset.stems("test")) == sorted(stems)
        for fold in folds:
            splits = {name: set(members) for name, members in fold.dataset.splits.items()}
            assert set(splits) == {"train", "val", "test"}
            assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == len(stems)
            tiles = [{stem.partition("_")[0] for stem in members} for members in splits.values()]
            assert sum(map(len, tiles)) == len(sizes)  # none is in two splits

    def test_a_fifth_of_the_others_in_turn_chooses_the_weights(self):
        dataset = dataset_of(train=[f"t{tile}_{number}" for tile in range(4) for number in (1, 2)])
        folds = plan_folds(dataset, find_groups(dataset))
        chosen = [fold.dataset.stems("val") for fold in folds]
        assert [stems[0].partition("_")[0] for stems in chosen] == ["t1", "t2", "t3", "t0"]
        alone = plan_folds(dataset, find_groups(dataset, "image"))
        assert {len(fold.dataset.stems("val")) for fold in alone} == {2}  # a fifth of 7

    def test_unlabelled_images_of_a_place_that_is_left_out_are_not_learnt_from(self):
        dataset = dataset_of(
            train=[f"t{tile}_1" for tile in range(4)], unlabelled=["t1_2", "t2_2", "sea_1"]
        )
        folds = {fold.name: fold.dataset for fold in plan_folds(dataset, find_groups(dataset))}
        assert set(folds) == {"t0", "t1", "t2", "t3"}  # nothing can be measured on the sea
        assert folds["t1"].stems("val") == ("t2_1",)
        assert folds["t1"].stems(UNLABELLED) == ("sea_1",)
        assert folds["t2"].stems(UNLABELLED) == ("sea_1", "t1_2")

    def test_two_places_are_too_few(self):
        dataset = dataset_of(train=["a_1", "b_1"])
        with pytest.raises(InputError, match=r"groups a, b; expected three at least"):
            plan_folds(dataset, find_groups(dataset))


def test_the_tiles_of_real_data(real_data):
    from cclseg.dataset import open_dataset

    dataset = open_dataset(real_data / "dubai")
    folds = plan_folds(dataset, find_groups(dataset))
    assert [fold.name for fold in folds] == ["tile2", "tile4", "tile5", "tile6", "tile7", "tile8"]
    assert all(len(fold.dataset.stems("test")) == 9 for fold in folds)
