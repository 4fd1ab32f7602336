"""Settings of objectives that make no sense."""

from __future__ import annotations

from qscore_fast.errors import SettingsError


def positive(name: str, *values: tuple[str, float | int | None]) -> None:
    """Each value is None or above 0.

    Raises:
        SettingsError: one is not.
    """
    for field, value in values:
        if value is not None and not value > 0:
            raise SettingsError(f"{name}: {field} must be above 0, got {value!r}")


def not_negative(name: str, *values: tuple[str, float | int]) -> None:
    """Each value is 0 or above.

    Raises:
        SettingsError: one is not.
    """
    for field, value in values:
        if not value >= 0:
            raise SettingsError(f"{name}: {field} must not be negative, got {value!r}")


def share(name: str, *values: tuple[str, float]) -> None:
    """Each value is from 0 to 1: the share that a moving average keeps.

    Raises:
        SettingsError: one is not.
    """
    for field, value in values:
        if not 0 <= value <= 1:
            raise SettingsError(f"{name}: {field} must be from 0 to 1, got {value!r}")
