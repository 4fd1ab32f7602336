"""FeatureRows against plain NumPy, ClassLabels against the folders and files that they come from."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor


class Run:
    """What ClassLabels asks of a run."""

    def __init__(self, sample_ids, labels):
        self.table = pa.table({"sample_id": sample_ids, "label": pa.array(labels, pa.string())})

    def scores(self):
        return self.table


@given(
    whole=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 30), st.integers(1, 5)), elements=st.integers(0, 99)
    ),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    size=st.integers(1, 9),
    data=st.data(),
)  # fmt: skip
def test_parts_read_as_one_array(whole, cuts, size, data):
    parts = np.split(whole, sorted(min(cut, len(whole)) for cut in cuts))
    rows = FeatureRows(tuple(part for part in parts if len(part)))
    columns = data.draw(st.permutations(range(whole.shape[1])))[: data.draw(st.integers(1, 5))]
    wanted = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=12))

    assert len(rows) == len(whole)
    np.testing.assert_array_equal(rows.to_array(), whole)
    np.testing.assert_array_equal(rows.gather(np.array(wanted)), whole[wanted])
    chosen = rows.select(columns)
    blocks = list(chosen.blocks(size))
    # Whatever the parts hold: their edges are no edges of blocks.
    assert [len(block) for block in blocks] == [
        min(size, len(whole) - start) for start in range(0, len(whole), size)
    ]
    np.testing.assert_array_equal(np.concatenate(blocks), whole[:, columns])
    np.testing.assert_array_equal(
        chosen.select([0]).gather(np.array(wanted)), whole[wanted][:, columns[:1]]
    )
    assert chosen.num_bytes == whole[:, columns].nbytes


def test_a_block_of_one_part_is_no_copy_and_a_read_only_one_is_copied_for_pytorch():
    parts = (np.zeros((4, 3), np.float32), np.ones((5, 3), np.float32))
    parts[1].setflags(write=False)
    blocks = list(FeatureRows(parts).blocks(2))
    assert [any(np.shares_memory(block, part) for part in parts) for block in blocks] == [True] * 5
    tensors = [as_tensor(block) for block in blocks]
    for tensor, block in zip(tensors, blocks, strict=True):
        assert np.shares_memory(tensor.numpy(), block) == block.flags.writeable
        np.testing.assert_array_equal(tensor.numpy(), block)


def test_bfloat16_tensors_keep_their_values():
    h = torch.tensor([[1.5, -2.25], [3e38, 0.0]], dtype=torch.bfloat16)
    np.testing.assert_array_equal(FeatureRows.of(h).to_array(), h.double().numpy())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "there is no representation"),
        ((np.zeros((0, 4), np.float32),), "there is no representation"),
        ((np.zeros(4, np.float32),), r"shape \(4,\)"),
        ((np.zeros((2, 4), np.int64),), "dtype int64"),
        ((np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32)), "r = 4 and float32 with r = 5"),
        ((np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float16)), "float16"),
    ],
)  # fmt: skip
def test_what_is_no_matrix_is_refused(parts, message):
    with pytest.raises(SettingsError, match=message):
        FeatureRows(parts)


@pytest.mark.parametrize("columns", [[], [-1], [4], [[0, 1]]])
def test_features_that_are_not_there_are_refused(columns):
    with pytest.raises(SettingsError, match="feature"):
        FeatureRows.of(np.zeros((2, 4), np.float32)).select(columns)


def test_labels_of_a_run_are_numbered_by_name():
    labels = ClassLabels.of_run(Run(["a", "b", "c"], ["dog", "ant", "dog"]))
    assert labels.classes == ("ant", "dog")
    assert labels.targets.tolist() == [1, 0, 1]


def test_labels_of_a_test_set_take_the_numbers_of_the_training_set():
    run = Run(["a", "b"], ["dog", "dog"])
    assert ClassLabels.of_run(run, classes=("cat", "dog")).targets.tolist() == [1, 1]
    with pytest.raises(SettingsError, match="none of the 1 classes: 'dog'"):
        ClassLabels.of_run(run, classes=("cat",))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_labels_from_a_file_are_joined_on_the_id(tmp_path, suffix):
    path = tmp_path / f"labels{suffix}"
    if suffix == ".csv":
        path.write_text("sample_id,label\nc,7\nextra,3\na,10\nb,7\n")
    else:
        columns = {"sample_id": ["c", "extra", "a", "b"], "label": [7, 3, 10, 7]}
        pq.write_table(pa.table(columns), path)
    labels = ClassLabels.of_run(Run(["a", "b", "c"], [None] * 3), path)
    assert [labels.classes[target] for target in labels.targets] == ["10", "7", "7"]


@pytest.mark.parametrize("written", [("00", "01", "09"), ("0", "1", "9"), ("0.0", "1.0", "9.0")])
def test_labels_of_numbered_folders_are_known_in_any_form(tmp_path, written):
    """Folders 00 .. 09, and a file that was written by hand or by pandas."""
    path = tmp_path / "labels.csv"
    ids = ("a", "b", "c")
    path.write_text(
        "sample_id,label\n" + "".join(f"{i},{n}\n" for i, n in zip(ids, written, strict=True))
    )
    folders = [f"{digit:02}" for digit in range(10)]
    run = Run(ids, ["00", "01", "09"])
    assert ClassLabels.of_run(run, path, folders).targets.tolist() == [0, 1, 9]
    # As training labels the names stay as the file has them.
    learnt = ClassLabels.of_run(run, path)
    assert learnt.classes == written
    assert ClassLabels.of_run(run, classes=learnt.classes).targets.tolist() == [0, 1, 2]


def test_missing_labels_are_named(tmp_path):
    with pytest.raises(SettingsError, match="2 of 3 samples have no label"):
        ClassLabels.of_run(Run(["a", "b", "c"], [None, "x", None]))
    path = tmp_path / "labels.csv"
    path.write_text("sample_id,label\na,1\nb,\n")
    with pytest.raises(SettingsError, match="no label for 2 of 3 scored samples, such as 'b', 'c'"):
        ClassLabels.of_run(Run(["a", "b", "c"], [None] * 3), path)
    path.write_text("sample_id,label\na,1\na,2\n")
    with pytest.raises(SettingsError, match="more than once"):
        ClassLabels.of_run(Run(["a"], [None]), path)
    path.write_text("name,label\na,1\n")
    with pytest.raises(SettingsError, match="needs sample_id and label"):
        ClassLabels.of_run(Run(["a"], [None]), path)
