"""``score``: images through an encoder into a run's folder."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from qscore_fast.allocator import freed_memory_kept
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import DEFAULT_MAX_PIXELS, DecoderName, Source, choose_decoder, open_source
from qscore_fast.scoring.encode_unit import UnitEncoder, check_decoder
from qscore_fast.scoring.engine import Engine, Progress, encode_missing
from qscore_fast.scoring.error_rate import ErrorTally
from qscore_fast.scoring.finalise import Eps, check_eps, check_percentiles, finalise, load_features
from qscore_fast.scoring.local_engine import LocalEngine
from qscore_fast.scoring.made_with import made_with, warn_of_other_settings
from qscore_fast.scoring.part import DamagedPartError
from qscore_fast.scoring.parts_digest import parts_digest
from qscore_fast.scoring.prefetch import default_workers
from qscore_fast.scoring.record import describe_run
from qscore_fast.scoring.score_run import ScoreRun
from qscore_fast.scoring.scores_table import write_errors
from qscore_fast.scoring.session import Session
from qscore_fast.scoring.store import Store


def score(
    source: str | os.PathLike[str] | Source,
    encoder: Encoder | nn.Module | str | os.PathLike[str],
    out: str | os.PathLike[str],
    features: DiscriminativeFeatures | str | os.PathLike[str] | None = None,
    engine: Literal["local", "ray"] = "local",
    *,
    eps: Eps = None,
    lower: float = 50,
    upper: float = 95,
    batch_size: int = 64,
    workers: int | None = None,
    unit_size: int = 1024,
    activation_eps: float = 2.0,
    two_sided: bool | None = None,
    embeddings: Literal["none", "npy", "parquet"] = "none",
    decoder: DecoderName = "auto",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    exif_rotation: bool = False,
    device: torch.device | str | None = None,
    shard_index: int | None = None,
    num_shards: int | None = None,
    ray_address: str | None = None,
    ray_actors: int | None = None,
    max_error_rate: float | None = None,
    retry_errors: bool = False,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> ScoreRun:
    """Score every image of a source, or finish doing so.

    The run can be stopped at any moment, also by a power cut: called again with the same settings it
    goes on with the parts that are missing. Any number of processes, on any number of machines that
    share ``out``, may do this at once with the same settings: each takes units that nobody else has,
    and takes over those of a process that died. Images that cannot be decoded, or whose features are not
    finite, are recorded and left out. Where the machine or the store fails and not an image, nothing is
    recorded: the run ends, and called again it goes on.

    Args:
        source: a source of images, or what ``open_source`` takes: the path of a folder, for example.
        encoder: see ``load_encoder``.
        out: the run's folder; made if missing.
        features: the discriminative features D, as an object, a features.npz or the folder of a run,
            discovered with the same encoder. None discovers them on these images.
        engine: "local", this process; "ray", the nodes of a Ray cluster: this process lists the source,
            claims units and writes ``out``, which only it needs to see; the source must be the same for
            every node, and ``workers`` are those of each encoder.
        eps: the activation threshold in standard deviations; 4 by default, or that of ``features``;
            "auto": the largest on a 0.1 grid at which at most 1 % of the samples have no active
            discriminative feature.
        lower, upper: percentiles of the activation percentage between which a feature is
            discriminative.
        batch_size: images a call of the encoder.
        workers: decoding threads; by default one a core, at most 16.
        unit_size: images a part: what is lost, at most, when the run is killed.
        activation_eps: activations above mean + activation_eps * std are kept in the parts, so that
            every eps from there on can be asked later.
        two_sided: whether activations below mean - eps * std count as well, for encoders whose features
            have signs: an extension beyond the paper, see ``q_score``. None takes that of ``features``,
            otherwise False.
        embeddings: "npy" keeps the representations as float16 beside the parts, "parquet" in the folder
            ``embeddings``, with their sample ids.
        decoder: "pillow", "torchcodec", "nvjpeg" (on the encoder's GPU), or "auto", see
            ``choose_decoder``; part of the run's record.
        max_pixels: images of more pixels are recorded as errors from their header alone.
        exif_rotation: turn and mirror images as their EXIF says. The recipes of all published encoders
            leave them as they are stored.
        device: for the encoder and the kernels; see ``load_encoder``. With engine="ray" "cuda" or "cpu"
            of the nodes; by default their GPUs, if there are any.
        shard_index, num_shards: do units ``shard_index``, ``shard_index + num_shards``, ... alone, for
            array jobs; from 0. Whichever shard completes the run writes the results.
        ray_address: of the cluster, with engine="ray": "host:port" or "auto"; None takes RAY_ADDRESS,
            then a cluster that this machine is a node of, then starts one of this machine alone.
        ray_actors: how many encode at once, at most, with engine="ray"; by default one on every GPU, or
            one on every node where there is none.
        max_error_rate: stop when a larger share of the images than this, from 0 to 1, is bad: judged
            from 100 images on after each batch (on a cluster every second), and at the end. None never
            stops. What is known then is in errors.parquet.
        retry_errors: do parts again in which images could not be read (errors of stage "read"): files that
            were missing or closed, archives that broke off.
        overwrite: delete a run that is in ``out``, instead of continuing it.
        progress: called with the state after every batch.

    A RuntimeWarning says, in one line, where a run goes on under another batch size, device or version than
    its finished parts were made with: such a run is not the same to the byte as one that was not stopped.
    A part that turns out damaged while the results are made is done again.

    Returns:
        The run; not ``complete`` where ``num_shards`` was given and parts of other shards are missing.

    Raises:
        ErrorRateError: more images are bad than ``max_error_rate`` allows.
        UnavailableError: the images cannot be read for now, after some 10 seconds of trying; finished parts
            stay.
        QScoreError: or one of its kinds, for anything that the caller can mend.
    """
    if engine not in ("local", "ray"):
        raise SettingsError(f'engine must be "local" or "ray", got {engine!r}')
    if engine != "ray" and (ray_address is not None or ray_actors is not None):
        raise SettingsError(
            'ray_address and ray_actors go with engine="ray" (--engine ray): give it, or leave them out'
        )
    _check_numbers(batch_size=batch_size, unit_size=unit_size, max_pixels=max_pixels)
    _check_numbers(
        **{n: v for n, v in (("workers", workers), ("ray_actors", ray_actors)) if v is not None}
    )
    if embeddings not in ("none", "npy", "parquet"):
        raise SettingsError(f'embeddings must be "none", "npy" or "parquet", got {embeddings!r}')
    if not (math.isfinite(activation_eps) and activation_eps >= 0):
        raise SettingsError(f"activation_eps must be 0 or more, got {activation_eps}")
    check_percentiles(lower, upper)
    shard = _shard(shard_index, num_shards)
    if max_error_rate is not None and not 0 <= max_error_rate <= 1:
        raise SettingsError(f"max_error_rate must be from 0 to 1, got {max_error_rate}")

    chosen_decoder = choose_decoder(decoder, max_pixels, exif_rotation)
    if isinstance(source, str | os.PathLike):
        source = open_source(source)
    units = source.units(unit_size)
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder, device="cpu" if engine == "ray" else device)
    elif device is not None and engine != "ray":
        encoder = encoder.to(device)
    check_decoder(chosen_decoder, encoder, None if engine == "local" else device or "cuda")
    if features is not None:
        features = load_features(
            features, encoder.fingerprint, encoder.num_features, encoder.preprocess.to_json()
        )
        if two_sided not in (None, features.two_sided):
            raise SettingsError(
                f"two_sided = {two_sided} contradicts the features, which were discovered with two_sided "
                f"= {features.two_sided}: leave two_sided out, or discover them again"
            )
        two_sided = features.two_sided
        if eps not in (None, features.eps):
            raise SettingsError(
                f"eps = {eps} contradicts the features, which were discovered at {features.eps:g}: "
                "leave eps out"
            )
        eps = features.eps
    check_eps(eps, activation_eps)
    two_sided = bool(two_sided)
    if unit_size * most_entries(encoder.num_features, activation_eps, two_sided) >= 2**31:
        raise SettingsError(
            f"unit_size = {unit_size} with {encoder.num_features} features is too large for one part"
        )

    record = describe_run(
        source,
        units,
        encoder,
        unit_size=unit_size,
        activation_eps=float(activation_eps),
        two_sided=two_sided,
        embeddings=embeddings,
        decoder=chosen_decoder,
    )
    with Store.writing(out, record, overwrite) as store:
        unit_encoder = UnitEncoder(
            source, encoder, batch_size, float(activation_eps), two_sided, embeddings != "none"
        )
        mine = range(store.record.num_units) if shard is None else _units_of(store, *shard)
        if retry_errors:
            for index in mine:
                store.forget_unread(index)
        warn_of_other_settings(
            store, made_with(encoder, batch_size), on_other_machines=engine == "ray"
        )

        def made(indices: Sequence[int]) -> Session:
            running: AbstractContextManager[Engine]
            if engine == "local":
                running = nullcontext(
                    LocalEngine(unit_encoder, units, chosen_decoder, workers or default_workers())
                )
            else:
                from qscore_fast.scoring.ray_engine import RayEngine

                running = RayEngine(
                    unit_encoder,
                    units,
                    chosen_decoder,
                    workers=workers,
                    device=None if device is None else str(device),
                    address=ray_address,
                    max_actors=ray_actors,
                )
            with running as encoding, freed_memory_kept():
                return encode_missing(
                    encoding,
                    store,
                    units,
                    indices,
                    max_error_rate=max_error_rate,
                    progress=progress,
                )

        def write_results() -> None:
            if max_error_rate is not None:
                write_errors(store, parts_digest(store))
                _check_all_errors(store, max_error_rate)
            finalise(
                store, features=features, eps=eps, lower=lower, upper=upper, with_embeddings=True
            )

        session = made(mine)
        if session.parts_left:
            return ScoreRun(out, session)
        with store.writing_results():
            try:
                write_results()
            except DamagedPartError:
                # Only reading a part shows that it is damaged inside. Once: a disk may do it each time.
                damaged = store.remove_damaged()
                if damaged:  # or another process was faster
                    warnings.warn(_made_again(store, damaged), RuntimeWarning, stacklevel=2)
                session = session.joined(made(damaged))
                write_results()
    return ScoreRun(out, session)


def _units_of(store: Store, index: int, count: int) -> range:
    return range(index, store.record.num_units, count)


def _shard(index: int | None, count: int | None) -> tuple[int, int] | None:
    if index is None and count is None:
        return None
    if index is None or count is None:
        raise SettingsError("shard_index and num_shards go together: give both, or neither")
    if not 0 <= index < count:
        raise SettingsError(
            f"shard_index must be from 0 to num_shards - 1 = {count - 1}, got {index}"
        )
    return index, count


def _made_again(store: Store, damaged: Sequence[int]) -> str:
    more = f" and {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
    name = store.part_path(damaged[0], "")  # its rows, or its embeddings
    return f"{name}{more} turned out damaged, and is made again: look at the disk"


def _check_all_errors(store: Store, limit: float) -> None:
    tally, num_images = ErrorTally(), 0
    for notes in store.part_notes():
        num_images += notes["num_images"]
        tally.add(notes["errors"])
    tally.check(num_images, limit, store.path / "errors.parquet")


def most_entries(num_features: int, eps: float, two_sided: bool) -> float:
    """How many entries of one image can be in L: Cantelli's bound, two-sided Chebyshev's."""
    if two_sided:
        return num_features / max(1, eps**2)
    return num_features / (1 + eps**2)


def _check_numbers(**numbers: Any) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise SettingsError(f"{name} must be a whole number, 1 or more; got {number!r}")
