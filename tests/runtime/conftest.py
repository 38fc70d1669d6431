"""The fixtures of tests/runtime/tiny.py."""

import importlib.util
import sys
from pathlib import Path

if "tiny_bundles" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("tiny_bundles", Path(__file__).parents[1] / "runtime" / "tiny.py")
    sys.modules["tiny_bundles"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["tiny_bundles"])

from tiny_bundles import classifier, decoder_model, encoder_model, generator, specs  # noqa: F401
