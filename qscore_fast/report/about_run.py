"""What was run: encoder, preprocessing, source, versions, errors, speed, as plain values."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

from qscore_fast.errors import QScoreError
from qscore_fast.images import Preprocess
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.session import stage_rates
from qscore_fast.scoring.store import Store

MOST_REASONS = 50


def about_run(run: ScoreRun, store: Store) -> dict[str, Any]:
    """Everything that the run's folder says about how the scores were made."""
    asked, about = store.record.asked, store.record.about
    features = run.features
    errors = run.errors()
    reasons: Counter[tuple[str, str]] = Counter(
        zip(errors["stage"].to_pylist(), errors["error"].to_pylist(), strict=True)
    )
    num_images = store.num_images()
    written = (run.path / "scores.parquet").stat().st_mtime
    return {
        "name": "/".join(run.path.resolve().parts[-2:]),
        "written": datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "encoder": {
            "name": about.get("encoder_name", "unknown"),
            "system": about.get("encoder_system"),
            **asked["encoder"],
        },
        "preprocess": asked["preprocess"],
        "preprocess_words": _preprocess_words(asked["preprocess"]),
        "decoder": about.get("decoder_version") or asked["decoder"].get("name"),
        "source": {
            "kind": asked["source"]["kind"],
            "location": about.get("source_root", ""),
            "manifest_hash": asked["source"]["manifest_hash"],
            "notes": {what: n for what, n in dict(about.get("source_notes") or {}).items() if n},
        },
        "versions": about.get("versions", {}),
        "num_images": num_images,
        "num_failed": len(errors),
        "errors": [
            {"stage": stage, "error": error, "count": count}
            for (stage, error), count in reasons.most_common(MOST_REASONS)
        ],
        "num_reasons": len(reasons),
        "speed": _speed(store),
        "features": {
            "num_features": features.num_features,
            "num_discriminative": len(features),
            "num_samples": features.num_samples,
            "eps": features.eps,
            "lower": features.lower,
            "upper": features.upper,
            "two_sided": features.two_sided,
        },
        "activation_eps": asked["activation_eps"],
        "embeddings": asked["embeddings"],
        "notes": list(run.summary["notes"]),
    }


def _preprocess_words(fields: dict[str, Any]) -> str:
    try:
        return Preprocess.from_json(fields).describe()
    except QScoreError:
        return "unknown"


def _speed(store: Store) -> dict[str, Any]:
    """Stages of all parts together: what each could do alone at the speed that it had."""
    seconds: dict[str, float] = defaultdict(float)
    num_images, workers = 0, 0
    slowest: Counter[str] = Counter()
    for notes in store.part_notes():
        num_images += notes["num_images"]
        workers = max(workers, notes.get("workers", 0))
        for stage, taken in notes.get("seconds", {}).items():
            seconds[stage] += taken
        if notes.get("bottleneck"):
            slowest[notes["bottleneck"]] += 1
    rates = stage_rates(num_images, seconds, workers) if workers else {}
    return {
        "workers": workers,
        "seconds_by_stage": dict(seconds),
        "images_per_second_by_stage": rates,
        "bottleneck": min(rates, key=lambda stage: rates[stage], default=None),
        "parts_by_bottleneck": dict(slowest),
    }
