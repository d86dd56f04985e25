"""The command line and the config file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mvirt_zfs_dbus import config
from mvirt_zfs_dbus.config import ConfigError, load
from mvirt_zfs_dbus.limits import Limits


@pytest.fixture(autouse=True)
def no_system_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "CONFIG_FILE", tmp_path / "absent.toml")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def test_a_pool_is_served_on_the_system_bus_and_paths_are_confined() -> None:
    loaded = load(["--pool", "tank/vm"])
    assert (loaded.pool, loaded.directory, loaded.bus) == ("tank/vm", None, "system")
    assert loaded.state_directory == config.STATE_DIRECTORY
    assert loaded.import_directories == config.IMPORT_DIRECTORIES
    assert (loaded.max_imports, loaded.log_level) == (config.MAX_IMPORTS, logging.INFO)


def test_a_directory_is_served_on_the_session_bus_to_its_owner_who_reads_any_path() -> None:
    loaded = load(["--directory", "/srv/disks"])
    assert (loaded.directory, loaded.bus) == (Path("/srv/disks"), "session")
    assert loaded.state_directory == Path("/srv/disks/.state")
    assert loaded.import_directories is None


def test_the_system_bus_confines_paths_whatever_the_store() -> None:
    loaded = load(["--directory", "/srv/disks", "--bus", "system"])
    assert loaded.import_directories == config.IMPORT_DIRECTORIES


def test_the_state_directory_is_what_systemd_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/elsewhere")
    assert load(["--pool", "tank"]).state_directory == Path("/var/lib/elsewhere")


def test_the_command_line_wins_over_the_config_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'pool = "tank"\nmax-imports = 9\nmax-image-size = "2TiB"\nlog-level = "debug"\n'
        'import-directories = ["/images"]\n'
    )
    loaded = load(["--config", str(file), "--max-imports", "2"])
    assert (loaded.pool, loaded.max_imports) == ("tank", 2)
    assert (loaded.max_image_size, loaded.log_level) == (2 * 2**40, logging.DEBUG)
    assert loaded.import_directories == (Path("/images"),)


def test_limits_are_set_in_the_config_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('pool = "tank"\nmax-jobs = 9\nmax-jobs-per-user = 3\nmax-spool = "1G"\n')
    loaded = load(["--config", str(file)])
    assert loaded.limits == Limits(jobs=9, jobs_per_user=3, spool=2**30)
    assert load(["--pool", "tank"]).limits == Limits()
    for wrong in ("max-objects = 0", 'max-snapshots = "9"', "max-jobs = true", "max-spool = -1"):
        file.write_text(f'pool = "tank"\n{wrong}\n')
        with pytest.raises(ConfigError, match=wrong.split(" ")[0]):
            load(["--config", str(file)])


def test_block_devices_are_named_by_path_on_the_system_bus_where_that_is_chosen(
    tmp_path: Path,
) -> None:
    assert load(["--directory", "/srv/disks"]).import_block_devices
    assert not load(["--pool", "tank"]).import_block_devices
    file = tmp_path / "config.toml"
    file.write_text("import-block-devices = true\n")
    assert load(["--pool", "tank", "--config", str(file)]).import_block_devices


def test_hosts_to_download_from_are_listed(tmp_path: Path) -> None:
    loaded = load(["--pool", "tank"])
    assert (loaded.import_hosts.allow, loaded.import_hosts.deny) == ([], [])
    file = tmp_path / "config.toml"
    file.write_text('import-hosts-allow = ["*.example.org"]\nimport-hosts-deny = ["*"]\n')
    loaded = load(["--pool", "tank", "--config", str(file)])
    assert (loaded.import_hosts.allow, loaded.import_hosts.deny) == (["*.example.org"], ["*"])


def test_a_store_on_the_command_line_replaces_the_other_kind_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('pool = "tank"\n')
    loaded = load(["--config", str(file), "--directory", "/srv/disks"])
    assert (loaded.pool, loaded.directory) == ("", Path("/srv/disks"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--pool NAME and --directory PATH"),
        (["--pool", "a", "--directory", "/b"], "not allowed with"),
        (["--pool", "/tank"], "'/tank'"),
        (["--pool", "tank@snap"], "'tank@snap'"),
        (["--pool", ""], "takes a text"),
        (["--pool", "tank", "--bus", "nonsense"], "'nonsense'"),
        (["--pool", "tank", "--max-imports", "0"], "1 to 1000"),
        (["--pool", "tank", "--max-imports", "many"], "'many'"),
        (["--pool", "tank", "--max-image-size", "huge"], "'huge'"),
        (["--pool", "tank", "--max-image-size", "0"], "over 0"),
        (["--pool", "tank", "--log-level", "loud"], "debug, info, warning, error"),
        (["--pool", "tank", "--wrong"], "--wrong"),
        (["--pool", "tank", "--config", "/does/not/exist"], "/does/not/exist"),
    ],
)
def test_a_wrong_option_is_refused_with_what_would_be_right(
    arguments: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load(arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pool = 5", "takes a text"),
        ("poool = 'x'", "'poool'"),
        ("pool = ", "cannot be read"),
        ("pool = 'tank'\nimport-directories = '/a'", "a list of absolute paths"),
        ("pool = 'tank'\nimport-directories = ['a']", "'a'"),
        ("pool = 'tank'\nmax-imports = true", "True"),
        ("pool = 'tank'\nimport-block-devices = 'yes'", "true or false"),
        ("pool = 'tank'\nimport-hosts-deny = '*'", "a list of hosts"),
        ("pool = 'tank'\nimport-hosts-deny = [1]", "a list of hosts"),
        (
            "pool = 'tank'\nimport-hosts-allow = ['10.0.0.0/33']",
            "import-hosts-allow: '10.0.0.0/33'",
        ),
    ],
)
def test_a_wrong_config_file_is_refused_with_what_would_be_right(
    text: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(["--config", str(file)])


def test_a_config_file_that_is_not_there_by_default_is_no_error() -> None:
    assert load(["--pool", "tank"]).pool == "tank"
