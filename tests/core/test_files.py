from __future__ import annotations

import pytest
import torch

from poise.core.batch import Batch
from poise.core.files import digest_tensors, digest_words, write_text, written_whole
from poise.core.misuse import suggestion


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table"
    write_text(target, "old")
    with pytest.raises(OSError, match="full"), written_whole(target) as partial:
        partial.write_text("half")
        raise OSError("full")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_a_write_makes_its_folder(tmp_path):
    write_text(tmp_path / "a" / "b", "text")
    assert (tmp_path / "a" / "b").read_text() == "text"


def test_digests_tell_names_values_dtypes_and_shapes_apart():
    zeros = torch.zeros(4)
    seen = [[("a", zeros)], [("b", zeros)], [("a", zeros.view(2, 2))], [("a", zeros.double())], [("a", zeros + 1)], []]
    assert len({digest_tensors(named) for named in seen}) == len(seen)
    assert digest_tensors([("a", zeros.view(2, 2).t())]) == digest_tensors([("a", zeros.view(2, 2))])
    assert digest_words(["ab", "c"]) != digest_words(["a", "bc"])


def test_digest_reads_bfloat16_and_scalars():
    assert digest_tensors([("a", torch.ones(3, dtype=torch.bfloat16)), ("b", torch.tensor(1))])


def test_suggestion_names_the_nearest_or_lists_all():
    assert suggestion("hing", ["hinge", "fixed"]) == "did you mean 'hinge'?"
    assert suggestion("zzz", ["hinge", "fixed"]) == "valid: fixed, hinge"


def test_batch_selects_rows_and_masks_alike():
    batch = Batch(torch.rand(3, 2), torch.tensor([0, 1, 2]), torch.tensor([7, 8, 9]))
    assert batch.select(torch.tensor([2])).ids.tolist() == [9]
    assert batch.select(torch.tensor([True, False, True])).labels.tolist() == [0, 2]
    assert len(batch.to(torch.device("cpu"))) == 3
