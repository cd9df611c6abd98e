"""Every kind of address, through the one door that opens them."""

import os
import shutil

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from poise.core.misuse import Misuse
from poise.data import InMemory, Lazy, open_data
from poise.data.splits import Parts, divided

from .pictures_on_disk import CLASSES, flat, png, saved, write_folder, write_idx, write_parquet


def parts(splits):
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def everything(splits):
    """Id -> (label, first pixel's channels, split)."""
    return {
        identity: (int(label), image[:, 0, 0].tolist(), name)
        for name, part in parts(splits).items()
        for identity, label, image in zip(part.ids, part.labels, part.pixels(torch.arange(len(part))), strict=True)
    }


# digits


def test_digits_are_scikit_learns():
    splits = open_data("digits")
    found = load_digits()
    assert sum(map(len, parts(splits).values())) == 1797
    for part in parts(splits).values():
        rows = [int(identity.removeprefix("digits/")) for identity in part.ids]
        assert torch.equal(part.images(torch.arange(len(part))), torch.tensor(found.images[rows]).float()[:, None] / 16)
        assert part.labels.tolist() == found.target[rows].tolist()
    assert splits.train.shape == (1, 8, 8)
    assert splits.train.classes == tuple("0123456789")
    assert splits.train.address == "digits"
    assert splits.train.ids[0] == "digits/0000"


def test_digits_split_limit_and_size():
    whole, few = open_data("digits"), open_data("digits", limit=20, image_size=16, validation=0.1, test=0.2)
    again = divided(Parts(whole.train), 0.1, 0.2)
    assert len(again.train) == len(whole.train), "what trains stays in train when it is divided again"
    for name, part in parts(few).items():
        assert len(part) == 20
        assert part.shape == (1, 16, 16)
        assert set(part.ids) < set(parts(whole)[name].ids)
    same = open_data("digits", image_size=8)
    assert torch.equal(same.test.images(torch.arange(5)), whole.test.images(torch.arange(5)))
    assert same.test.digest() == whole.test.digest() != few.test.digest()


# folder


def test_a_folder_of_classes(tmp_path):
    splits = open_data(f"folder:{write_folder(tmp_path)}")
    found = everything(splits)
    assert {identity: entry[:2] for identity, entry in found.items()} == {
        f"{name}/{number}.png": (label, [number, label, 7])
        for label, name in enumerate(CLASSES)
        for number in range(20)
    }
    assert isinstance(splits.train, Lazy)
    assert (splits.train.classes, splits.train.shape, splits.skipped) == (CLASSES, (3, 4, 4), ())


def test_the_folder_may_move_and_grow(tmp_path):
    before = open_data(f"folder:{write_folder(tmp_path / 'old')}")
    moved = shutil.copytree(tmp_path / "old", tmp_path / "new")
    assert open_data(f"folder:{moved}").test.digest() == before.test.digest()
    flat((99, 1, 7), (4, 4)).save(moved / "dog" / "added.png")
    after = everything(open_data(f"folder:{moved}"))
    assert {identity: after[identity] for identity in everything(before)} == everything(before)
    flat((98, 0, 7), (4, 4)).save(moved / before.test.ids[0])
    assert open_data(f"folder:{moved}").test.digest() != before.test.digest()


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("training", "validate", "testing"), ("TRAIN", "dev", "test")]
)
def test_splits_may_be_called_otherwise(tmp_path, names):
    for name, count in zip(names, (4, 2, 3), strict=True):
        write_folder(tmp_path / name, count)
    splits = open_data(f"folder:{tmp_path}")
    assert splits.train.classes == CLASSES
    assert [len(images) for images in (splits.train, splits.validation, splits.test)] == [8, 4, 6]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train", "val", "holdout"), "holdout holds classes too, beside train"),
        (("train", "val", "valid", "test"), "val and valid are both for validation"),
        (("val", "test"), "there is test, val and no train"),
    ],
)
def test_folders_that_look_like_splits_and_are_none_are_refused(tmp_path, names, words):
    for name in names:
        write_folder(tmp_path / name, 4)
    with pytest.raises(Misuse, match=words):
        open_data(f"folder:{tmp_path}")


