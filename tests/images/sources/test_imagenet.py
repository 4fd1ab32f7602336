"""ImageNet's validation set with its development kit, and Kaggle's tree."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hostile_images import jpeg_bytes, photo
from scipy.io import savemat

from qscore_fast.errors import MissingExtraError, SettingsError, SourceError
from qscore_fast.images import Source, decode_image, open_source
from qscore_fast.images.sources.class_list import class_list
from qscore_fast.images.sources.heads import heads, known_classes
from qscore_fast.images.sources.imagenet import ImageNetKaggleSource, ImageNetValSource
from qscore_fast.images.sources.source import Sample

# ILSVRC ids 1 to 4 as in the real kit: not in the order of the WordNet ids.
WNIDS = ["n02119789", "n02100735", "n02110185", "n02096294"]
TRUTH = [3, 1, 4, 2, 3]
LABELS = ["n02110185", "n02119789", "n02096294", "n02100735", "n02110185"]
NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6)]
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def samples(source: Source) -> list[Sample]:
    return [sample for unit in source.units(2) for sample in source.read(unit)]


def save_images(folder: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg_bytes(photo(seed=seed)))
    return folder


def meta_mat() -> bytes:
    """The structure of the real meta.mat: classes first, then their groups; WNIDs not sorted."""
    rows = [(n, wnid, "w", "g", 0, np.zeros(0), 0, 1300) for n, wnid in enumerate(WNIDS, start=1)]
    rows.append((5, "n00001740", "entity", "g", 2, np.array([1, 2]), 9, 0))
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss"]
    fields += ["num_children", "children", "wordnet_height", "num_train_images"]
    file = io.BytesIO()
    table = np.array(rows, dtype=[(name, object) for name in fields]).reshape(-1, 1)
    savemat(file, {"synsets": table}, do_compression=True)
    return file.getvalue()


def save_kit(folder: Path) -> Path:
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    (data / GROUND_TRUTH).write_text("".join(f"{n}\n" for n in TRUTH))
    (data / "meta.mat").write_bytes(meta_mat())
    return data.parent


@pytest.fixture
def val(tmp_path: Path) -> Path:
    return save_images(tmp_path / "val", NAMES)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return save_kit(tmp_path)


def check(source: ImageNetValSource | ImageNetKaggleSource, val: Path) -> None:
    assert source.has_labels and source.num_samples == 5
    found = samples(pickle.loads(pickle.dumps(source)))
    assert found == [
        Sample(name, label, path=os.fsencode(val / name))
        for name, label in zip(NAMES, LABELS, strict=True)
    ]
    assert decode_image(found[0].path or b"").size == (40, 30)
    assert source.notes["images of the ground truth missing"] == 0


def test_kit_as_folder_data_file_or_tar(val: Path, kit: Path) -> None:
    packed = kit.with_suffix(".tar.gz")
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(kit, kit.name)
    hashes = set()
    for place in (kit, kit / "data", kit / "data" / GROUND_TRUTH, packed):
        source = ImageNetValSource(val, place)
        check(source, val)
        hashes.add(source.manifest_hash)
    assert len(hashes) == 1
    (kit / "data" / GROUND_TRUTH).write_text("3\n1\n4\n2\n2\n")
    assert ImageNetValSource(val, kit).manifest_hash not in hashes


def test_synsets_as_text(val: Path, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later kits have map_clsloc.txt; neither it nor a list takes scipy."""
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match="scipy is not installed"):
        ImageNetValSource(val, kit)
    listed = kit.parent / "order.txt"
    listed.write_text("".join(f"{wnid} some, words\n" for wnid in WNIDS))
    check(ImageNetValSource(val, kit, listed), val)
    rows = [f"{wnid} {number} word\n" for number, wnid in enumerate(WNIDS, start=1)]
    (kit / "data" / "map_clsloc.txt").write_text("".join(reversed(rows)))
    check(ImageNetValSource(val, kit), val)


