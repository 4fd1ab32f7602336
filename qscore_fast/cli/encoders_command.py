"""``qscore encoders``: what a file is, what files can be read, how fast an encoder is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from qscore_fast.cli.encoder_options import encoder_from
from qscore_fast.cli.terminal import print_result, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import Namespace

    from qscore_fast.encoders.throughput import Throughput


def inspect(options: Namespace) -> None:
    """Print what a checkpoint is."""
    from qscore_fast.encoders.inspection import inspect_checkpoint

    found = inspect_checkpoint(options.file, options.system, tower=options.tower, pool=options.pool)
    print_result(found.to_json(), found.lines(), options.json)


def list_known(options: Namespace) -> None:
    """Print which checkpoints can be read."""
    from qscore_fast.encoders import catalogue

    rows = [row.to_json() for row in catalogue.ROWS] if options.json else []
    print_result(rows, catalogue.catalogue_lines(), options.json)


def bench(options: Namespace) -> None:
    """Print how fast an encoder's variants are, and how far their features are from float32's."""
    import platform

    import torch

    from qscore_fast.encoders.throughput import encoder_throughput

    encoder = encoder_from(options)
    say(f"measuring {encoder.name} on {encoder.device}; compiling takes a while")
    rows = encoder_throughput(encoder, options.batch_size, options.seconds)
    device = encoder.device
    content = {
        "encoder": encoder.name,
        "architecture": encoder.architecture,
        "preprocess": encoder.preprocess.to_json(),
        "batch_size": options.batch_size,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "variants": [asdict(row) for row in rows],
    }
    height, width = encoder.preprocess.output_size
    heading = (
        f"{encoder.name}: batches of {options.batch_size} images, {height} x {width}, "
        f"on {device} ({content['device_name']}), torch {torch.__version__}"
    )
    print_result(content, [heading, "", *throughput_lines(rows)], options.json)


def throughput_lines(rows: Sequence[Throughput]) -> list[str]:
    """A table: the first row is what the others are compared with."""
    width = max(len("variant"), *(len(row.name) for row in rows))
    lines = [f"{'variant':<{width}}  images/s   speed    cosine  max difference"]
    base = rows[0].images_per_second
    for row in rows:
        if row.images_per_second is None:
            lines.append(f"{row.name:<{width}}  {row.error}")
            continue
        speed = f"{row.images_per_second / base:.2f}x" if base else ""
        line = f"{row.name:<{width}}  {row.images_per_second:>8,.1f}  {speed:>6}  "
        if row.error:
            line += row.error
        else:
            line += f"{row.cosine:>8.5f}  {row.max_difference:>14.2e}"
        lines.append(line)
    return [*lines, "cosine, max difference: of the features with float32's; the worst image"]
