"""``interpret``: does the evidence of an encoder lie on the object? Salient ImageNet, the paper's Fig. 6."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.allocator import freed_memory_kept
from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import Decoder, DecoderName, Source, choose_decoder, open_source
from qscore_fast.saliency.correctness_by_name import CorrectnessByName
from qscore_fast.saliency.heatmaps import Combine
from qscore_fast.saliency.interpretation import Interpretation
from qscore_fast.saliency.interpretation_parts import write_missing_parts
from qscore_fast.saliency.interpretation_rows import prefixes
from qscore_fast.saliency.interpretation_store import InterpretationStore
from qscore_fast.saliency.interpretation_summary import summarise
from qscore_fast.saliency.interpretation_table import write_rows
from qscore_fast.saliency.mask_examples import choose_examples, save_examples
from qscore_fast.saliency.measure_images import Explained
from qscore_fast.saliency.overlap import OverlapSettings
from qscore_fast.saliency.salient_imagenet import SalientImageNet
from qscore_fast.scoring import Progress
from qscore_fast.scoring.finalise import load_features
from qscore_fast.scoring.prefetch import default_workers
from qscore_fast.scoring.scores_table import features_hash

Features = DiscriminativeFeatures | str | os.PathLike[str]
Outcomes = str | os.PathLike[str] | None

MOST_EXAMPLES = 100


@dataclass(frozen=True, eq=False)
class Compared:
    """A second encoder, such as the first one after fine-tuning.

    Attributes:
        encoder: on the device to use.
        features: its own D, as those of the first.
        correct: what its own probe got right; None: as for the first encoder.
    """

    encoder: Encoder
    features: Features
    correct: Outcomes = None


def interpret(
    source: str | os.PathLike[str] | Source,
    encoder: Encoder,
    salient: SalientImageNet,
    features: Features,
    out: str | os.PathLike[str],
    *,
    compared: Compared | None = None,
    correct: Outcomes = None,
    combine: Combine = "sum",
    settings: OverlapSettings | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    unit_size: int = 1024,
    decoder: DecoderName = "auto",
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    examples: int = 6,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Interpretation:
    """Measure, image by image, how the heat of its own discriminative features fits its masks.

    Called again with the same settings after it was stopped, it goes on with the units of the source that
    are missing; outcomes and resamples may change without an image being touched again, but for the
    examples, which are drawn anew. Images that cannot be decoded, and masks that are missing or wrong, are
    recorded and left out.

    Args:
        source: ImageNet's training images in any form that ``open_source`` takes; joined by file name.
        encoder: on the device to use.
        salient: the masks.
        features: D of the encoder: an object, a features.npz or the folder of a run.
        out: the folder; made if missing.
        compared: a second encoder, measured on the same images.
        correct: a Parquet or CSV file with sample_id and correct, or sample_id, label and prediction, such as
            that of ``qscore probe``, of any copy of ImageNet: it is joined by file name.
        combine: how the heat maps of an image's features become one.
        settings: of the measures, see :func:`overlap`.
        batch_size: images a call of the encoder.
        workers: decoding threads; by default one a core, at most 16.
        unit_size: images a part, where the source can choose: what is lost, at most, when it is killed.
        num_resamples, level, seed: of the intervals; 0 resamples for none.
        examples: images to draw with their heat and masks, half of them where it fits best, half worst.
        overwrite: delete an interpretation that is in ``out``, instead of continuing it.
        progress: called with the state after every image.

    Raises:
        SourceError: no image of the source has a mask.
        QScoreError: or one of its kinds, for anything that the caller can mend.
    """
    settings = settings or OverlapSettings()
    _check(combine, batch_size, workers, unit_size, num_resamples, level, seed, examples)
    source = open_source(source) if isinstance(source, str | os.PathLike) else source
    explained = [_explained(encoder, features)]
    if compared is not None:
        explained.append(_explained(compared.encoder, compared.features))
    if compared is not None and compared.correct is not None and correct is None:
        raise SettingsError(
            "outcomes of the second encoder (--compare-correct) but none of the first: give --correct, too"
        )
    # Read now: a wrong file should show before the hours, not after.
    outcomes = [None if correct is None else CorrectnessByName(correct)]
    if compared is not None:
        own = compared.correct
        outcomes.append(outcomes[0] if own is None else CorrectnessByName(own))
    chosen_decoder = choose_decoder(decoder)
    units = source.units(unit_size)
    asked = _asked(source, salient, explained, combine, settings, unit_size, chosen_decoder)
    with InterpretationStore.writing(out, asked, overwrite) as store, freed_memory_kept():
        write_missing_parts(
            store, source, units, salient, explained,
            combine=combine, settings=settings, decoder=chosen_decoder, batch_size=batch_size,
            workers=workers or default_workers(), progress=progress,
        )  # fmt: skip
        counts, rows_of_units = write_rows(store, units, salient, outcomes)
        if not counts["images_measured"]:
            if not counts["images_failed"]:
                store.clear()  # so that the same folder takes the right images
            raise _nothing(source, salient, counts, store.path)
        rows = pq.read_table(store.path / "interpretation.parquet")
        found = Interpretation(
            path=Path(out),
            encoders=_names(explained),
            summary=summarise(
                rows, _correct_columns(rows, outcomes),
                num_resamples=num_resamples, level=level, seed=seed,
            ),
            settings=settings,
            combine=combine,
            compat=salient.compat,
            counts=counts,
            notes=salient.notes,
            num_resamples=num_resamples,
            level=level,
            seed=seed,
        )  # fmt: skip
        picture = store.path / "examples.png"
        picture.unlink(missing_ok=True)
        save_examples(
            choose_examples(rows, rows_of_units, examples), source, salient, explained, found.encoders,
            combine, chosen_decoder, picture,
        )  # fmt: skip
        found.write()
    return found


def _explained(encoder: Encoder, features: Features) -> Explained:
    return Explained(encoder, load_features(features, encoder.fingerprint, encoder.num_features))


def _names(encoders: Sequence[Explained]) -> tuple[str, ...]:
    """Of the encoders; told apart where both have one name."""
    names = [explained.encoder.name for explained in encoders]
    if len(names) == 2 and names[0] == names[1]:
        return f"{names[0]} (base)", f"{names[1]} (compared)"
    return tuple(names)


def _asked(
    source: Source,
    salient: SalientImageNet,
    encoders: Sequence[Explained],
    combine: str,
    settings: OverlapSettings,
    unit_size: int,
    decoder: Decoder,
) -> dict[str, Any]:
    """All that a part depends on."""
    return {
        "source": {"kind": source.kind, "manifest_hash": source.manifest_hash},
        "salient": {"content_hash": salient.content_hash, "compat": salient.compat},
        "encoders": [
            {
                "fingerprint": e.encoder.fingerprint,
                "dtype": e.encoder.precision,
                "preprocess": e.encoder.preprocess.to_json(),
                "features": features_hash(e.features),
            }
            for e in encoders
        ],
        "combine": combine,
        "measures": settings.to_json(),
        "unit_size": unit_size,
        "decoder": decoder.to_json(),
    }


def _correct_columns(
    rows: pa.Table, outcomes: Sequence[CorrectnessByName | None]
) -> list[np.ndarray | None]:
    """For each encoder 1, 0 or NaN for each row."""
    return [
        None if outcome is None else rows[f"{prefix}correct"].cast(pa.float64()).to_numpy()
        for prefix, outcome in zip(prefixes(len(outcomes)), outcomes, strict=True)
    ]


def _nothing(
    source: Source, salient: SalientImageNet, counts: dict[str, int], folder: Path
) -> SourceError:
    if counts["images_failed"]:
        return SourceError(
            f"none of the {counts['images_failed']:,} images with masks could be measured: "
            f"{folder / 'errors.parquet'} has the reasons"
        )
    return SourceError(
        f"no image of {source.location} is one of the {len(salient):,} that have masks, such as "
        f"{salient.name(0)}.JPEG: give ImageNet's training images under their own names"
    )


def _check(
    combine: str,
    batch_size: int,
    workers: int | None,
    unit_size: int,
    num_resamples: int,
    level: float,
    seed: int,
    examples: int,
) -> None:
    if combine not in get_args(Combine):
        raise SettingsError(f"combine is {combine!r}; choose one of {', '.join(get_args(Combine))}")
    for name, number, least in (
        ("batch_size", batch_size, 1),
        ("workers", 1 if workers is None else workers, 1),
        ("unit_size", unit_size, 1),
        ("num_resamples", num_resamples, 0),
        ("seed", seed, 0),
        ("examples", examples, 0),
    ):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise SettingsError(f"{name} must be a whole number, {least} or more; got {number!r}")
    if examples > MOST_EXAMPLES:
        raise SettingsError(f"examples = {examples}: at most {MOST_EXAMPLES} fit into a picture")
    if not 0 < level < 1:
        raise SettingsError(
            f"level = {level:g}: give the share that an interval holds, between 0 and 1"
        )