def test_ids_in_sorted_order_are_refused(val: Path, kit: Path) -> None:
    listed = kit.parent / "sorted.txt"
    listed.write_text("".join(f"{wnid}\n" for wnid in sorted(WNIDS)))
    with pytest.raises(SourceError, match="sorted by WordNet id, which is not the order"):
        ImageNetValSource(val, kit, listed)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (GROUND_TRUTH, None, f"there is no {GROUND_TRUTH} in .*devkit"),
        (GROUND_TRUTH, b"", "is empty"),
        (GROUND_TRUTH, b"3\n1\n0\n2\n3\n", "entry 3 of .* is '0', not one of the 4"),
        (GROUND_TRUTH, b"3\n1\n5\n2\n3\n", "entry 3 of .* is '5', not one of the 4"),
        (GROUND_TRUTH, b"3\n\xff\n4\n2\n3\n", "entry 2 of"),
        (GROUND_TRUTH, b"3\n1\n4\n2\n", "no label for ILSVRC2012_val_00000005.JPEG .* covers 4"),
        ("meta.mat", None, "no meta.mat and no map_clsloc.txt in .*devkit"),
        ("meta.mat", b"", "not the kit's table of synsets"),
        ("meta.mat", b"MATLAB 5.0 not really" + bytes(500), "not the kit's table of synsets"),
        ("map_clsloc.txt", b"kit_fox 1\n", "'kit_fox' where a WordNet id"),
        ("map_clsloc.txt", b"n02119789 1\nn02100735 1\n", "each ILSVRC id one"),
        ("map_clsloc.txt", b"n02119789 1\nn02119789 2\n", "each ILSVRC id one"),
        ("map_clsloc.txt", b"", "each ILSVRC id one"),
    ],
)
def test_kit_that_is_not_whole(
    val: Path, kit: Path, name: str, content: bytes | None, reason: str
) -> None:
    file = kit / "data" / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        ImageNetValSource(val, kit)


def test_tar_that_is_no_kit(val: Path, tmp_path: Path) -> None:
    path = tmp_path / "kit.tar.gz"
    with pytest.raises(SourceError, match="no development kit"):
        ImageNetValSource(val, path)
    path.write_bytes(b"\x1f\x8b but no more")
    with pytest.raises(SourceError, match="cannot read the development kit"):
        ImageNetValSource(val, path)
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("kit/evaluation/big.bin")
        info.size = 1 << 27
        tar.addfile(info, io.BytesIO(bytes(1 << 27)))
    with pytest.raises(SourceError, match="unpacks to more than"):
        ImageNetValSource(val, path)


def test_val_folders_of_other_layouts(val: Path, kit: Path, tmp_path: Path) -> None:
    sorted_val = save_images(tmp_path / "sorted", [f"n02119789/{NAMES[0]}"])
    with pytest.raises(SourceError, match="has images in folders, such as n02119789/ILSVRC"):
        ImageNetValSource(sorted_val, kit)
    with pytest.raises(SourceError, match="there is no folder"):
        ImageNetValSource(tmp_path / "nowhere", kit)
    with pytest.raises(SourceError, match="there is no .*nokit"):
        ImageNetValSource(val, tmp_path / "nokit")
    save_images(val, ["stray.jpg"])
    with pytest.raises(SourceError, match=r"no label for stray.jpg"):
        ImageNetValSource(val, kit)
    (val / "stray.jpg").unlink()
    (val / NAMES[1]).unlink()
    source = ImageNetValSource(val, kit)
    assert [sample.label for sample in samples(source)] == [LABELS[0], *LABELS[2:]]
    assert source.notes["images of the ground truth missing"] == 1


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    root = tmp_path / "kaggle"
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    save_images(data / "val", NAMES)
    save_images(data / "test", ["ILSVRC2012_test_00000001.JPEG"])
    save_images(data / "train", [f"{wnid}/{wnid}_{n}.JPEG" for wnid in WNIDS for n in (7, 10)])
    rows = [f"{n[:-5]},{w} 1 2 3 4 {w} 5 6 7 8\n" for n, w in zip(NAMES, LABELS, strict=True)]
    text = "ImageId,PredictionString\n" + "".join(reversed(rows))
    (root / "LOC_val_solution.csv").write_text(text)
    return root


def test_kaggle(kaggle: Path) -> None:
    val = kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    check(ImageNetKaggleSource(kaggle), val)
    check(ImageNetKaggleSource(kaggle / "ILSVRC"), val)
    check(ImageNetKaggleSource(val.parent), val)
    told = open_source(val.parent)  # and not as a folder of the classes "train" and "val"
    assert told.kind == "imagenet-kaggle" and told.num_samples == 5
    train = samples(ImageNetKaggleSource(kaggle, "train"))
    assert [(s.sample_id, s.label) for s in train] == [
        (f"{wnid}/{wnid}_{n}.JPEG", wnid) for wnid in sorted(WNIDS) for n in (10, 7)
    ]
    test = ImageNetKaggleSource(kaggle, "test")
    assert not test.has_labels
    assert [(s.sample_id, s.label) for s in samples(test)] == [
        ("ILSVRC2012_test_00000001.JPEG", None)
    ]


