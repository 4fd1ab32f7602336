"""HeatMapPictures: images with the heat of their features on them, at the size of a report."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import Preprocess
from qscore_fast.report.thumbnails import SIDE, thumbnail
from qscore_fast.saliency import heatmaps, overlay
from qscore_fast.scoring.store import Store

BATCH = 32


class HeatMapPictures:
    """Draws with the encoder and the preprocessing of a run.

    Args:
        store: the run.
        features: D, which tells each image's own features.
        encoder: that of the run.
        layer: whose activations are shown, see ``heatmaps``.

    Raises:
        SettingsError: another encoder than the run's.
        EncoderError: it does not take the run's images.
    """

    def __init__(
        self,
        store: Store,
        features: DiscriminativeFeatures,
        encoder: Encoder,
        layer: str | None = None,
    ) -> None:
        asked = store.record.asked
        if encoder.fingerprint != asked["encoder"]["fingerprint"]:
            raise SettingsError(
                f"{encoder.name} has the fingerprint {encoder.fingerprint:.12}..., the run in {store.path} "
                f"was made with {asked['encoder']['fingerprint']:.12}...: give the encoder of the run"
            )
        preprocess = Preprocess.from_json(asked["preprocess"])
        self._encoder = (
            encoder if encoder.preprocess == preprocess else encoder.with_preprocess(preprocess)
        )
        self._features = features
        self._layer = layer

    def __call__(
        self, images: Sequence[Image.Image], feature: int | None = None
    ) -> list[Image.Image | None]:
        """The images at the size of thumbnails with their maps; None where there is nothing to show.

        Args:
            images: as the source holds them.
            feature: show this one alone, not each image's own features of D.
        """
        if not images:
            return []
        found = heatmaps(
            self._encoder,
            list(images),
            self._features if feature is None else [feature],
            layer=self._layer,
            batch_size=BATCH,
        )
        maps = found.maps.float().cpu()
        return [
            None
            if note
            else Image.fromarray(overlay(self._canvas(image), heat, self._encoder.preprocess))
            for image, heat, note in zip(images, maps, found.notes, strict=True)
        ]

    def _canvas(self, image: Image.Image) -> Image.Image:
        """What is drawn on: of the thumbnail's size, where the crop is a share of the image at any size."""
        preprocess = self._encoder.preprocess
        if preprocess.resize is None and preprocess.crop is not None:
            return image
        factor = SIDE // max(image.size)
        if factor > 1:  # a map of a few pixels would show its steps, not its shape
            size = image.width * factor, image.height * factor
            return image.resize(size, Image.Resampling.NEAREST)
        return thumbnail(image)
