"""What one call of ``score`` did, and how fast each stage was."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Session:
    """What one call of ``score`` did.

    Attributes:
        device: where the encoder and the kernels ran. backend: which kernels.
        workers: decoding threads, of all encoders.
        encoders: how many encoded side by side: 1, or a cluster's actors. nodes: on how many machines.
        parts_found: parts that were there already. parts_done: parts made now.
        parts_left: parts that were left to others: the other shards' that are not there yet.
        images_done: images that went through now, scored or not.
        images_by_others: images that other processes did meanwhile.
        seconds: from the first image to the last part, wall clock.
        seconds_by_stage: decode (the sum over the workers), transfer (to the device, and with nvJPEG the
            decoding there), encode, activations (kernels, and their results into rows), write (a thread of
            its own), and of the main thread wait_for_decoding (of a cluster: the sum over the actors) and
            wait_for_writing. On CUDA transfer, encode and activations are the GPU's own times, of streams
            that overlap, and there is pin (stacking into pinned memory, a thread of its own).
    """

    device: str
    backend: str
    workers: int
    encoders: int
    nodes: int
    parts_found: int
    parts_done: int
    parts_left: int
    images_done: int
    images_by_others: int
    seconds: float
    seconds_by_stage: dict[str, float]

    def joined(self, later: Session) -> Session:
        """Both in one: ``later`` did parts again that this one had found or made."""
        stages = {*self.seconds_by_stage, *later.seconds_by_stage}
        both = {
            stage: self.seconds_by_stage.get(stage, 0.0) + later.seconds_by_stage.get(stage, 0.0)
            for stage in stages
        }
        return replace(
            self,
            parts_found=max(0, self.parts_found - later.parts_done),
            parts_done=self.parts_done + later.parts_done,
            parts_left=later.parts_left,
            images_done=self.images_done + later.images_done,
            images_by_others=self.images_by_others + later.images_by_others,
            seconds=self.seconds + later.seconds,
            seconds_by_stage=both,
        )

    @property
    def images_per_second(self) -> float | None:
        """None where nothing was done."""
        return self.images_done / self.seconds if self.images_done else None

    @property
    def images_per_second_by_stage(self) -> dict[str, float]:
        """What each stage could do alone at the speed that it had in this run: decode, encode
        (transfer, encoder and kernels), write; empty where nothing was done.
        """
        return stage_rates(self.images_done, self.seconds_by_stage, self.workers, self.encoders)

    @property
    def bottleneck(self) -> str | None:
        """The slowest stage: decode, encode or write; None where nothing was done."""
        rates = self.images_per_second_by_stage
        return min(rates, key=lambda stage: rates[stage], default=None)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            **asdict(self),
            "images_per_second": self.images_per_second,
            "images_per_second_by_stage": self.images_per_second_by_stage,
            "bottleneck": self.bottleneck,
        }


def stage_rates(
    num_images: int, seconds: dict[str, float], workers: int, encoders: int = 1
) -> dict[str, float]:
    """Images a second of decode, encode and write, from the seconds that they took."""
    if not num_images:
        return {}
    by_stage = {
        "decode": seconds.get("decode", 0.0) / workers,
        "encode": sum(seconds.get(s, 0.0) for s in ("transfer", "encode", "activations"))
        / encoders,
        "write": seconds.get("write", 0.0),
    }
    return {stage: num_images / taken for stage, taken in by_stage.items() if taken}