def test_other_things_may_lie_beside_the_splits(tmp_path):
    for name in ("train", "test"):
        write_folder(tmp_path / name, 20)
    write_folder(tmp_path / "raw", 2, classes=("camera 1", "camera 2"))
    (tmp_path / "labels.csv").write_text("", encoding="utf-8")
    assert open_data(f"folder:{tmp_path}").train.classes == CLASSES


@pytest.mark.parametrize("validation", ["val", "validation", "valid"])
def test_own_subfolders_are_the_splits(tmp_path, validation):
    for name, count in (("train", 4), (validation, 2), ("test", 3)):
        write_folder(tmp_path / name, count)
    splits = open_data(f"folder:{tmp_path}")
    assert splits.train.ids == tuple(f"train/{name}/{number}.png" for name in CLASSES for number in range(4))
    assert splits.validation.ids == tuple(
        f"{validation}/{name}/{number}.png" for name in CLASSES for number in range(2)
    )
    assert splits.test.ids == tuple(f"test/{name}/{number}.png" for name in CLASSES for number in range(3))


def test_validation_is_cut_from_train_where_only_test_is_there(tmp_path):
    write_folder(tmp_path / "train", 30)
    write_folder(tmp_path / "test", 2)
    splits = open_data(f"folder:{tmp_path}")
    assert len(splits.train) + len(splits.validation) == 60
    assert all(identity.startswith("train/") for identity in splits.validation.ids)
    assert len(splits.test) == 4


def test_a_class_may_be_called_train(tmp_path):
    splits = open_data(f"folder:{write_folder(tmp_path, classes=('bus', 'train'))}")
    assert splits.train.classes == ("bus", "train")


def test_odd_names_links_and_strangers(tmp_path):
    write_folder(tmp_path)
    odd = tmp_path / "cat" / "deep er" / "Zoë's ünïcode.JPEG"
    odd.parent.mkdir()
    flat((200, 0, 7)).save(odd, "jpeg", quality=100)
    (tmp_path / "cat" / "nfd e\u0301.PNG").write_bytes(png(flat((201, 0, 7))))
    (tmp_path / "cat" / "linked.png").symlink_to(tmp_path / "dog" / "3.png")
    (tmp_path / "cat" / "circle").symlink_to(tmp_path, target_is_directory=True)
    for stranger in ("cat/Thumbs.db", "cat/.DS_Store", "cat/._0.png", "dog/notes.txt", "README.md"):
        (tmp_path / stranger).write_bytes(b"no image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    found = everything(open_data(f"folder:{tmp_path}"))
    assert found["cat/deep er/Zoë's ünïcode.JPEG"][0] == 0
    assert found["cat/nfd \u00e9.PNG"][1] == [201, 0, 7]
    assert found["cat/linked.png"][:2] == (0, [3, 1, 7])
    own = [identity for identity in found if not identity.startswith("cat/circle/")]
    assert len(own) == 43
    assert not any("circle/cat/circle" in identity for identity in found)


def test_file_names_that_are_no_text_still_have_ids(tmp_path):
    write_folder(tmp_path)
    raw = os.fsencode(tmp_path / "cat") + b"/\xff.png"
    with open(raw, "wb") as handle:  # noqa: PTH123
        handle.write(png(flat((123, 0, 7))))
    splits = open_data(f"folder:{tmp_path}")
    assert everything(splits)["cat/\\xff.png"][1] == [123, 0, 7]
    assert len(splits.train.keys) == len(splits.train)


def test_grey_only_where_every_image_is_grey(tmp_path):
    for label, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        for number in range(20):
            flat(number + label, mode="L").save(tmp_path / name / f"{number}.png")
    assert open_data(f"folder:{tmp_path}").train.shape == (1, 4, 4)
    assert everything(open_data(f"folder:{tmp_path}"))["dog/5.png"][1] == [6]
    flat((1, 2, 3)).save(tmp_path / "cat" / "colour.png")
    assert open_data(f"folder:{tmp_path}").train.shape == (3, 4, 4)
    assert everything(open_data(f"folder:{tmp_path}"))["dog/5.png"][1] == [6, 6, 6]


def test_sizes_must_agree_or_be_made_to(tmp_path):
    write_folder(tmp_path)
    flat((50, 0, 7), (9, 6)).save(tmp_path / "dog" / "wide.png")
    with pytest.raises(
        Misuse, match=r"images differ in size: .*(\d\.png is 4x4|wide\.png is 9x6), .*--image-size 224$"
    ):
        open_data(f"folder:{tmp_path}")
    splits = open_data(f"folder:{tmp_path}", image_size=5)
    assert splits.train.shape == (3, 5, 5)
    assert everything(splits)["dog/wide.png"][1] == [50, 0, 7]


def test_a_truncated_image_is_named_when_it_is_met_and_may_be_skipped(tmp_path):
    write_folder(tmp_path)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8))
    for folder in CLASSES:
        for number in range(20, 40):
            (tmp_path / folder / f"{number}.png").write_bytes(png(noise)[:60])
    splits = open_data(f"folder:{tmp_path}")
    with pytest.raises(
        Misuse, match=rf"^cannot read the image {tmp_path}/\w+/\d+\.png: .*; repair or remove it, or say"
    ):
        everything(splits)
    splits = open_data(f"folder:{tmp_path}", skip_unreadable=True)
    assert set(splits.skipped) == {
        str(tmp_path / name / f"{number}.png") for name in CLASSES for number in range(20, 40)
    }
    assert len(everything(splits)) == 40


