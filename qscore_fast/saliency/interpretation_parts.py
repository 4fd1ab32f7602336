"""The units of a source that have no part yet, measured one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qscore_fast.errors import ImageError
from qscore_fast.images import Decoder, Source, Unit
from qscore_fast.saliency.heatmaps import Combine
from qscore_fast.saliency.interpretation_rows import PartRows
from qscore_fast.saliency.interpretation_store import InterpretationStore
from qscore_fast.saliency.masked_images import MaskedImage, MaskedSamples, Passed, masked_images
from qscore_fast.saliency.measure_images import Explained, measure_images
from qscore_fast.saliency.overlap import OverlapSettings
from qscore_fast.saliency.salient_imagenet import SalientImageNet
from qscore_fast.scoring import Progress


def write_missing_parts(
    store: InterpretationStore,
    source: Source,
    units: Sequence[Unit],
    salient: SalientImageNet,
    encoders: Sequence[Explained],
    *,
    combine: Combine,
    settings: OverlapSettings,
    decoder: Decoder,
    batch_size: int,
    workers: int,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Make every part that is not there. Memory holds a few batches of images, whatever the source.

    Raises:
        StoreError: a part cannot be read or written. EncoderError: see :func:`measure_images`.
    """
    samples = MaskedSamples(salient)
    to_do: list[Unit] = []
    found = 0
    for unit in units:
        if not store.has_part(unit.index):
            to_do.append(unit)
            continue
        names, _ = store.read_part(unit.index, ["name"])
        for name in names["name"].to_pylist():
            place = salient.find(name)
            if place is not None:
                samples.taken[place] = 1
        found += len(names)
    if not to_do:
        return
    done, failed = found, 0

    def report() -> None:
        if progress is not None:
            progress(Progress(done, len(salient), found, failed))

    report()
    images = masked_images(
        source,
        to_do,
        samples,
        [explained.encoder.preprocess for explained in encoders],
        decoder=decoder,
        workers=workers,
        ahead=2 * batch_size + workers,
    )
    try:
        for unit in to_do:
            rows = PartRows(salient, len(encoders))
            batch: list[MaskedImage] = []
            while not isinstance(image := next(images), Passed):
                if isinstance(image.error, ImageError):
                    rows.add_error(image, image.error)
                    failed += 1
                else:
                    batch.append(image)
                if len(batch) == batch_size:
                    measure_images(batch, encoders, combine, settings, rows)
                    batch = []
                done += 1
                report()
            if batch:
                measure_images(batch, encoders, combine, settings, rows)
            store.write_part(unit.index, rows.table(), image)
    finally:
        images.close()
