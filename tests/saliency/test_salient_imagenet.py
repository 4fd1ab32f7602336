"""The loader against the published layout, a transcription of its own alignment, and files that are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from salient_tree import save_salient_tree, square, write_answers, write_listing
from torchvision import transforms

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.saliency.published_name import published_name
from qscore_fast.saliency.salient_imagenet import SalientImageNet
from qscore_fast.saliency.wordnet_dict import read_wordnet_dict
from qscore_fast.saliency.worker_answers import WorkerAnswers

FISH, BIRD = "n01440764", "n01530575"
NUMBERS = {FISH: 0, BIRD: 10}
KINDS = {FISH: {59: "core", 686: "core", 7: "spurious"}, BIRD: {59: "spurious"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes; of the fish, image 1 has all three features, image 2 two, image 3 one."""
    generator = np.random.default_rng(0)

    def soft() -> np.ndarray:
        small = Image.fromarray(generator.integers(0, 256, (7, 7), dtype=np.uint8))
        return np.asarray(small.resize((224, 224), Image.Resampling.BILINEAR))

    masks = {
        FISH: {
            59: {f"{FISH}_{n}": soft() for n in (1, 2, 10026)},
            686: {f"{FISH}_1": soft()},
            7: {f"{FISH}_1": square(0, 0, 64), f"{FISH}_2": soft()},
        },
        BIRD: {59: {f"{BIRD}_4": soft()}},
    }
    return save_salient_tree(tmp_path_factory.mktemp("salient"), masks, KINDS, NUMBERS)


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(made.parent, tmp_path / "copy")
    return tmp_path / "copy" / made.name


def place_of(salient: SalientImageNet, name: str) -> int:
    place = salient.find(name)
    assert place is not None
    return place


def test_images_classes_and_features(made: Path) -> None:
    salient = SalientImageNet(made)
    assert len(salient) == 4 and salient.classes == (FISH, BIRD)
    assert (salient.answers.num_core, salient.answers.num_spurious) == (2, 2)
    assert set(salient.notes.values()) == {0}
    by_name = {
        salient.name(place): (
            salient.wnid(place),
            *(salient.features(place, k) for k in (False, True)),
        )
        for place in range(len(salient))
    }
    assert by_name == {
        f"{FISH}_1": (FISH, (59, 686), (7,)),
        f"{FISH}_2": (FISH, (59,), (7,)),
        f"{FISH}_10026": (FISH, (59,), ()),
        f"{BIRD}_4": (BIRD, (), (59,)),
    }
    for name in by_name:
        assert salient.name(place_of(salient, name)) == name
    assert salient.find(f"{FISH}_3") is None and salient.find("") is None


def read(made: Path, wnid: str, feature: int, name: str) -> np.ndarray:
    return np.asarray(Image.open(made / wnid / f"feature_{feature}" / f"{name}.JPEG"))


def test_the_union_is_the_maximum_and_stays_soft(made: Path) -> None:
    salient = SalientImageNet(made)
    name = f"{FISH}_1"
    masks = salient.masks(place_of(salient, name))
    expected = np.maximum(read(made, FISH, 59, name), read(made, FISH, 686, name))
    assert masks.core is not None and masks.core.dtype == np.uint8
    assert len(np.unique(masks.core)) > 100
    np.testing.assert_array_equal(masks.core, expected)
    np.testing.assert_array_equal(masks.spurious, read(made, FISH, 7, name))
    assert salient.masks(place_of(salient, f"{FISH}_10026")).spurious is None
    assert salient.masks(place_of(salient, f"{BIRD}_4")).core is None


def test_compat_is_the_published_loaders_double_crop_to_the_bit(made: Path) -> None:
    name = f"{FISH}_1"
    salient = SalientImageNet(made, compat=True)
    transform = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    union = np.zeros((224, 224))
    for feature in (59, 686):
        union = np.maximum(union, read(made, FISH, feature, name) / 255.0)
    expected = transform(Image.fromarray(np.uint8(union * 255)))[0]
    found = salient.masks(place_of(salient, name)).core
    assert found is not None
    np.testing.assert_array_equal((found / np.float32(255)).astype(np.float32), expected.numpy())
    plain = SalientImageNet(made).masks(place_of(salient, name)).core
    assert plain is not None and np.abs(plain.astype(int) - found).mean() > 5
    assert salient.content_hash != SalientImageNet(made).content_hash


@pytest.mark.parametrize("level", range(0, 256, 5))
def test_compat_keeps_the_levels_that_float64_loses(level: int, tmp_path: Path) -> None:
    from qscore_fast.saliency.salient_masks import union_of_masks

    path = tmp_path / "n01440764" / "feature_1" / "flat.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((224, 224), level, np.uint8)).save(path)
    found = union_of_masks([path], compat=True)
    assert found is not None and set(np.unique(found)) == {
        int(np.uint8(np.float64(level) / 255.0 * 255))
    }


def test_the_rule_of_three_votes_is_pandas_count_of_the_same_file(made: Path) -> None:
    path = made.parent / "mturk_results" / "discover_spurious_features.csv"
    answers = WorkerAnswers.read(path)
    frame = pd.read_csv(path)
    frame["against"] = frame["Answer.main"].isin(["separate_object", "background"])
    votes = frame.groupby(["Input.wordnet_id", "Input.feature_index"])["against"].sum()
    expected = {wnid: {} for wnid in KINDS}
    for (wnid, feature), count in votes.items():
        expected[wnid][feature] = bool(count >= 3)
    assert answers.spurious == expected
    assert answers.class_indices == NUMBERS


def test_every_count_of_votes(tmp_path: Path) -> None:
    lines = ["WorkerId,Input.wordnet_id,Input.class_index,Input.feature_index,Answer.main"]
    for against in range(6):
        for worker in range(5):
            answer = "background" if worker < against else "main_object"
            lines.append(f"{worker},{FISH},0,{against},{answer}")
    path = tmp_path / "answers.csv"
    path.write_text("\n".join(lines))
    assert WorkerAnswers.read(path).spurious[FISH] == {n: n >= 3 for n in range(6)}


def test_answers_are_found_where_people_put_them(root: Path) -> None:
    answers = root.parent / "mturk_results" / "discover_spurious_features.csv"
    expected = SalientImageNet(root).content_hash
    assert SalientImageNet(root.parent).content_hash == expected  # the folder that holds both
    for place in (root, root / "mturk_results", root.parent):
        place.mkdir(exist_ok=True)
        answers = answers.rename(place / answers.name)
        assert SalientImageNet(root).content_hash == expected
    elsewhere = answers.rename(root.parent.parent / "mine.csv")
    assert SalientImageNet(root, elsewhere).content_hash == expected
    with pytest.raises(SourceError, match=r"--salient-answers"):
        SalientImageNet(root)