def test_a_file_that_is_no_image_is_named_at_opening(tmp_path):
    write_folder(tmp_path)
    fake = tmp_path / "cat" / "fake.jpg"
    fake.write_bytes(b"<html>404</html>")
    with pytest.raises(Misuse, match=f"cannot read the image {fake}: .*--skip-unreadable$"):
        open_data(f"folder:{tmp_path}")
    assert open_data(f"folder:{tmp_path}", skip_unreadable=True).skipped == (str(fake),)


def test_opening_decodes_nothing(tmp_path, monkeypatch):
    write_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
        splits = open_data(f"folder:{tmp_path}")
        splits.test.digest()
    assert len(everything(splits)) == 40


# parquet


def test_the_layout_of_cifar10(tmp_path):
    write_parquet(tmp_path / "train.parquet", 40, paths=[f"{CLASSES[row % 2]}/{row:04d}.jpg" for row in range(40)])
    write_parquet(tmp_path / "test.parquet", 10, paths=[f"{CLASSES[row % 2]}/{row:04d}.jpg" for row in range(10)])
    splits = open_data(f"parquet:{tmp_path}")
    found = everything(splits)
    assert splits.train.classes == CLASSES
    assert splits.test.ids == tuple(f"test/{CLASSES[row % 2]}/{row:04d}.jpg" for row in range(10))
    assert found["test/dog/0009.jpg"] == (1, [9, 1, 7], "test")
    assert {i: e[:2] for i, e in found.items() if i.startswith("train/")} == {
        f"train/{CLASSES[row % 2]}/{row:04d}.jpg": (row % 2, [row, row % 2, 7]) for row in range(40)
    }


@pytest.mark.parametrize("paths", [None, ["same.png"] * 30, [f"/home/me/{row}.png" for row in range(30)]])
def test_rows_are_numbered_where_paths_do_not_identify(tmp_path, paths):
    write_parquet(tmp_path / "train.parquet", 30, paths=paths, names=None)
    splits = open_data(f"parquet:{tmp_path}")
    assert set(everything(splits)) == {f"train/{row:06d}" for row in range(30)}
    assert splits.train.classes == ("0", "1")


@pytest.mark.parametrize("validation", ["dev-0.parquet", "Valid_1.parquet", "validate.parquet", "val2.parquet"])
@pytest.mark.parametrize("test", ["testing.parquet", "Test.0.parquet", "test2.parquet"])
def test_parquet_files_of_a_split_may_be_called_otherwise(tmp_path, validation, test):
    for name, count in (("training-0.parquet", 20), (validation, 6), (test, 4)):
        write_parquet(tmp_path / name, count)
    splits = open_data(f"parquet:{tmp_path}")
    assert [len(each) for each in (splits.train, splits.validation, splits.test)] == [20, 6, 4]


