from report_scan import clip, report_scan, seen  # noqa: F401 -- fixtures
