"""The encoder: a frozen module, the transform of its images, and its identity."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qscore_fast.encoders import fixed_view
from qscore_fast.encoders.fingerprint import fingerprint_of_module
from qscore_fast.encoders.inference import Precision, fast_module
from qscore_fast.errors import EncoderError
from qscore_fast.images.preprocess import Preprocess

if TYPE_CHECKING:
    from qscore_fast.encoders.training_state import TrainingState


@dataclass(frozen=True, eq=False)
class Encoder:
    """Images to representations, without gradients and in evaluation mode.

    Attributes:
        module: the network; (B, C, height, width) to (B, r), or (B, r, 1, 1).
        preprocess: the transform of its images.
        name: what it was loaded as, such as "timm:resnet18".
        system: the SSL system it was trained with, where that is known.
        num_features: r; found by a dry run on a black image where it is not given.
        fingerprint: SHA-256 (hex) of architecture and weights, as they were loaded.
        tower: which of the checkpoint's networks this is, "online" or "ema", where it may hold both.
        source: whose layout the checkpoint has, such as the official repository's or a zoo's.
        architecture: in words, such as "ResNet-50 x1".
        precision: everything about running it that changes rounding, such as "float32" or
            "bfloat16-autocast+folded"; see :meth:`optimised`.
        view: the fixed view in which it sees every image, see :meth:`with_view`; None: as it is.
        training_state: the checkpoint's heads, other tower, queue and centre.
        notes: what a user should know about how it was loaded or is run.
    """

    module: nn.Module = field(repr=False)
    preprocess: Preprocess
    name: str = "module"
    system: str | None = None
    num_features: int = 0
    fingerprint: str = ""
    tower: str | None = None
    source: str | None = None
    architecture: str = ""
    precision: str = "float32"
    view: fixed_view.ViewName | None = None
    training_state: TrainingState | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.num_features:
            object.__setattr__(self, "num_features", self._dry_run())
        if not self.fingerprint:
            kind = type(self.module)
            architecture = f"{kind.__module__}.{kind.__qualname__}\n{self.module!r}"
            fingerprint = fingerprint_of_module(self.module, architecture)
            object.__setattr__(self, "fingerprint", fingerprint)

    @property
    def device(self) -> torch.device:
        """Where the module's first parameter or buffer lies; the CPU if it has none."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def to(self, device: torch.device | str) -> Encoder:
        """The same encoder on another device. The module itself moves, as in PyTorch."""
        try:
            return replace(self, module=self.module.to(device))
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).strip().split("\n")[0]
            raise EncoderError(f"cannot move {self.name} to device {device}: {reason}") from error

    def with_preprocess(self, preprocess: Preprocess) -> Encoder:
        """The same encoder with another transform, once one image of its size went through.

        Raises:
            EncoderError: the module does not take images of that size, or of that many channels.
        """
        changed = replace(self, preprocess=preprocess)
        changed._dry_run()
        return changed

    def optimised(
        self,
        precision: Precision = "float32",
        *,
        channels_last: bool = False,
        compile: bool = False,
        fold_batch_norm: bool = False,
    ) -> Encoder:
        """The same encoder, run faster; this one stays as it is. Features are float32 in any case.

        Two images go through it here, so that what this device or this module cannot do shows now.
        What had no effect is said in ``notes`` and left out of ``precision``.

        Args:
            precision: "float32"; "bfloat16" or "float16": weights and activations converted;
                "bfloat16-autocast" or "float16-autocast": torch.autocast, which keeps the weights, and
                the operations that need it, in float32. In float16, activations above 65,504 become
                infinite; such features are not finite, and scoring lists those images as errors. A
                CPU computes float16 where PyTorch has the operations, often slower than float32.
            channels_last: memory order of images and convolutions' weights.
            compile: torch.compile, once for all batch sizes. Where it fails, the module runs eagerly
                and one RuntimeWarning says why.
            fold_batch_norm: scale and shift of batch norm into the convolution before it, wherever
                that changes nothing but rounding.

        Raises:
            SettingsError: unknown precision.
            EncoderError: it was optimised before, or cannot run at this precision on its device.
        """
        if self.precision != "float32":
            raise EncoderError(
                f"{self.name} already runs as {self.precision}: optimise the encoder as it was loaded"
            )
        height, width = self.preprocess.output_size
        module, parts, notes = fast_module(
            self.module,
            torch.zeros(2, self.preprocess.channels, height, width, device=self.device),
            precision,
            channels_last=channels_last,
            compile=compile,
            fold_batch_norm=fold_batch_norm,
            name=self.name,
        )
        return replace(self, module=module, precision="+".join(parts), notes=(*self.notes, *notes))

    def with_view(self, view: fixed_view.ViewName) -> Encoder:
        """The same encoder, which is shown every preprocessed image in a fixed view.

        A run with it holds one more view of the images, for measures and scores that compare views.

        Args:
            view: ``flip``, ``shift`` or ``crop``; see ``fixed_view.seen``.

        Raises:
            SettingsError: an unknown view.
            EncoderError: it has one already.
        """
        if self.view is not None:
            raise EncoderError(
                f"{self.name} sees the view {self.view} already: give the encoder as it was loaded"
            )
        module = fixed_view.ViewedModule(self.module, view)
        note = f"every image is seen {fixed_view.WORDS[view]} (view {view})"
        return replace(self, module=module, view=view, notes=(*self.notes, note))

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, height, width) to features (B, r) on the module's device.

        The images may be on any device and of any floating-point type: they are taken to the module's.

        Batch norm and dropout are in evaluation mode during the call; a module that was in training
        mode is handed back as it was.

        Raises:
            EncoderError: not images of that kind, or the module does not return one vector an image.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise EncoderError(
                f"{self.name} takes normalised images (B, C, height, width) in floating point, got "
                f"{images.dtype} of shape {tuple(images.shape)}: encoder.preprocess makes them"
            )
        training = [module for module in self.module.modules() if module.training]
        self.module.eval()
        try:
            with torch.inference_mode():
                h = self.module(images.to(self.device, self._dtype or images.dtype))
        finally:
            for module in training:
                module.training = True
        return self._checked(h, len(images))

    @property
    def _dtype(self) -> torch.dtype | None:
        """Of the module's first floating-point parameter; None if it has none."""
        dtypes = (tensor.dtype for tensor in self.module.parameters())
        return next((dtype for dtype in dtypes if dtype.is_floating_point), None)

    def _checked(self, h: object, batch: int) -> Tensor:
        if not isinstance(h, Tensor):
            raise EncoderError(
                f"{self.name} returns a {type(h).__name__}, not a tensor: wrap it in a module "
                "that returns its representation, of shape (B, r)"
            )
        if h.ndim == 4 and h.shape[2:] == (1, 1):
            h = h.flatten(1)
        known = self.num_features or h.shape[-1]
        if h.ndim != 2 or h.shape != (batch, known) or not h.is_floating_point():
            raise EncoderError(
                f"{self.name} returns {h.dtype} of shape {tuple(h.shape)} for {batch} images: "
                f"a floating-point tensor of shape ({batch}, {self.num_features or 'r'}) is needed"
            )
        return h

    def _dry_run(self) -> int:
        """The number of features, after one black image."""
        height, width = self.preprocess.output_size
        images = torch.zeros(1, self.preprocess.channels, height, width)
        try:
            return self(images).shape[1]
        except EncoderError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise EncoderError(
                f"{self.name} fails on one image of shape {tuple(images.shape)}, the size that its "
                f"preprocessing gives: {reason}"
            ) from error