def test_a_parquet_file_beside_the_splits_is_not_left_out_in_silence(tmp_path):
    write_parquet(tmp_path / "train.parquet", 20)
    write_parquet(tmp_path / "device.parquet", 20)
    with pytest.raises(Misuse, match=r"device\.parquet belongs to no split, beside train\.parquet; begin its name"):
        open_data(f"parquet:{tmp_path}")


@pytest.mark.parametrize("beside", ["dev.parquet", "0000.parquet"])
def test_parquet_files_of_splits_without_one_to_train_on_are_not_one_set(tmp_path, beside):
    for name in (beside, "test-0.parquet"):
        write_parquet(tmp_path / name, 20)
    with pytest.raises(Misuse, match=r"there is (dev|test-0)\.parquet and no train\*\.parquet to learn from"):
        open_data(f"parquet:{tmp_path}")


def test_shards_follow_each_other_and_validation_may_be_brought(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", 20)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", 10)
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", 6)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", 4)
    splits = open_data(f"parquet:{tmp_path}")
    assert [len(part) for part in parts(splits).values()] == [30, 6, 4]
    assert everything(splits)["train/000023"][1] == [3, 1, 7]


def test_any_files_are_one_set_and_columns_may_be_called_otherwise(tmp_path):
    write_parquet(tmp_path / "0000.parquet", 30, image="img", label="fine_label")
    assert len(everything(open_data(f"parquet:{tmp_path}"))) == 30
    (tmp_path / "0000.parquet").unlink()
    write_parquet(tmp_path / "0001.parquet", 30, image="photo", label="animal")
    assert len(everything(open_data(f"parquet:{tmp_path}"))) == 30


def test_an_unreadable_row_is_named(tmp_path):
    contents = [png(flat((row, 0, 7))) for row in range(20)]
    contents[13], contents[17] = b"rubbish", None
    write_parquet(tmp_path / "train.parquet", 20, contents=contents)
    with pytest.raises(Misuse, match=r"cannot read the image .*train\.parquet row 1[37]: "):
        open_data(f"parquet:{tmp_path}")
    skipped = open_data(f"parquet:{tmp_path}", skip_unreadable=True).skipped
    assert sorted(name[-6:] for name in skipped) == ["row 13", "row 17"]


def test_limit_keeps_that_many_of_each_split_and_reads_only_those(tmp_path):
    write_parquet(tmp_path / "train.parquet", 60)
    write_parquet(tmp_path / "test.parquet", 20)
    whole = everything(open_data(f"parquet:{tmp_path}"))
    few = open_data(f"parquet:{tmp_path}", limit=3)
    assert [len(part) for part in parts(few).values()] == [3, 3, 3]
    assert everything(few).items() <= whole.items()


# Hugging Face


def test_a_saved_hugging_face_data_set(tmp_path):
    splits = open_data(f"hf:{saved(tmp_path / 'set', train=20, validation=6, test=8)}")
    found = everything(splits)
    assert [len(part) for part in parts(splits).values()] == [20, 6, 8]
    assert splits.test.classes == CLASSES
    assert found["test/000007"] == (1, [7, 1, 7], "test")
    assert found["train/000012"] == (0, [12, 0, 7], "train")


def test_splits_of_a_hugging_face_data_set_may_be_called_otherwise(tmp_path):
    splits = open_data(f"hf:{saved(tmp_path / 'set', training=20, dev=6, testing=8, extra=9)}")
    assert [len(part) for part in parts(splits).values()] == [20, 6, 8]
    assert splits.unused == ("extra",)
    with pytest.raises(Misuse, match="has two splits for validation: train, dev, val; keep one of them"):
        open_data(f"hf:{saved(tmp_path / 'two', train=20, dev=6, val=8)}")


def test_the_hub_is_asked_and_a_configuration_is_passed_on(tmp_path, monkeypatch):
    asked = []
    table = datasets.load_from_disk(str(saved(tmp_path / "set")))["train"]
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **options: asked.append((path, options)) or table)
    splits = open_data("hf:someone/pets?config=small")
    assert asked == [("someone/pets", {"name": "small"})]
    assert len(everything(splits)) == 30
    assert splits.train.address == "hf:someone/pets?config=small"


