"""An ssh server of the test's own, on a high port of this machine, with keys that live as long as the test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tools import needs


@contextmanager
def sshd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """ssh://user@127.0.0.1:port, which `ssh` reaches with a key and without a question."""
    program = needs("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        **{"ListenAddress": "127.0.0.1", "Port": port, "HostKey": folder / "host", "AuthorizedKeysFile": folder / "authorized_keys"},
        **{"PidFile": "none", "UsePAM": "no", "StrictModes": "no", "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no"},
        **{"PermitRootLogin": "prohibit-password", "MaxStartups": "50"},
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself up before login
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log)
    try:
        _client(folder, port, monkeypatch)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail(f"sshd does not listen: {(folder / 'sshd.log').read_text()}")
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _client(folder: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh` on the PATH gets a configuration with the test's key; the user's own is left alone."""
    key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    config = {"IdentityFile": folder / "user", "UserKnownHostsFile": folder / "known_hosts", "IdentitiesOnly": "yes", "LogLevel": "ERROR"}
    (folder / "ssh_config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
    (folder / "bin").mkdir()
    script = folder / "bin" / "ssh"
    script.write_text(f'#!/bin/sh\nexec {needs("ssh")} -F {folder / "ssh_config"} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
