"""Processes are forked and killed here, which Windows cannot do."""

import sys

collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []
