"""ImageNet-1K's training and validation images, in any layout in which people keep them."""

from __future__ import annotations

from pathlib import Path

from qscore_fast.errors import SourceError
from qscore_fast.images import Source, open_source
from qscore_fast.images.sources.class_list import class_list
from qscore_fast.images.sources.subset import Subset

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KAGGLE = Path("ILSVRC") / "Data" / "CLS-LOC"
KITS = ("ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12.tar.gz")


def imagenet_sources(path: Path, classes: str | None = None) -> dict[str, Source]:
    """The sources ``train`` and ``test`` (the validation set) below a folder.

    Understood: the two original tars; Kaggle's tree; ``train/WNID`` beside ``val/WNID`` or a flat ``val``.
    Tars and a flat ``val`` need the development kit beside them for the labels.

    Args:
        classes: these alone: "imagenet100", or a file of wnids.

    Raises:
        SourceError: none of these layouts, or no kit where one is needed.
    """
    kit = next((path / name for name in KITS if (path / name).exists()), None)
    train, val = path / "train", path / "val"
    if (path / TRAIN_TAR).exists() and (path / VAL_TAR).exists():
        sources = [
            open_source(path / TRAIN_TAR),
            open_source(path / VAL_TAR, ground_truth=_needed(kit, path)),
        ]
    elif (path / KAGGLE).is_dir() or path.parts[-3:] == KAGGLE.parts:
        sources = [open_source(path, split="train"), open_source(path, split="val")]
    elif train.is_dir() and val.is_dir():
        flat = not any(entry.is_dir() for entry in val.iterdir())
        sources = [
            open_source(train),
            open_source(val, ground_truth=_needed(kit, path)) if flat else open_source(val),
        ]
    else:
        raise SourceError(
            f"{path} holds neither {TRAIN_TAR} and {VAL_TAR}, nor {KAGGLE}, nor train and val: give the "
            "folder of one of these"
        )
    if classes is not None:
        names = class_list(classes)
        sources = [Subset(source, names, None, None) for source in sources]
    return dict(zip(("train", "test"), sources, strict=True))


def _needed(kit: Path | None, path: Path) -> Path:
    if kit is None:
        raise SourceError(
            f"{path} holds no {KITS[0]}, which has the labels of the validation images: put it there"
        )
    return kit
