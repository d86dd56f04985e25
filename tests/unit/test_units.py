"""What systemd and the bus are given: the unit, the activation file, the example configuration."""

from __future__ import annotations

import configparser
import ipaddress
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from mvirt_zfs_dbus import config
from mvirt_zfs_dbus.names import BUS_NAME

TOP = Path(__file__).parents[2]
UNIT = TOP / "systemd/mvirt-zfs-dbus.service"
EXAMPLE = TOP / "systemd/mvirt-zfs-dbus.toml"
needs_systemd_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze"
)


def settings(path: Path, section: str) -> dict[str, list[str]]:
    """Each setting of a section with its values; systemd lets a setting stand more than once."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in path.read_text().splitlines():
        if header := re.fullmatch(r"\[(.+)\]", line):
            current = header[1]
        elif current == section and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_bus_activates_the_unit_and_runs_nothing_itself() -> None:
    activation = configparser.ConfigParser()
    activation.optionxform = str  # type: ignore[assignment, method-assign]
    activation.read(TOP / f"data/dbus-1/system-services/{BUS_NAME}.service")
    assert dict(activation["D-BUS Service"]) == {
        "Name": BUS_NAME,
        "Exec": "/bin/false",
        "User": "root",
        "SystemdService": UNIT.name,
    }


def test_the_unit_is_the_service_the_code_is() -> None:
    service = settings(UNIT, "Service")
    assert service["Type"] == ["notify"]
    assert service["BusName"] == [BUS_NAME]
    assert service["ExecStart"] == [f"/usr/bin/mvirt-zfs-dbus --config {config.CONFIG_FILE}"]
    assert service["StateDirectory"] == [config.STATE_DIRECTORY.name]


def test_a_wrong_configuration_is_not_tried_again() -> None:
    assert settings(UNIT, "Service")["RestartPreventExitStatus"] == ["2"]


def test_a_pool_that_comes_late_finds_a_service_that_still_tries() -> None:
    assert settings(UNIT, "Service")["Restart"] == ["on-failure"]
    assert settings(UNIT, "Unit")["StartLimitIntervalSec"] == ["0"]


def test_a_worker_killed_for_its_memory_does_not_stop_the_service() -> None:
    assert settings(UNIT, "Service")["OOMPolicy"] == ["continue"]


@needs_systemd_analyze
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/mvirt-zfs-dbus", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


@needs_systemd_analyze
def test_the_unit_stays_as_shut_in_as_it_is() -> None:
    """3.0 of 10, with systemd 252. What is left is what it does: root, CAP_SYS_ADMIN, network."""
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(UNIT)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-500:]


def test_downloads_reach_every_address_but_the_link_local_ones() -> None:
    lines = settings(UNIT, "Service")["IPAddressAllow"]
    allowed = [ipaddress.ip_network(word) for line in lines for word in line.split()]
    for everything, denied in (("0.0.0.0/0", "169.254.0.0/16"), ("::/0", "fe80::/10")):
        whole, hole = ipaddress.ip_network(everything), ipaddress.ip_network(denied)
        ours = [network for network in allowed if network.version == whole.version]
        assert sorted(ours) == sorted(whole.address_exclude(hole))  # type: ignore[arg-type]
    assert settings(UNIT, "Service")["IPAddressDeny"] == ["any"]


def test_the_example_configuration_is_one_the_service_takes(tmp_path: Path) -> None:
    loaded = config.load(["--config", str(EXAMPLE)])
    assert (loaded.pool, loaded.bus) == ("mvirt", "system")
    assert loaded == config.load(["--pool", "mvirt", "--config", str(EXAMPLE)])


def test_the_example_configuration_shows_every_key_with_its_default(tmp_path: Path) -> None:
    shown = re.sub(r"(?m)^# (?=[a-z-]+ = )", "", EXAMPLE.read_text())
    values = tomllib.loads(shown)
    assert set(values) == set(config._KEYS)
    file = tmp_path / "all.toml"
    file.write_text(re.sub(r"(?m)^directory = .*$", "", shown))
    assert config.load(["--config", str(file)]) == config.load(["--config", str(EXAMPLE)])