def test_a_failing_hub_says_what_was_looked_for_and_what_would_work(monkeypatch):
    def fails(name, **_):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(Misuse) as caught:
        open_data("hf:someone/pets")
    assert str(caught.value) == (
        "hf:someone/pets: someone/pets is no folder written by save_to_disk, and someone/pets could not be loaded from "
        "the Hugging Face hub (no route to the hub); check the name and the connection, or give such a folder, or say "
        "parquet:FOLDER"
    )


def test_hugging_face_paths_are_ids_and_labels_must_be_there(tmp_path):
    rows = {"image": [{"bytes": png(flat((row, 0, 7))), "path": f"{row}.png"} for row in range(30)]}
    for labels in ([row % 2 for row in range(30)], [0, None] * 15):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        table = datasets.Dataset.from_dict({**rows, "label": labels}, features=features)
        table.save_to_disk(str(tmp_path / str(labels[1])))
    assert everything(open_data(f"hf:{tmp_path}/1"))["train/17.png"][:2] == (1, [17, 0, 7])
    with pytest.raises(Misuse, match=r"hf:.* train row 1: the label must be a whole number; got None$"):
        open_data(f"hf:{tmp_path}/None")


def test_hugging_face_splits_must_include_train(tmp_path):
    with pytest.raises(Misuse, match="has the splits test, other; one of them must be called train"):
        open_data(f"hf:{saved(tmp_path / 'set', test=5, other=5)}")


# torchvision


def write_mnist(root):
    for prefix, count in (("train", 40), ("t10k", 10)):
        images = np.arange(count)[:, None, None].repeat(28, 1).repeat(28, 2)
        write_idx(root / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(root / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return root


def test_mnist_files_through_torchvision(tmp_path):
    splits = open_data(f"torchvision:MNIST?root={write_mnist(tmp_path)}")
    found = everything(splits)
    assert splits.train.shape == (1, 28, 28)
    assert splits.train.classes[3] == "3 - three"
    assert splits.test.ids == tuple(f"test/{row:06d}" for row in range(10))
    assert found["test/000004"] == (4, [4], "test")
    assert found["train/000031"][:2] == (1, [31])
    assert (
        splits.test.digest() == open_data(f"torchvision:MNIST?root={tmp_path}").test.digest() != splits.train.digest()
    )


class BySplit:
    """Like SVHN: a `split` argument, `labels`, no class names."""

    def __init__(self, root, split="train", download=False):
        if split not in ("train", "val"):
            raise ValueError(f"unknown split {split}")
        self.labels = np.arange({"train": 30, "val": 4}[split]) % 2

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return flat((row, int(self.labels[row]), 7)), int(self.labels[row])


class Whole:
    """Like Caltech: neither splits nor a list of labels."""

    def __init__(self, root):
        self.root = root

    def __len__(self):
        return 30

    def __getitem__(self, row):
        return flat((row, row % 2, 7)), row % 2


@pytest.mark.parametrize(("kind", "own"), [(BySplit, 4), (Whole, None)])
def test_torchvision_classes_of_other_shapes(tmp_path, monkeypatch, kind, own):
    monkeypatch.setattr("torchvision.datasets.SVHN", kind)
    splits = open_data(f"torchvision:SVHN?root={tmp_path}")
    found = everything(splits)
    assert found["train/000021"][:2] == (1, [21, 1, 7])
    assert splits.train.classes == ("0", "1")
    assert len([identity for identity in found if identity.startswith("train/")]) == 30
    if own:
        assert splits.validation.ids == tuple(f"validation/{row:06d}" for row in range(own))


def test_torchvision_offline(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fails)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Misuse) as caught:
        open_data("torchvision:MNIST")
    assert f"could not open MNIST in {tmp_path}/poise/torchvision nor fetch it" in str(caught.value)
    assert str(caught.value).endswith("or put its files there, or name their folder with ?root=FOLDER")


# what is refused


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "folders:x",
            "^unknown kind of data 'folders'; did you mean 'folder'.; addresses look like digits, folder:PATH",
        ),
        ("cifar", "^unknown kind of data 'cifar'; valid: digits, folder, hf, parquet, torchvision; "),
        ("folder:", "^cannot read the data address 'folder:'; addresses look like digits, folder:PATH"),
        ("digits:big", "^cannot read the data address 'digits:big'; "),
        ("folder:/nowhere/at/all", "^folder:/nowhere/at/all: there is no folder /nowhere/at/all; looked from "),
        ("parquet:/nowhere/at/all", "^parquet:/nowhere/at/all: there is no folder /nowhere/at/all; looked from "),
        ("torchvision:CIFAR11", "^torchvision has no data set 'CIFAR11'; did you mean 'CIFAR10'.$"),
        ("torchvision:MNIST?rot=x", "^unknown option 'rot' in torchvision:MNIST.rot=x; did you mean 'root'.$"),
    ],
)
def test_addresses_that_lead_nowhere(address, message):
    with pytest.raises(Misuse, match=message):
        open_data(address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "^the limit must be a whole number of at least 1; got 0$"),
        ({"image_size": 0}, "^the image size must be a whole number of at least 1; got 0$"),
        ({"validation": 0.0}, "^validation and test must be shares above 0 that sum to less than 1"),
    ],
)
def test_options_that_no_source_can_honour(options, message):
    with pytest.raises(Misuse, match=message):
        open_data("digits", **options)


