"""Images of a source that have masks, decoded ahead of the encoders together with these."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from torch import Tensor

from qscore_fast.errors import ImageError
from qscore_fast.images import Decoder, Preprocess, Sample, Source, Unit, quiet_pillow
from qscore_fast.saliency.published_name import name_of
from qscore_fast.saliency.salient_imagenet import SalientImageNet
from qscore_fast.saliency.salient_masks import SalientMasks


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """One image with its masks, or why there is none.

    Attributes:
        sample_id, label: as the source gives them.
        place: of the image in the data set.
        size: width and height before any transform, pixels.
        pixels: one tensor a transform, uint8 (C, height, width); empty with an error.
        masks: of the image; None with an error.
        error: stage "read" or "decode" for the image, "mask" for its masks.
    """

    sample_id: str
    label: str | None
    place: int
    size: tuple[int, int] = (0, 0)
    pixels: tuple[Tensor, ...] = ()
    masks: SalientMasks | None = None
    error: ImageError | None = None


@dataclass
class Passed:
    """What a unit held beside images with masks.

    Attributes:
        others: samples that are not in the data set.
        repeated: samples of an image that was met before.
        unreadable: samples with an error that do not even say which image they would be.
    """

    others: int = 0
    repeated: int = 0
    unreadable: int = 0

    def __add__(self, other: Passed) -> Passed:
        return Passed(
            self.others + other.others,
            self.repeated + other.repeated,
            self.unreadable + other.unreadable,
        )


@dataclass(frozen=True)
class MaskedSamples:
    """The join: samples of a source whose image is in the data set, each image once.

    Attributes:
        salient: the data set.
        taken: a byte an image of it, 1 where it was met.
    """

    salient: SalientImageNet
    taken: bytearray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taken", bytearray(len(self.salient)))

    def take(self, samples: Iterable[Sample], passed: Passed) -> Iterator[tuple[Sample, int]]:
        """Those of them, with the image's place in the data set; nothing is decoded. ``passed`` counts
        the others.
        """
        for sample in samples:
            place = self.salient.place_of(sample)
            if place is None:
                unreadable = sample.error is not None and name_of(sample) is None
                passed.unreadable += unreadable
                passed.others += not unreadable
            elif self.taken[place]:
                passed.repeated += 1
            else:
                self.taken[place] = 1
                yield sample, place


def masked_images(
    source: Source,
    units: Iterable[Unit],
    samples: MaskedSamples,
    transforms: Sequence[Preprocess],
    *,
    decoder: Decoder,
    workers: int,
    ahead: int,
) -> Generator[MaskedImage | Passed, None, None]:
    """The masked images of the units, in order, and what else it held after the last one of each unit.

    Args:
        transforms: of the encoders; an image is decoded once a colour mode.
        ahead: how many images are decoded or waiting at any time; this bounds the memory.
    """
    waiting: deque[Future[MaskedImage] | Passed] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="qscore-masks")

    def load(sample: Sample, place: int) -> MaskedImage:
        return load_masked_image(sample, place, samples.salient, transforms, decoder)

    def next_one() -> MaskedImage | Passed:
        first = waiting.popleft()
        return first if isinstance(first, Passed) else first.result()

    try:
        with quiet_pillow():
            for unit in units:
                passed = Passed()
                for sample, place in samples.take(source.read(unit), passed):
                    waiting.append(pool.submit(load, sample, place))
                    if len(waiting) >= ahead:
                        yield next_one()
                waiting.append(passed)
                # Most units of some sources hold no masked image: their ends must not pile up.
                while waiting and (isinstance(waiting[0], Passed) or len(waiting) >= ahead):
                    yield next_one()
            while waiting:
                yield next_one()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def load_masked_image(
    sample: Sample,
    place: int,
    salient: SalientImageNet,
    transforms: Sequence[Preprocess],
    decoder: Decoder,
) -> MaskedImage:
    """One sample with its masks, or why there is none; nothing is raised."""
    try:
        masks = salient.masks(place)
        images = {mode: decoder.decode(sample, mode) for mode in {t.mode for t in transforms}}
        pixels = tuple(transform.pixels(images[transform.mode]) for transform in transforms)
    except (ImageError, MemoryError) as error:
        reason = error if isinstance(error, ImageError) else ImageError("not enough memory")
        return MaskedImage(sample.sample_id, sample.label, place, error=reason)
    size = next(iter(images.values())).size
    return MaskedImage(sample.sample_id, sample.label, place, size, pixels, masks)
