"""Pictures of a run."""

from qscore_fast.report.contact_sheet import save_contact_sheet

__all__ = ["save_contact_sheet"]