def test_masks_that_cannot_be_used_say_which(root: Path) -> None:
    salient = SalientImageNet(root)
    path = root / FISH / "feature_686" / f"{FISH}_1.JPEG"
    whole = path.read_bytes()
    place = place_of(salient, f"{FISH}_1")

    def reason() -> str:
        with pytest.raises(ImageError) as caught:
            salient.masks(place)
        assert caught.value.stage == "mask"
        assert f"{FISH}/feature_686/{FISH}_1.JPEG" in str(caught.value)
        return str(caught.value)

    path.unlink()
    assert "No such file" in reason()
    path.write_bytes(whole[: len(whole) // 3])
    assert "damaged or truncated" in reason()
    path.write_bytes(b"")
    assert "empty" in reason()
    Image.new("L", (256, 224)).save(path, format="JPEG")
    assert "256 x 224 pixels, the published ones 224 x 224" in reason()
    path.unlink()
    path.mkdir()
    reason()
    # The other images of the class are none the worse.
    assert salient.masks(place_of(salient, f"{FISH}_2")).core is not None


def test_a_mask_in_colour_is_read_as_grey(root: Path) -> None:
    path = root / FISH / "feature_59" / f"{FISH}_10026.JPEG"
    grey = np.asarray(Image.open(path))
    Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(path, format="PNG")
    salient = SalientImageNet(root)
    found = salient.masks(place_of(salient, f"{FISH}_10026")).core
    np.testing.assert_array_equal(found, grey)


BAD_LISTINGS = {
    "a path": f"59\n../../{FISH}_1\n",
    "an absolute path": "59\n/etc/passwd\n",
    "an extension": f"59\n{FISH}_1.JPEG\n",
    "a null": f"59\n{FISH}_1\0\n",
    "a heading with a path": f"../59\n{FISH}_1\n",
    "a number too many": f"59\n{FISH}_1,{FISH}_2\n",
    "a column twice": f"59,59\n{FISH}_1,{FISH}_2\n",
    "a quote that stays open": f'59\n"{FISH}_1\n',
    "no column": "\n",
    "no text": b"\xff\xfe\x00",
    "nothing": "",
}


@pytest.mark.parametrize("what", BAD_LISTINGS)
def test_a_listing_that_is_none(what: str, root: Path) -> None:
    content = BAD_LISTINGS[what]
    path = root / FISH / "image_names_map.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match="image_names_map.csv") as caught:
        SalientImageNet(root)
    assert "\0" not in str(caught.value).encode("unicode_escape").decode()


def test_a_listing_with_the_index_of_pandas(root: Path) -> None:
    frame = pd.read_csv(root / FISH / "image_names_map.csv")
    expected = SalientImageNet(root).content_hash
    frame.to_csv(root / FISH / "image_names_map.csv", index=True)
    assert SalientImageNet(root).content_hash == expected


ROW = f"1,{FISH},0,59,1,main_object,4.0,because"
BAD_ROWS = {
    "wnid": ROW.replace(FISH, "../etc"),
    "class index": ROW.replace(",0,", ",zero,"),
    "feature index": ROW.replace(",59,", ",-1,"),
    "answer": ROW.replace("main_object", "maybe"),
    "a short row": f"1,{FISH},0",
    "another number for the class": ROW.replace(",0,", ",3,"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_an_answer_that_is_none_names_its_line(what: str, root: Path) -> None:
    path = root.parent / "mturk_results" / "discover_spurious_features.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], ROW, BAD_ROWS[what]]))
    with pytest.raises(SourceError, match="line 3"):
        WorkerAnswers.read(path)


def test_answers_without_their_columns_or_rows(tmp_path: Path) -> None:
    path = tmp_path / "discover_spurious_features.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"no column WorkerId.*discover_spurious_features\.csv"):
        WorkerAnswers.read(path)
    write_answers(path, {}, {})
    with pytest.raises(SourceError, match="holds no answer"):
        WorkerAnswers.read(path)
    with pytest.raises(SourceError, match="cannot be opened"):
        WorkerAnswers.read(tmp_path / "none.csv")


def test_wordnet_dict_is_parsed_and_never_run(root: Path, tmp_path: Path) -> None:
    path = root / "wordnet_dict.py"
    assert read_wordnet_dict(path) == {0: FISH, 10: BIRD}
    proof = tmp_path / "ran"
    for text in [
        f"__import__('pathlib').Path({str(proof)!r}).touch()",
        f"{{0: open({str(proof)!r}, 'w') and 'n01440764'}}",
        "{0: 'n01440764'}; import os",
        "{0: 'n01440764', **{1: 'n01530575'}}",
        "{0: f'n0144{0}764'}",
        "{'0': 'n01440764'}",
        "{True: 'n01440764'}",
        "{0: '../n01440764'}",
        "{[]: 'n01440764'}",
        "[0, 1]",
        "(" * 5000 + ")" * 5000,
        "{0: " + "-" * 100_000 + "1}",
        "\0",
    ]:
        path.write_text(text)
        with pytest.raises(SourceError, match="wordnet_dict.py"):
            SalientImageNet(root)
    assert not proof.exists()
    path.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(SourceError, match="larger than"):
        SalientImageNet(root)
    path.write_text(repr({0: BIRD, 10: FISH}))
    with pytest.raises(SourceError, match=r"class 0 is n01530575 .* n01440764 .*one release"):
        SalientImageNet(root)
    path.unlink()
    assert len(SalientImageNet(root)) == 4


def test_what_the_answers_do_not_know_is_counted(root: Path) -> None:
    path = root.parent / "mturk_results" / "discover_spurious_features.csv"
    write_answers(path, {FISH: {59: "core", 7: "spurious"}}, NUMBERS)
    salient = SalientImageNet(root)
    assert salient.classes == (FISH,)
    assert salient.notes["classes without answers"] == 1
    assert salient.notes["features without answers"] == 1
    write_answers(path, {"n09999999": {1: "core"}}, {"n09999999": 3})
    with pytest.raises(SourceError, match="one release"):
        SalientImageNet(root)


def test_an_image_that_two_classes_list_has_the_masks_of_the_first(root: Path) -> None:
    write_listing(root / BIRD, {59: [f"{FISH}_1", f"{BIRD}_4"]})
    salient = SalientImageNet(root)
    assert salient.wnid(place_of(salient, f"{FISH}_1")) == FISH
    assert salient.notes["images that a second class lists"] == 1
    assert len(salient) == 4


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no folder"):
        SalientImageNet(tmp_path / "none")
    with pytest.raises(SourceError, match=r"image_names_map\.csv in a folder of a class"):
        SalientImageNet(tmp_path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("n01440764/n01440764_10026.JPEG", "n01440764_10026"),
        ("train/n01440764/n01440764_10026.jpg", "n01440764_10026"),
        ("n01440764_10026_n01440764.JPEG", "n01440764_10026"),
        ("a/b.tar/n01440764_1.jpeg", "n01440764_1"),
        ("ILSVRC2012_val_00000293.JPEG", None),
        ("n01440764_10026", None),
        ("xn01440764_10026.JPEG", None),
        ("n01440764_x.JPEG", None),
        ("n01440764/n01440764_10026.JPEG/../../x", None),
        ("train-00000.parquet#0/3", None),
        (None, None),
        ("", None),
    ],
)
def test_names_of_images(text: str | None, name: str | None) -> None:
    assert published_name(text) == name