@pytest.mark.parametrize("layout", ["val", "kaggle val", "kaggle train"])
def test_the_same_at_a_url(kaggle: Path, kit: Path, layout: str) -> None:
    store = fsspec.filesystem("memory")
    for file in kaggle.rglob("*"):
        if file.is_file():
            store.pipe_file(f"/imagenet/{file.relative_to(kaggle)}", file.read_bytes())
    if layout == "val":
        place = "ILSVRC/Data/CLS-LOC/val"
        local, remote = (
            open_source(f"{base}/{place}", ground_truth=kit)
            for base in (kaggle, "memory://imagenet")
        )
    else:
        split = layout.split()[1]
        local, remote = (
            open_source(base, split=split) for base in (kaggle, "memory://imagenet/ILSVRC")
        )
        inner = open_source("memory://imagenet/ILSVRC/Data/CLS-LOC", split=split)
        assert inner.manifest_hash == remote.manifest_hash
    assert remote.kind == local.kind and remote.has_labels
    here, there = samples(local), samples(pickle.loads(pickle.dumps(remote)))
    assert [(s.sample_id, s.label) for s in here] == [(s.sample_id, s.label) for s in there]
    assert [Path(os.fsdecode(s.path or b"")).read_bytes() for s in here] == [
        s.content for s in there
    ]
    assert known_classes(remote) == known_classes(local) == {s.label for s in there}
    in_heads = [(s.sample_id, s.label) for unit in remote.units(2) for s in heads(remote, unit)]
    assert in_heads == [(s.sample_id, s.label) for s in there]
    solution = "/imagenet/LOC_val_solution.csv"
    before = remote.manifest_hash
    if layout == "kaggle val":
        store.pipe_file(solution, store.cat_file(solution).replace(b"n02119789", b"n02100735"))
        assert open_source("memory://imagenet", split="val").manifest_hash != before
        store.rm_file(solution)
        with pytest.raises(SourceError, match=r"no LOC_val_solution\.csv.*in memory://imagenet"):
            open_source("memory://imagenet")
    store.rm("/imagenet", recursive=True)


def test_kaggle_incomplete(kaggle: Path) -> None:
    with pytest.raises(SettingsError, match="split must be one of train, val, test; got 'valid'"):
        ImageNetKaggleSource(kaggle, "valid")
    save_images(kaggle / "ILSVRC/Data/CLS-LOC/train", ["stray.JPEG"])
    with pytest.raises(SourceError, match="images beside its class folders"):
        ImageNetKaggleSource(kaggle, "train")
    solution = kaggle / "LOC_val_solution.csv"
    lines = solution.read_text().splitlines()
    for text, reason in [
        ("\n".join(lines[:-1]), "no label for ILSVRC2012_val_00000001.JPEG"),
        ("a,b\n1,2\n", "row 1 .* has no ImageId and PredictionString"),
        ("", "is empty"),
    ]:
        solution.write_text(text)
        with pytest.raises(SourceError, match=reason):
            ImageNetKaggleSource(kaggle)
    solution.unlink()
    with pytest.raises(
        SourceError, match="no LOC_val_solution.csv, which has the labels of val, in"
    ):
        ImageNetKaggleSource(kaggle)
    with pytest.raises(SourceError, match="there is no folder ILSVRC/Data/CLS-LOC/val in"):
        ImageNetKaggleSource(kaggle / "ILSVRC" / "Data")


def test_class_list(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# my classes\r\n\r\nn02119789 kit fox, Vulpes\r\n T-shirt/top \nn02119789\nno1\tx\n"
    )
    assert class_list(path) == ("n02119789", "T-shirt/top", "no1\tx")
    for content in (b"", b"# only this\n\n"):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match="names no class"):
            class_list(path)
    with pytest.raises(SettingsError, match="no list of classes .*: give a file, or imagenet100"):
        class_list(tmp_path / "imagenet1000")
    with pytest.raises(SettingsError, match="cannot read"):
        class_list(tmp_path)


def test_imagenet100_is_the_published_file() -> None:
    classes = class_list("imagenet100")
    assert len(classes) == len(set(classes)) == 100
    content = "".join(f"{wnid}\n" for wnid in classes).encode()
    assert hashlib.sha256(content).hexdigest() == (
        "79f3f1552ccc478ce24bd934b4573625db584ddc1f4643ae23c994a94cb11397"
    )
