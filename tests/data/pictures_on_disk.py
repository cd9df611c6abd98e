"""Small images and the layouts that sources read, written by the tests themselves."""

import io
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cat", "dog")


def flat(value, size=(4, 4), mode="RGB"):
    """An image of one colour."""
    return Image.new(mode, size, value)


def png(image):
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def write_folder(root, per_class=20, classes=CLASSES, **options):
    """Class folders of PNGs; the red value of an image is its number, the green one its class."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            flat((number, label, 7), **options).save(root / name / f"{number}.png")
    return root


def write_parquet(path, count, *, names=CLASSES, paths=None, labels=None, contents=None, image="image", label="label"):
    """The image-feature layout of Hugging Face; the red value of an image is its row."""
    labels = [row % 2 for row in range(count)] if labels is None else labels
    contents = contents or [png(flat((row, labels[row] or 0, 7))) for row in range(count)]
    cells = [{"bytes": contents[row], "path": paths[row] if paths else None} for row in range(count)]
    layout = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(cells, layout), label: pa.array(labels)})
    if names:
        features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def saved(path, count=30, **splits):
    """A data set as `datasets` saves it, with so many images in each split; the red value of an image is its row."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    tables = {
        name: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": png(flat((row, row % 2, 7))), "path": None} for row in range(size)],
                "label": [row % 2 for row in range(size)],
            },
            features=features,
        )
        for name, size in (splits or {"train": count}).items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(path))
    return path


def write_idx(path, array):
    """MNIST's format: two zero bytes, the type code of bytes, the number of axes, their lengths, the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(length).to_bytes(4, "big") for length in array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())
