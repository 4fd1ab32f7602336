"""One sample to its pixels, or to the reason why there are none; patient with the machine it reads from."""

from __future__ import annotations

import os
import re
from collections import deque

from torch import Tensor

from qscore_fast.errors import ImageError, UnavailableError
from qscore_fast.images import Decoder, NvJpegDecoder, Preprocess, Sample, Source
from qscore_fast.images.bad_file import BadFileError, patiently
from qscore_fast.images.nvjpeg import EncodedJpeg
from qscore_fast.images.outage import outage_of
from qscore_fast.images.retries import tried_again
from qscore_fast.images.sources.file_systems import is_url

_REMEMBERED = 4


class ImageLoader:
    """Decodes samples, in any number of threads.

    What the system says of a file that it cannot read may be true of the whole disk: it is an error of the
    image's own once it comes each time, while others of the same disk can be read.

    A file that is missing is an error of its own only while the place that it was listed in is there: the
    source's folder, the folder that the image before was read from, and that of an archive.

    Args:
        source: where the samples come from.
    """

    def __init__(self, source: Source, preprocess: Preprocess, decoder: Decoder) -> None:
        self._preprocess = preprocess
        self._decoder = decoder
        self._root = _root_of(source)
        self._local = not is_url(source.location)
        self._read_before: deque[bytes] = deque(maxlen=_REMEMBERED)

    def load(self, sample: Sample) -> Tensor | EncodedJpeg | ImageError:
        """uint8 (C, height, width), a JPEG that the GPU decodes, or why there is neither.

        Raises:
            UnavailableError: the machine or the disk fails, also after some 10 seconds.
        """
        if sample.path is None:
            return tried_again(
                lambda: self._load(sample), lambda error: isinstance(error, UnavailableError)
            )
        try:
            return patiently(lambda: self._load(sample), sample.path, self._read_before)
        except BadFileError as error:
            return ImageError(f"cannot be read: {error}", "read")
        except UnavailableError as error:
            cause, name = error.__cause__, os.fsdecode(sample.path)
            if isinstance(cause, OSError) and cause.errno is not None and name not in error.args[0]:
                raise UnavailableError(f"{name}: {error.args[0]}") from cause
            raise

    def _load(self, sample: Sample) -> Tensor | EncodedJpeg | ImageError:
        try:
            pixels = self._pixels(sample)
        except ImageError as error:
            if error.stage == "read":
                self._check_place(sample, error)
            # A new one: the traceback of the first holds on to the image's file.
            return ImageError(str(error), error.stage)
        except MemoryError as error:
            raise outage_of(error) or error from error
        if sample.path is not None:
            self._read_before.append(sample.path)
        return pixels

    def _pixels(self, sample: Sample) -> Tensor | EncodedJpeg:
        mode = self._preprocess.mode
        if isinstance(self._decoder, NvJpegDecoder):
            image = self._decoder.decode_or_postpone(sample, mode)
            return image if isinstance(image, EncodedJpeg) else self._preprocess.pixels(image)
        return self._preprocess.pixels(self._decoder.decode(sample, mode))

    def _check_place(self, sample: Sample, error: ImageError) -> None:
        """UnavailableError where more is missing than a file; an unmounted disk leaves an empty folder."""
        folders = [self._root, *(os.path.dirname(path) for path in list(self._read_before)[-1:])]
        missing = error.__cause__
        if self._local and sample.error is not None and isinstance(missing, FileNotFoundError):
            folders.append(os.path.dirname(os.fsencode(missing.filename or "")) or None)
        for folder in folders:
            if folder is None:
                continue
            try:
                with os.scandir(folder) as entries:
                    reason = None if next(entries, None) else "the folder is empty"
            except OSError as problem:
                reason = problem.strerror or str(problem)
            if reason is not None:
                raise UnavailableError(f"{os.fsdecode(folder)}: {reason}") from error


def _root_of(source: Source) -> bytes | None:
    """The folder that a local source's paths start from; None for a store, and where nobody knows."""
    while hasattr(source, "source"):  # a choice of another source's samples
        source = source.source
    root = getattr(source, "root", None)
    if isinstance(root, str):
        return os.fsencode(root)
    location = source.location
    if os.path.isdir(location):
        return os.fsencode(location)
    fixed = re.split(r"[*?\[{]", location)[0]  # of a pattern, what comes before its first wildcard
    folder = os.path.dirname(os.path.abspath(fixed))
    return os.fsencode(folder) if not is_url(location) and os.path.isdir(folder) else None
