"""WebDataset shards: tars in which the files of a sample stand side by side."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import BinaryIO, ClassVar

from qscore_fast.errors import ImageError
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.shard_list import list_shards
from qscore_fast.images.sources.source import Sample, Unit, manifest_hash
from qscore_fast.images.sources.tar_members import (
    Member,
    OpenBinary,
    content,
    members,
    open_tar,
    skip,
)
from qscore_fast.images.sources.unique_ids import UniqueIds

IMAGE_FIELDS = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "bmp",
    "gif",
    "jfif",
    "jpe",
    "apng",
    "dib",
    "tif",
    "tiff",
)
# What the manifests of runs have where the fields are not chosen.
_MANIFEST_FIELDS = IMAGE_FIELDS[:5]
# A class is a number or a name, and a sample's metadata are short.
MAX_LABEL_BYTES = 2**20
MAX_LABEL_LENGTH = 1000

_PEEK = 16
_Take = Callable[[BinaryIO, Member], bytes | None]
_KEY = re.compile(rb"((?:.*/|)[^./][^.]*)\.([^/]*)", re.DOTALL)
_METADATA = re.compile(rb"__[^/]*__(/|$)")


class WebDatasetSource:
    """Images in WebDataset shards; a shard is a unit.

    Members that share a path up to the first dot of its last part and stand side by side are a sample;
    the rest of the name, in small letters, is the field. As in the webdataset library, a key that comes
    again later starts a new sample. The sample id is the shard's name below the folder that all shards
    share, a slash, and the image's name in the tar. A sample without an image is one with an error, so
    that it is counted; so is a second image of the same field, a link, a file that is too large, and a
    shard that holds nothing. Names that begin with a dot, names without one, and metadata (below a folder
    like ``__name__``) are passed over.

    The label is the text of ``label_key``, otherwise ``label`` or ``class`` (a number or text) of a
    ``json`` field, otherwise None. Shards are plain tars or compressed with gzip.

    Args:
        pattern: a folder with shards at any depth (.tar, .tar.gz, .tgz; sorted by bytes), one shard, a
            pattern like ``train-{000000..000146}.tar`` or ``train-*.tar``, a URL of any of these on a file
            system that fsspec knows, or a sequence of shards.
        keys: fields that hold an image, the preferred ones first.
        label_key: the field that holds the label.
        open_binary: opens a shard by its name, as a seekable binary stream; pickles. With one of your own
            ``pattern`` has no folder and no wildcard. None: from the disk, or from the URL.

    Raises:
        SourceError: a shard is missing or cannot be read, there is none, or the braces are wrong.
    """

    kind: ClassVar[str] = "webdataset"

    def __init__(
        self,
        pattern: str | os.PathLike[str] | Sequence[str],
        keys: Sequence[str] = IMAGE_FIELDS,
        label_key: str = "cls",
        open_binary: OpenBinary | None = None,
    ) -> None:
        self._keys = tuple(key.lower() for key in keys)
        self._label_key = label_key.lower()
        listed = list_shards(pattern, open_binary)
        self._open = listed.open_binary
        self._location = listed.location
        self._names = tuple(listed.sizes)
        self._notes = listed.notes
        self._start = listed.start
        ids = (self._shard_id(index) for index in range(len(self._names)))
        fields = _MANIFEST_FIELDS if self._keys == IMAGE_FIELDS else self._keys
        choice = f"fields {' '.join(fields)}, label {self._label_key}"
        self._hash = manifest_hash(
            chain([(choice, -1)], zip(ids, listed.sizes.values(), strict=True))
        )
        first = islice(chain.from_iterable(map(self.heads, self.units(1))), _PEEK)
        self._has_labels = any(sample.label is not None for sample in first)

    @property
    def location(self) -> str:
        """The folder or pattern, as text."""
        return self._location.encode("utf-8", "backslashreplace").decode()

    @property
    def has_labels(self) -> bool:
        """Whether one of the first samples carries a label."""
        return self._has_labels

    @property
    def num_samples(self) -> int | None:
        """Not known before everything was read."""
        return None

    @property
    def manifest_hash(self) -> str:
        """SHA-256 (hex) over the fields asked for and the shards' names and sizes."""
        return self._hash

    @property
    def notes(self) -> dict[str, int]:
        """What was passed over."""
        return self._notes

    def units(self, size: int) -> Sequence[Unit]:
        """The shards; ``size`` is not used."""
        return [
            Unit(index, self._shard_id(index), payload=index) for index in range(len(self._names))
        ]

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The samples of a shard, in its order."""
        return self._samples(unit, content)

    def heads(self, unit: Unit) -> Iterator[Sample]:
        """The same without images: headers and labels alone are read (of gzip, all of it)."""
        return self._samples(unit, skip)

    def _samples(self, unit: Unit, take: _Take) -> Iterator[Sample]:
        shard = self._shard_id(unit.payload)
        ids = UniqueIds()
        group: _Group | None = None
        damage: ImageError | None = None
        try:
            with open_tar(self._names[unit.payload], self._open) as stream:
                for member in members(stream):
                    match = _KEY.fullmatch(member.name)
                    if match is None or _METADATA.match(member.name):
                        continue
                    if group is None or group.key != match[1]:
                        if group is not None:
                            yield from group.samples(shard, ids)
                        group = _Group(match[1])
                    field = match[2].decode("utf-8", "backslashreplace").lower()
                    if field not in group.fields:
                        self._take(group, field, member, stream, take)
                    elif field in self._keys:
                        group.repeats.append(member.name)
                    group.fields.append(field)
        except ImageError as error:
            damage = error
        # Of a sample that a damaged tar breaks off, the image may be there.
        if group is not None and (damage is None or group.image is not None):
            yield from group.samples(shard, ids)
        if damage is None and not len(ids):
            damage = ImageError("the shard holds no sample", "read")
        if damage is not None:
            yield ids.sample(shard, error=damage)

    def _take(
        self, group: _Group, field: str, member: Member, stream: BinaryIO, take: _Take
    ) -> None:
        if field in self._keys:
            rank = self._keys.index(field)
            if group.image is None or rank < group.rank:
                data = None if member.problem else take(stream, member)
                group.rank, group.image, group.content = rank, member, data
        elif member.problem is None and member.size <= MAX_LABEL_BYTES:
            if field == self._label_key:
                group.label = _class_text(content(stream, member)) or group.label
            elif field == "json" and group.json_label is None:
                group.json_label = _json_label(content(stream, member))

    def _shard_id(self, index: int) -> str:
        return _text(os.fsencode(self._names[index][self._start :]))


class _Group:
    """What was read of one sample."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.fields: list[str] = []
        self.repeats: list[bytes] = []
        self.image: Member | None = None
        self.rank = 0
        self.content: bytes | None = None
        self.label: str | None = None
        self.json_label: str | None = None

    def samples(self, shard: str, ids: UniqueIds) -> Iterator[Sample]:
        """The sample, and one with an error for each further image of a field that it has."""
        yield self._sample(shard, ids)
        for name in self.repeats:
            reason = f"a second image in the same field of the sample {_text(self.key)}"
            yield ids.sample(f"{shard}/{_text(name)}", error=ImageError(reason, "read"))

    def _sample(self, shard: str, ids: UniqueIds) -> Sample:
        label = self.json_label if self.label is None else self.label
        if self.image is None:
            reason = (
                f"no image among its fields ({' '.join(self.fields[:8])[:200]}); a sample's files "
                "must stand side by side in the tar"
            )
            error = ImageError(reason, "read")
            return ids.sample(f"{shard}/{_text(self.key)}", label, error=error)
        sample_id = f"{shard}/{_text(self.image.name)}"
        if self.image.problem is not None:
            return ids.sample(sample_id, label, error=ImageError(self.image.problem, "read"))
        return ids.sample(sample_id, label, self.content)


def _text(name: bytes) -> str:
    return sample_id_of_path(name)


def _class_text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= MAX_LABEL_LENGTH else None


def _json_label(data: bytes) -> str | None:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    for key in ("label", "class"):
        value = fields.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            text = str(value).strip()
            # JSON can hold half a surrogate pair, which is no text.
            return _class_text(text.encode("utf-8", "surrogatepass"))
    return None