def test_folders_that_hold_no_data(tmp_path):
    with pytest.raises(
        Misuse, match=f"no images in {tmp_path}; expected .*/CLASS/IMAGE with IMAGE ending in .bmp, .gif"
    ):
        open_data(f"folder:{tmp_path}")
    with pytest.raises(Misuse, match=f"no .parquet files in {tmp_path}; expected train"):
        open_data(f"parquet:{tmp_path}")
    (tmp_path / "void").mkdir()
    with pytest.raises(Misuse, match=f"the class folder {tmp_path}/void holds no images; add some or remove it"):
        open_data(f"folder:{tmp_path}")


def test_one_class_is_too_few(tmp_path):
    with pytest.raises(Misuse, match="has only the class 'cat' to train on; a classifier needs at least two"):
        open_data(f"folder:{write_folder(tmp_path, classes=('cat',))}")


def test_test_classes_must_be_known_to_train(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", classes=("cat", "wolf"))
    with pytest.raises(Misuse, match=r"the test split of .* has classes that train has not: 'wolf'$"):
        open_data(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 2] * 10}, r"has labels 0 \.\. 2; with 2 classes they must be 0 \.\. 1$"),
        ({"labels": [-1, 0] * 10}, r"has labels -1 \.\. 0; with 2 classes they must be 0 \.\. 1$"),
        (
            {"labels": [0, 2] * 10, "names": None},
            r"has labels 0 \.\. 2, 2 different ones; without class names they must",
        ),
        ({"labels": [0, None] * 10}, "train.parquet row 1: the label must be a whole number; got None$"),
        ({"label": "kind", "names": None}, "has the columns image, kind; one of them must be called label or labels"),
        ({"image": "kind", "names": None}, "has the columns kind, label; one of them must be called image or img"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, options, message):
    write_parquet(tmp_path / "train.parquet", 20, **options)
    with pytest.raises(Misuse, match=message):
        open_data(f"parquet:{tmp_path}")


@pytest.mark.parametrize("rubbish", ["test", "train"])
def test_a_file_that_is_no_table(tmp_path, rubbish):
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", 20)
    (tmp_path / f"{rubbish}.parquet").write_bytes(b"rubbish")
    with pytest.raises(Misuse, match=rf"cannot read .*{rubbish}.parquet: "):
        open_data(f"parquet:{tmp_path}")


def test_ids_that_fall_together_are_refused(tmp_path):
    write_folder(tmp_path, 40)
    for form in ("e\u0301", "\u00e9"):
        (tmp_path / "cat" / f"{form}.png").write_bytes(png(flat((1, 0, 7))))
    with pytest.raises(Misuse, match=r"has two examples with the id 'cat/\u00e9.png'; ids must be unique$"):
        open_data(f"folder:{tmp_path}")


def test_small_sets_keep_their_digest_in_memory(tmp_path):
    from poise.data import decoded

    splits = open_data(f"folder:{write_folder(tmp_path)}")
    whole = decoded(splits.train)
    assert isinstance(whole, InMemory)
    assert whole.digest() == splits.train.digest()
    rows = torch.arange(len(whole))
    assert torch.equal(whole.pixels(rows), splits.train.pixels(rows))
