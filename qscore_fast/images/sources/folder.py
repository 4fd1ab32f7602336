"""A folder of images, listed once, cut into work units."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import AnyStr, ClassVar

from qscore_fast.errors import SourceError
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.ignored_files import IgnoredFiles
from qscore_fast.images.sources.source import Sample, Unit, manifest_hash, runs

# All names of the formats that are decoded.
EXTENSIONS = (
    *(b".jpg", b".jpeg", b".jpe", b".jfif"),
    *(b".png", b".apng"),
    b".webp",
    *(b".bmp", b".dib"),
    b".gif",
    *(b".tif", b".tiff"),
)


@dataclass(frozen=True)
class FolderSource:
    """The images below a folder, at any depth, sorted by the bytes of their relative paths.

    Symbolic links are followed. Each real directory is read once, by its own path if it lies below
    the root, so loops end and no directory is scored twice. Names are compared by extension alone
    (those of JPEG, PNG, WebP, BMP, GIF and TIFF, in any case); whether a file is an image shows when it is
    decoded.

    Args:
        root: the folder.

    Raises:
        SourceError: the folder is missing, is not a folder, cannot be read, or holds no image.

    Attributes:
        paths: relative paths, bytes, with ``/`` separators.
        sizes: file sizes in bytes, -1 for a link that leads nowhere.
        ignored: files of other kinds.
        num_unreadable: directories below the root that could not be listed.
    """

    kind: ClassVar[str] = "folder"

    root: str
    paths: tuple[bytes, ...] = field(init=False, repr=False)
    sizes: tuple[int, ...] = field(init=False, repr=False)
    ignored: IgnoredFiles = field(init=False, repr=False, compare=False)
    num_unreadable: int = field(init=False)

    def __init__(self, root: str | os.PathLike[str]) -> None:
        name = os.fspath(root)
        base = os.fsencode(name)
        try:
            if not stat.S_ISDIR(os.stat(base).st_mode):
                raise SourceError(f"{name} is a file: give the folder that holds the images")
            os.scandir(base).close()
        except FileNotFoundError:
            raise SourceError(f"there is no folder {name}") from None
        except OSError as error:
            raise SourceError(f"cannot read {name}: {error.strerror}") from error

        listing = _Listing()
        listing.walk(base)
        if not listing.found:
            kinds = " ".join(extension.decode() for extension in EXTENSIONS)
            raise SourceError(f"no image in {name} ({kinds}, at any depth; {listing.ignored})")
        found = sorted(listing.found)
        object.__setattr__(self, "root", name)
        object.__setattr__(self, "paths", tuple(path for path, _ in found))
        object.__setattr__(self, "sizes", tuple(size for _, size in found))
        object.__setattr__(self, "ignored", listing.ignored)
        object.__setattr__(self, "num_unreadable", listing.num_unreadable)

    def __len__(self) -> int:
        return len(self.paths)

    def sample_id(self, index: int) -> str:
        """The relative POSIX path as reversible UTF-8 text, see ``sample_id_of_path``."""
        return sample_id_of_path(self.paths[index])

    def file(self, index: int) -> bytes:
        """The path to open, as the operating system's bytes."""
        return os.path.join(os.fsencode(self.root), self.paths[index])

    @cached_property
    def has_labels(self) -> bool:
        """Whether every image lies below a class folder."""
        return all(b"/" in path for path in self.paths)

    def label(self, index: int) -> str | None:
        """The class: the first folder of the path if every image has one, otherwise None."""
        if not self.has_labels:
            return None
        return sample_id_of_path(self.paths[index].split(b"/", 1)[0])

    def known_classes(self) -> frozenset[str]:
        """The classes, by the names of the folders."""
        if not self.has_labels:
            return frozenset()
        folders = {path.split(b"/", 1)[0] for path in self.paths}
        return frozenset(map(sample_id_of_path, folders))

    @property
    def location(self) -> str:
        """The folder, as text."""
        return self.root.encode("utf-8", "backslashreplace").decode()

    @property
    def num_samples(self) -> int:
        """How many images there are."""
        return len(self.paths)

    @property
    def notes(self) -> dict[str, int]:
        """What was passed over."""
        return {**self.ignored.notes(), "folders could not be read": self.num_unreadable}

    def units(self, size: int) -> Sequence[Unit]:
        """Runs of ``size`` images; the last may be shorter."""
        return [
            Unit(index, f"images {run.start} to {run.stop - 1}", len(run), run)
            for index, run in enumerate(runs(len(self), size))
        ]

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The images of a unit, by their paths."""
        for index in unit.payload:
            yield Sample(self.sample_id(index), self.label(index), path=self.file(index))

    @cached_property
    def manifest_hash(self) -> str:
        """SHA-256 (hex) over every sample id and file size, in order."""
        ids = map(sample_id_of_path, self.paths)
        return manifest_hash(zip(ids, self.sizes, strict=True))


class _Listing:
    """The walk: real directories first, then those behind links that were not met before."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, int]] = []
        self.ignored = IgnoredFiles()
        self.num_unreadable = 0
        self._links: list[bytes] = []
        self._visited: set[tuple[int, int]] = set()

    def walk(self, root: bytes) -> None:
        self._walk_real(root, b"")
        while self._links:
            round_of_links, self._links = sorted(self._links), []
            for path in round_of_links:
                self._walk_real(root, path)

    def _walk_real(self, root: bytes, start: bytes) -> None:
        waiting = [start]
        while waiting:
            directory = waiting.pop()
            full = os.path.join(root, directory)
            try:
                status = os.stat(full)
                if (status.st_dev, status.st_ino) in self._visited:
                    continue
                entries = list(os.scandir(full))
            except OSError:
                self.num_unreadable += 1
                continue
            self._visited.add((status.st_dev, status.st_ino))
            waiting.extend(self._sort_out(directory, entries))

    def _sort_out(self, directory: bytes, entries: list[os.DirEntry[bytes]]) -> Iterator[bytes]:
        """Record the files, put linked directories aside, and yield the real ones."""
        for entry in entries:
            path = directory + b"/" + entry.name if directory else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield path
            elif is_folder(entry):
                self._links.append(path)
            elif entry.name.lower().endswith(EXTENSIONS):
                self.found.append((path, _size(entry)))
            else:
                self.ignored.add(entry.name)


def is_folder(entry: os.DirEntry[AnyStr]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _size(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return -1
