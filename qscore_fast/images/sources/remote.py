"""A remote folder of images, on any file system that fsspec knows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar

from qscore_fast.errors import ImageError, SourceError, UnavailableError
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.fetch import read_object
from qscore_fast.images.sources.file_systems import (
    ListedFile,
    filesystem_of,
    listed_file,
    listing,
)
from qscore_fast.images.sources.folder import EXTENSIONS
from qscore_fast.images.sources.ignored_files import IgnoredFiles
from qscore_fast.images.sources.packed_bytes import PackedBytes
from qscore_fast.images.sources.read_ahead import Fetch, read_ahead
from qscore_fast.images.sources.source import MAX_IMAGE_BYTES, Sample, Unit, manifest_hash, runs


class RemoteFolderSource:
    """The images below a URL, at any depth, sorted by the bytes of their relative names.

    Names are compared by extension alone, as ``FolderSource`` does. Up to 16 objects (64 MiB, or one) are
    read ahead at the same time. A read that fails is tried again, 5 times within some 10 seconds; then the
    store counts as unavailable, as it does where the whole place is gone. An object that has vanished, may
    not be read, or has another size than when it was listed is a sample with an error; one that changed and
    kept its size shows in the manifest of the next listing, where the store has ETags.

    Args:
        url: such as ``s3://bucket/prefix``; ``http://`` where the server lists its folders. Credentials and
            endpoints are those of fsspec (``FSSPEC_S3_ENDPOINT_URL`` and its configuration files) and of
            the driver.
        top: what ``top_level`` gave for the URL; None to list it here.

    Raises:
        SourceError: there is no such place, it cannot be listed, or it holds no image.
        MissingExtraError: the driver is not installed.
    """

    kind: ClassVar[str] = "remote"

    def __init__(self, url: str, top: Sequence[dict[str, Any]] | None = None) -> None:
        self._url = url
        files, ignored = _list(url, top_level(url) if top is None else top)
        if not files:
            kinds = " ".join(extension.decode() for extension in EXTENSIONS)
            raise SourceError(f"no image in {url} ({kinds}, at any depth; {ignored})")
        # Packed, since there may be millions.
        self._names = PackedBytes(file.name for file in files)
        self._sizes = array("q", (file.size for file in files))
        self.num_samples = len(files)
        self.has_labels = all(b"/" in file.name for file in files)
        self.notes = ignored.notes()
        self.manifest_hash = manifest_hash(
            (f"{sample_id_of_path(file.name)}\0{file.tag}", file.size) for file in files
        )

    @property
    def paths(self) -> Iterable[bytes]:
        """Of the images, relative, with ``/`` separators."""
        return self._names

    @property
    def location(self) -> str:
        """The URL."""
        return self._url

    def units(self, size: int) -> Sequence[Unit]:
        """Runs of ``size`` images; the last may be shorter."""
        return [
            Unit(index, f"images {run.start} to {run.stop - 1}", len(run), run)
            for index, run in enumerate(runs(self.num_samples, size))
        ]

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The images of a unit, in order, with their content.

        Raises:
            UnavailableError: the store does not answer, or the whole place is gone.
        """
        filesystem, root = filesystem_of(self._url)
        fetches = (
            Fetch(index, partial(self._fetch, filesystem, root, index), self._sizes[index])
            for index in unit.payload
        )
        for index, future in read_ahead(fetches):
            assert future is not None
            yield self._sample(index, future)

    def heads(self, unit: Unit) -> Iterator[Sample]:
        """The images of a unit without their content, as they were listed."""
        return (Sample(*self._head(index)) for index in unit.payload)

    def known_classes(self) -> frozenset[str]:
        """The classes, by the names of the folders."""
        if not self.has_labels:
            return frozenset()
        folders = {name.split(b"/", 1)[0] for name in self._names}
        return frozenset(map(sample_id_of_path, folders))

    def _head(self, index: int) -> tuple[str, str | None]:
        name = self._names[index]
        label = sample_id_of_path(name.split(b"/", 1)[0]) if self.has_labels else None
        return sample_id_of_path(name), label

    def _sample(self, index: int, future: Future[bytes]) -> Sample:
        try:
            return Sample(*self._head(index), content=future.result())
        except ImageError as error:
            return Sample(*self._head(index), error=error)

    def _fetch(self, filesystem: Any, root: str, index: int) -> bytes:
        size = self._sizes[index]
        if size > MAX_IMAGE_BYTES:
            raise ImageError(
                f"{size:,} bytes is above the limit of {MAX_IMAGE_BYTES:,} bytes", "read"
            )
        name = self._names[index].decode("utf-8", "surrogateescape")
        path = f"{root.rstrip('/')}/{name}"
        try:
            content = read_object(filesystem, path, size)
        except UnavailableError as error:
            raise UnavailableError(f"{self._url}: {name}: {error.args[0]}") from error
        except OSError as error:
            # Credentials that expire, or a bucket that is deleted, close every object.
            if not filesystem.exists(root):
                raise UnavailableError(f"{self._url} is gone or closed: {error}") from error
            missing = isinstance(error, FileNotFoundError)
            reason = (
                "it has vanished since it was listed" if missing else f"cannot be read: {error}"
            )
            raise ImageError(reason, "read") from error
        if size >= 0 and len(content) != size:
            raise ImageError(f"it has changed since it was listed with {size:,} bytes", "read")
        if len(content) > MAX_IMAGE_BYTES:
            raise ImageError(f"it is above the limit of {MAX_IMAGE_BYTES:,} bytes", "read")
        return content


def top_level(url: str) -> list[dict[str, Any]]:
    """The files and folders right below a URL, as fsspec describes them.

    Raises:
        SourceError: there is no such place, or it cannot be listed.
        MissingExtraError: the driver is not installed.
    """
    filesystem, root = filesystem_of(url)

    def fresh() -> list[dict[str, Any]]:
        filesystem.invalidate_cache()
        return list(filesystem.ls(root.rstrip("/"), detail=True))

    return listing(fresh, url)


def _list(url: str, top: Sequence[dict[str, Any]]) -> tuple[list[ListedFile], IgnoredFiles]:
    """The images, sorted, and the other files; one folder of the top level at a time."""
    filesystem, root = filesystem_of(url)
    files: list[ListedFile] = []
    ignored = IgnoredFiles()
    for entry in top:
        found = {entry["name"]: entry}
        if entry.get("type") == "directory":
            # Listings are kept by the driver, at a kilobyte an object.
            filesystem.invalidate_cache()
            found = listing(partial(filesystem.find, entry["name"], detail=True), url)
        for name, info in found.items():
            file = listed_file(root.rstrip("/"), name, info)
            if file.name.lower().endswith(EXTENSIONS):
                files.append(file)
            else:
                ignored.add(file.name)
    filesystem.invalidate_cache()
    return sorted(files, key=lambda file: file.name), ignored
