"""Pictures and reports of a run."""

from qscore_fast.report.contact_sheet import save_contact_sheet
from qscore_fast.report.report_content import ReportSettings
from qscore_fast.report.write_report import WrittenReport, write_report

__all__ = ["ReportSettings", "WrittenReport", "save_contact_sheet", "write_report"]
