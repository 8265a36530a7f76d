from __future__ import annotations

import pytest

from clawback import config
from clawback.errors import InvalidInput


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLAWBACK_CONFIG", raising=False)


def test_environment_wins_over_file(tmp_path, monkeypatch):
    (tmp_path / "clawback.yaml").write_text("core: {cgroup: from-file, uid_base: 70000}\n")
    monkeypatch.setenv("CLAWBACK_CORE__CGROUP", "from-environment")
    found = config.load()
    assert found.core.cgroup == "from-environment"
    assert found.core.uid_base == 70000


def test_unknown_key_is_named(tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text("gateway: {resolv: {}}\n")
    with pytest.raises(InvalidInput, match=r"other\.yaml: gateway\.resolv"):
        config.load(file)


def test_broken_yaml_is_named_by_line(tmp_path):
    file = tmp_path / "clawback.yaml"
    file.write_text("core:\n  a: [\n")
    with pytest.raises(InvalidInput, match=r"clawback\.yaml:"):
        config.load(file)


def test_an_error_never_repeats_the_value(tmp_path):
    file = tmp_path / "clawback.yaml"
    file.write_text("vault: {address: [hunter2hunter2], token_file: /x}\n")
    with pytest.raises(InvalidInput) as raised:
        config.load(file)
    assert "hunter2" not in str(raised.value)


def test_a_named_file_must_exist(tmp_path):
    with pytest.raises(InvalidInput, match="no configuration file"):
        config.load(tmp_path / "absent.yaml")
