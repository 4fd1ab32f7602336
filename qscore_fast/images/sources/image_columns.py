"""Which columns of a table hold images, labels and ids; and its rows as samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images.sources.source import MAX_IMAGE_BYTES, Sample

_IMAGE_NAMES = ("image", "img", "bytes", "jpg", "jpeg", "png", "webp")
_LABEL_NAMES = ("label", "labels", "cls", "class")


@dataclass(frozen=True)
class ImageColumns:
    """The columns that are read.

    Attributes:
        image: encoded images, or Hugging Face's structs of bytes and path.
        label: classes; None without.
        id: sample ids; None: rows are numbered.
        class_names: for a label that counts them from 0; empty otherwise.
    """

    image: str
    label: str | None = None
    id: str | None = None
    class_names: tuple[str, ...] = ()

    def leaves(self, schema: pa.Schema) -> list[str]:
        """What has to be read, as dotted names."""
        kind = schema.field(self.image).type
        image = [self.image]
        if pa.types.is_struct(kind):
            fields = ("bytes", "path") if kind.get_field_index("path") >= 0 else ("bytes",)
            image = [f"{self.image}.{field}" for field in fields]
        return [*image, *(name for name in (self.label, self.id) if name)]


def find_columns(
    schema: pa.Schema,
    location: str,
    column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
) -> ImageColumns:
    """Choose by the names given, otherwise by type and the usual names.

    Raises:
        SourceError: a named column is missing or of the wrong type, or it is unclear which one to read.
    """
    for name in filter(None, (column, label_column, id_column)):
        if len(schema.get_all_field_indices(name)) != 1:
            raise SourceError(
                f"{location} has no single column {name!r}: its columns are {schema.names}"
            )
    if column is None:
        column = _find_image(schema, location)
    elif not holds_images(schema.field(column).type):
        raise SourceError(
            f"{location}: column {column!r} holds {schema.field(column).type}, not the bytes of images"
        )
    if label_column is None:
        usual = (n for n in _LABEL_NAMES if len(schema.get_all_field_indices(n)) == 1)
        label_column = next((n for n in usual if _is_scalar(schema.field(n).type)), None)
    for name in filter(None, (label_column, id_column)):
        if not _is_scalar(schema.field(name).type):
            raise SourceError(
                f"{location}: column {name!r} holds {schema.field(name).type}, not numbers or text"
            )
    names = _class_names(schema, label_column) if label_column else ()
    return ImageColumns(column, label_column, id_column, names)


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold encoded images."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return _is_bytes(kind)


def samples_of_batch(
    batch: pa.RecordBatch, columns: ImageColumns, row_id: Callable[[int], str], folder: str | None
) -> Iterator[Sample]:
    """The rows of a batch, in order.

    Args:
        batch: holds at least what ``columns`` names.
        columns: what to read.
        row_id: the id of a row that has none of its own.
        folder: where images lie that are given by their path; None if they cannot be read.

    Raises:
        pyarrow.ArrowException: the batch is damaged.
    """
    image = batch.column(columns.image)
    image.validate(full=True)
    contents, paths = image, None
    if pa.types.is_struct(image.type):
        contents = pc.struct_field(image, "bytes")
        if image.type.get_field_index("path") >= 0:
            paths = pc.struct_field(image, "path")
    labels = texts(batch, columns.label, columns.class_names)
    ids = texts(batch, columns.id)
    for row in range(batch.num_rows):
        own_id = ids[row]
        sample_id = row_id(row) if own_id is None else own_id
        try:
            content = _content(contents[row])
            file_name = paths[row].as_py() if paths is not None else None
            path = _path(file_name, folder) if content is None else None
            name = file_name if isinstance(file_name, str) else None
            yield Sample(sample_id, labels[row], path=path, content=content, file_name=name)
        except ImageError as error:
            yield Sample(sample_id, labels[row], error=error)


def texts(
    batch: pa.RecordBatch, column: str | None, class_names: tuple[str, ...] = ()
) -> list[str | None]:
    """A column's values as text; class names for their numbers, None where null or below 0 (no class)."""
    if column is None:
        return [None] * batch.num_rows
    values = batch.column(column)
    if pa.types.is_dictionary(values.type):
        values.validate(full=True)
        values = values.dictionary_decode()
    # As bytes, since text in a damaged or careless file need not be UTF-8.
    for is_text, kind in (
        (pa.types.is_string, pa.binary()),
        (pa.types.is_large_string, pa.large_binary()),
        (pa.types.is_string_view, pa.binary_view()),
    ):
        if is_text(values.type):
            values = values.cast(kind)
            break
    values.validate(full=True)
    return [_as_text(value, class_names) for value in values.to_pylist()]


def _as_text(value: Any, class_names: tuple[str, ...]) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if class_names and isinstance(value, int):
        if value < 0:
            return None
        if value < len(class_names):
            return class_names[value]
    return None if value is None else str(value)


def _content(value: Any) -> bytes | None:
    """An image's bytes, None for null; its size is looked at before anything is copied."""
    if not value.is_valid:
        return None
    buffer = value.as_buffer()
    if buffer.size > MAX_IMAGE_BYTES:
        raise ImageError(
            f"{buffer.size:,} bytes is above the limit of {MAX_IMAGE_BYTES:,} bytes", "read"
        )
    return bytes(buffer)


def _path(name: str | None, folder: str | None) -> bytes:
    if not name:
        raise ImageError("the row holds no image", "read")
    parts = name.replace("\\", "/").split("/")
    if "\0" in name or parts[0] == "" or ":" in parts[0] or ".." in parts:
        raise ImageError(f"the row holds no image but a path outside its folder: {name!r}", "read")
    if folder is None:
        raise ImageError(f"the row holds no image but a path beside a URL: {name!r}", "read")
    return os.path.join(os.fsencode(folder), name.encode())


def _find_image(schema: pa.Schema, location: str) -> str:
    found = [field.name for field in schema if holds_images(field.type)]
    found = [name for name in found if len(schema.get_all_field_indices(name)) == 1]
    if len(found) == 1:
        return found[0]
    if not found:
        raise SourceError(
            f"{location} has no column with the bytes of images: its columns are {schema.names}"
        )
    for name in _IMAGE_NAMES:
        if name in found:
            return name
    raise SourceError(f"{location} has several columns of bytes, {found}: name the one with images")


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_scalar(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return text or types.is_primitive(kind) or _is_bytes(kind)


def _class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names that Hugging Face's ``ClassLabel`` keeps in the file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
