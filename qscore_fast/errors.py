"""The errors that a user can cause, each with one line that names the thing, the value and the remedy."""

from __future__ import annotations


class QScoreError(Exception):
    """Base of every error that qscore-fast raises for wrong input or a state it cannot work with."""


class SettingsError(QScoreError, ValueError):
    """A setting has a value that makes no sense, or that contradicts another one."""


class SourceError(QScoreError, ValueError):
    """The images cannot be listed: the folder is missing, is no folder, or holds no image."""


class ImageError(QScoreError):
    """One image cannot be used. ``stage`` says where it failed; the text is the reason, on one line."""

    def __init__(self, reason: str, stage: str = "decode") -> None:
        super().__init__(" ".join(reason.split()))
        self.stage = stage


class UnavailableError(QScoreError):
    """Images cannot be read for now, through no fault of theirs: the machine or the store fails."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split()))

    def __str__(self) -> str:
        return (
            f"images cannot be read for now: {self.args[0]}; none is recorded as bad, and what is finished "
            "stays: give the same command again once that is mended"
        )


class EncoderError(QScoreError, ValueError):
    """An encoder cannot be loaded, or does not map images to one vector each."""


class StoreError(QScoreError):
    """A run's folder cannot be read, written, or continued with these settings."""


class ErrorRateError(QScoreError):
    """More images of a run are bad than the caller allows."""


class ClusterError(QScoreError):
    """A cluster cannot be joined, or has nobody who does the work."""


class MissingExtraError(QScoreError, ImportError):
    """An optional library is not installed; the text names the extra that brings it."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f'{library} is not installed: run  pip install "qscore-fast[{extra}]"  and try again'
        )
