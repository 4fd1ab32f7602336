"""``compare``: the same further training under several regularisers, and what probes say of each."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.logistic import C_of_ridge, LogisticFit, ridge_of
from qscore_fast.evaluation.probes import knn_probe, linear_probe
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.finetuning.comparison.files import write_comparison
from qscore_fast.finetuning.comparison.result import BASE, CONTROL, Comparison, Probed
from qscore_fast.finetuning.keeper import Progress
from qscore_fast.finetuning.processes import Processes
from qscore_fast.finetuning.run import AUTO, Features, discovered, finetune
from qscore_fast.finetuning.settings import Regulariser, Settings
from qscore_fast.functional import q_score
from qscore_fast.images import Source, open_source
from qscore_fast.scoring import ScoreRun, score
from qscore_fast.scoring.atomic import made_folder, write_text
from qscore_fast.scoring.finalise import load_features

ARMS: Mapping[str, Regulariser] = {CONTROL: "none", "lasso": "lasso", "qscore": "qscore"}

PROBED, LINEAR = "probed.json", "linear"
_NEIGHBOURS = 20


def compare(
    encoder: Encoder | str | os.PathLike[str],
    source: Source | str | os.PathLike[str],
    features: Features,
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    probe_train: Source | str | os.PathLike[str],
    probe_test: Source | str | os.PathLike[str],
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = (0, 1, 2),
    system: str | None = None,
    device: str | None = None,
    devices: int = 1,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Comparison:
    """Train every arm with every seed, from the same start with the same order of images, and probe each.

    Of one seed the arms have the same fresh heads, the same images and the same augmentations in every
    step; they differ in the regulariser alone. The strength of the linear probe's penalty is chosen for the
    encoder as it is, and is the same for all, relative to their features' variance: differences between
    arms are then none between choices. It can be stopped and called again like ``finetune``.

    Args:
        encoder, source, features, out, settings, system, device, devices, progress, note: as ``finetune``;
            ``settings.regulariser`` and ``settings.seed`` are those of the arms.
        probe_train, probe_test: labelled images to train and to test the probes on.
        arms: of "control", "lasso" and "qscore".
        seeds: of the trainings.

    Returns:
        The comparison; compare.json, compare.txt and compare.md are in ``out``.

    Raises:
        SettingsError: an unknown arm, images without labels, or what ``finetune`` refuses.
        QScoreError: as ``finetune``, and as the probes.
    """
    settings = settings or Settings()
    _check(arms, seeds)
    say = note or (lambda _: None)
    folder = made_folder(out)
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder, system, device="cpu")
    processes = Processes.of(device, devices)
    images = source if not isinstance(source, str | os.PathLike) else open_source(source)
    labelled = [_labelled(one) for one in (probe_train, probe_test)]
    if isinstance(features, str) and features == AUTO:
        chosen: DiscriminativeFeatures | None = discovered(
            encoder, images, folder, processes.device, say
        )
    elif features is not None:
        chosen = load_features(features, encoder.fingerprint, encoder.num_features)
    else:
        chosen = None
    if chosen is None and "qscore" in arms:
        raise SettingsError(
            "the arm qscore needs the discriminative features D: give features (--features)"
        )

    def ask(arm: str, seed: int | None, trained: Encoder, place: Path) -> Probed:
        say(f"probing {arm}" + ("" if seed is None else f", seed {seed}"))
        ridge = found[0].ridge if found else None
        return probed(arm, seed, trained, place, labelled, chosen, processes.device, ridge)

    found: list[Probed] = []
    if processes.is_first:
        found.append(ask(BASE, None, encoder, folder / BASE))
    for arm in arms:
        for seed in seeds:
            place = folder / f"{arm}-seed{seed}"
            say(f"training {arm}, seed {seed}")
            wanted = replace(settings, regulariser=ARMS[arm], seed=seed)
            run = finetune(
                encoder, images, chosen, place, wanted, system=system,
                device=device, devices=devices, progress=progress, note=say,
            )  # fmt: skip
            if processes.is_first:
                found.append(ask(arm, seed, run.encoder(), place / "probes"))
            name = run.objective.system
    asked: dict[str, Any] = {
        key: value for key, value in settings.asked().items() if key not in ("regulariser", "seed")
    }
    result = Comparison(name, tuple(found), asked)
    if processes.is_first:
        write_comparison(result, folder)
    return result


def probed(
    arm: str,
    seed: int | None,
    encoder: Encoder,
    place: Path,
    labelled: Sequence[Source],
    features: DiscriminativeFeatures | None,
    device: str,
    ridge: float | None = None,
) -> Probed:
    """Probe one encoder, or read what was found for it before.

    What the linear probe says of every image is written to ``place``, too; see ``LinearProbe.write``.

    Args:
        ridge: of the linear probe; None chooses it. See ``Probed``.
    """
    made_folder(place)
    path = place / PROBED
    if path.exists():
        try:
            known = Probed(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error}): delete it") from error
        if known.fingerprint == encoder.fingerprint and ridge in (None, known.ridge):
            return known
    # The encoder itself stays where it is.
    scoring = replace(encoder, module=copy.deepcopy(encoder.module))
    train, test = (
        score(
            images,
            scoring,
            place / name,
            embeddings="npy",
            device=device,
            overwrite=_changed(place / name, encoder),
        )
        for images, name in zip(labelled, ("train", "test"), strict=True)
    )
    rows = FeatureRows.of(train)
    linear = linear_probe(train, test, C=None if ridge is None else C_of_ridge(ridge, rows))
    linear.write(place / LINEAR)
    if ridge is None:
        assert isinstance(linear.fit, LogisticFit)
        ridge = ridge_of(linear.fit.C, rows)
    neighbours = min(_NEIGHBOURS, len(rows))
    knn = knn_probe(train, test, ks=[neighbours])
    row = Probed(
        arm,
        seed,
        linear=float(linear.correct.mean()),
        knn=knn.accuracies[neighbours][0],
        mean_q=mean_q(test, features),
        fingerprint=encoder.fingerprint,
        ridge=ridge,
    )
    write_text(path, json.dumps(asdict(row)) + "\n")
    return row


def mean_q(run: ScoreRun, features: DiscriminativeFeatures | None) -> float:
    """The mean Q-Score of a run's images under a D, also that of another encoder; NaN without D."""
    if features is None:
        return float("nan")
    total, count = 0.0, 0
    for block in FeatureRows.of(run).blocks(8192):
        h = torch.from_numpy(block.astype("float32"))
        total += float(q_score(h, features).double().sum())
        count += len(h)
    return total / count


def _changed(folder: Path, encoder: Encoder) -> bool:
    """Whether there are probes of another encoder, from a training that was started over."""
    from qscore_fast.scoring.record import RunRecord

    try:
        record = RunRecord.read(folder / "run.json")
    except StoreError:
        return False
    return bool(record.asked["encoder"]["fingerprint"] != encoder.fingerprint)


def _labelled(source: Source | str | os.PathLike[str]) -> Source:
    images = source if not isinstance(source, str | os.PathLike) else open_source(source)
    if not images.has_labels:
        raise SettingsError(
            f"{images.location} has no labels to probe by: give class folders, or a list with labels"
        )
    return images


def _check(arms: Sequence[str], seeds: Sequence[int]) -> None:
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or not arms:
        wrong = unknown[0] if unknown else "nothing"
        raise SettingsError(f"no arm {wrong!r} to compare: choose of {', '.join(ARMS)}")
    if not seeds or len(set(seeds)) != len(seeds) or len(set(arms)) != len(arms):
        raise SettingsError("give one seed or more, and every arm and seed once")
