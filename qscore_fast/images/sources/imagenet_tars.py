"""ImageNet as it is published: a tar of one tar a class, or one flat tar; neither is unpacked."""

from __future__ import annotations

import gzip
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import BinaryIO, ClassVar

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.folder import EXTENSIONS
from qscore_fast.images.sources.local_file import open_local
from qscore_fast.images.sources.packed_bytes import PackedBytes
from qscore_fast.images.sources.repeats import Repeats
from qscore_fast.images.sources.source import Sample, Unit, manifest_hash, runs
from qscore_fast.images.sources.tar_members import (
    Member,
    OpenBinary,
    content,
    members,
    open_tar,
    skip,
)
from qscore_fast.images.sources.unique_ids import UniqueIds


class ImageNetTarsSource:
    """The images in ILSVRC2012_img_train.tar or ILSVRC2012_img_val.tar.

    A tar of tars (train): each inner tar is a unit and its name without ``.tar`` the label (the wnid);
    ids are ``WNID/IMAGE``, as in the unpacked folder. The headers of the outer tar alone are listed. A
    flat tar (val, test): units are runs of images; ids are the names in the tar. Members are known by
    their extension (that of an image, as in a folder, or .tar); others are passed over.

    A tar that is cut off or damaged is listed as far as it goes; its last unit is one sample with an
    error that says where it ends.

    Args:
        path: the tar, not compressed.
        labels: for a flat tar, an image's name in it -> its class; images that are not named have no
            label. Without it a flat tar has no labels.
        open_binary: opens the tar by its name, as a seekable binary stream; pickles.

    Raises:
        SourceError: it is missing, cannot be read, is compressed, is no tar, or holds no image; or
            labels are given for a tar of tars.
    """

    kind: ClassVar[str] = "imagenet-tars"

    def __init__(
        self,
        path: str | os.PathLike[str],
        labels: Mapping[str, str] | None = None,
        open_binary: OpenBinary = open_local,
    ) -> None:
        self._path = os.fspath(path)
        self._open = open_binary
        self._labels = None if labels is None else {str(k): str(v) for k, v in labels.items()}
        size = _size(self._path, open_binary)
        self._scan(size)
        if not len(self._names):
            why = f": {self._damage}" if self._damage else " (images, or one tar a class)"
            raise SourceError(f"no image in {self._path}{why}")
        if self._nested and labels is not None:
            raise SourceError(f"{self._path} has a tar a class, which is the label: give no labels")
        self._repeats = Repeats(self._plain_ids, len(self._names))
        self._hash = manifest_hash(self._manifest(size))

    @property
    def location(self) -> str:
        """The tar, as text."""
        return self._path.encode("utf-8", "backslashreplace").decode()

    @property
    def has_labels(self) -> bool:
        """True for a tar of tars, and with ``labels``."""
        return self._nested or self._labels is not None

    @property
    def num_samples(self) -> int | None:
        """Of a flat tar; not known of a tar of tars before everything was read."""
        return None if self._nested or self._damage else len(self._names)

    @property
    def manifest_hash(self) -> str:
        """SHA-256 (hex) over the members listed, their sizes, and the labels given."""
        return self._hash

    @property
    def notes(self) -> dict[str, int]:
        """What was passed over."""
        return {"members of other kinds ignored": self._num_ignored}

    def units(self, size: int) -> Sequence[Unit]:
        """An inner tar each, or runs of ``size`` images; a damaged end is a unit of its own."""
        total = len(self._names)
        parts = [range(index, index + 1) for index in range(total)]
        if not self._nested:
            parts = list(runs(total, size))
        units = [
            Unit(
                index,
                self._id(part.start) if self._nested else f"images {part.start} to {part.stop - 1}",
                None if self._nested else len(part),
                (part.start, part.stop),
            )
            for index, part in enumerate(parts)
        ]
        if self._damage is not None:
            units.append(Unit(len(units), "damaged end", 1, (total, total)))
        return units

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The images of a unit, in the tar's order."""
        start, stop = unit.payload
        if start == stop:
            yield Sample(os.path.basename(self.location), error=self._damage)
        elif self._nested:
            yield from self._read_class(start, content)
        else:
            yield from self._read_run(start, stop)

    def heads(self, unit: Unit) -> Iterator[Sample]:
        """The same without content: of an inner tar the headers are read, of a flat one nothing."""
        start, stop = unit.payload
        if start == stop:
            yield from self.read(unit)
        elif self._nested:
            yield from self._read_class(start, skip)
        else:
            for index in range(start, stop):
                yield Sample(self._id(index), self._label(index))

    def known_classes(self) -> frozenset[str]:
        """The WordNet ids of the inner tars, or the labels of the images."""
        if self._nested:
            return frozenset(sample_id_of_path(_stem(name)) for name in self._names)
        labels = map(self._label, range(len(self._names)))
        return frozenset(label for label in labels if label is not None)

    def _read_class(
        self, index: int, take: Callable[[BinaryIO, Member], bytes | None]
    ) -> Iterator[Sample]:
        folder = self._id(index)
        label = sample_id_of_path(_stem(self._names[index]))
        ids = UniqueIds()
        damage: ImageError | None = None
        try:
            with open_tar(self._path, self._open) as stream:
                outer = next(members(stream, self._headers[index]))
                if outer.problem is not None:
                    raise ImageError(outer.problem, "read")
                for member in members(stream, outer.offset, outer.offset + outer.size):
                    if member.name.lower().endswith(EXTENSIONS):
                        name = f"{folder}/{sample_id_of_path(member.name)}"
                        error = _problem(member)
                        data = None if error else take(stream, member)
                        yield ids.sample(name, label, data, error)
        except ImageError as error:
            damage = error
        if damage is None and not len(ids):
            damage = ImageError("the inner tar holds no image", "read")
        if damage is not None:
            yield ids.sample(f"{folder}.tar", label, error=damage)

    def _read_run(self, start: int, stop: int) -> Iterator[Sample]:
        index = start
        try:
            with open_tar(self._path, self._open) as stream:
                found = filter(_is_image, members(stream, self._headers[start]))
                for member in islice(found, stop - start):
                    error = _problem(member)
                    if error is None and self._repeats.number(index) is not None:
                        error = ImageError("a second image of the same name", "read")
                    data = None if error else content(stream, member)
                    yield Sample(self._id(index), self._label(index), content=data, error=error)
                    index += 1
        except ImageError as error:
            # A count that was promised is kept: each image that could not be reached is named.
            for rest in range(index, stop):
                yield Sample(self._id(rest), self._label(rest), error=error)

    def _scan(self, size: int) -> None:
        """List the images or, if there are any, the inner tars."""
        names = {True: PackedBytes(), False: PackedBytes()}
        headers = {True: array("Q"), False: array("Q")}
        sizes = {True: array("Q"), False: array("Q")}
        count = 0
        damage: ImageError | None = None
        try:
            with open_tar(self._path, self._open) as stream:
                if isinstance(stream, gzip.GzipFile):
                    raise SourceError(
                        f"{self._path} is compressed, so its parts cannot be reached: gunzip it first"
                    )
                for member in members(stream, 0, size):
                    count += 1
                    inner = member.name.lower().endswith(b".tar")
                    if inner or _is_image(member):
                        names[inner].append(member.name)
                        headers[inner].append(member.header)
                        sizes[inner].append(member.size)
        except ImageError as error:
            damage = error
        self._nested = len(names[True]) > 0
        self._names = names[self._nested]
        self._headers = headers[self._nested]
        self._sizes = sizes[self._nested]
        self._num_ignored = count - len(self._names)
        self._damage = damage

    def _manifest(self, size: int) -> Iterator[tuple[str, int]]:
        for index, member_size in enumerate(self._sizes):
            label = None if self._nested else self._label(index)
            yield self._id(index) + ("" if label is None else f"\t{label}"), member_size
        # The end shows whether the tar is whole.
        yield "", size

    def _label(self, index: int) -> str | None:
        return self._labels.get(_flat_id(self._names[index])) if self._labels else None

    def _id(self, index: int) -> str:
        """A flat tar's sample id, or the folder of an inner tar's."""
        number = self._repeats.number(index)
        return self._plain_id(index) + ("" if number is None else f"#{number}")

    def _plain_ids(self) -> Iterator[str]:
        return map(self._plain_id, range(len(self._names)))

    def _plain_id(self, index: int) -> str:
        name = self._names[index]
        return sample_id_of_path(_stem(name)) if self._nested else _flat_id(name)


def _flat_id(name: bytes) -> str:
    return sample_id_of_path(name)


def _stem(name: bytes) -> bytes:
    return name.rsplit(b"/", 1)[-1][: -len(b".tar")]


def _is_image(member: Member) -> bool:
    return member.name.lower().endswith(EXTENSIONS)


def _problem(member: Member) -> ImageError | None:
    return None if member.problem is None else ImageError(member.problem, "read")


def _size(path: str, open_binary: OpenBinary) -> int:
    try:
        if open_binary is open_local and not stat.S_ISREG(os.stat(path).st_mode):
            raise SourceError(f"{path} is not a regular file: give the tar")
        with open_binary(path) as stream:
            return stream.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise SourceError(f"there is no file {path}") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
