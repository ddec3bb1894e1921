"""The machine's configuration: names old and new, precedence, refusals, and a key that does not show."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from pidml.errors import ConfigError
from pidml.secret import Secret, mask_file
from pidml.settings import PollerLimits, Settings

KEY = "s3cr3t-key-of-a-machine"
MACHINE = {"MACHINE_ID": "7", "MACHINE_SECRET_KEY": KEY, "ALICETRAINT_BASE_URL": "https://example.org/train/"}


def test_machine_id_key_and_address_are_all_that_is_needed():
    settings = Settings.load(MACHINE, dotenv=None)
    address = settings.server_address()
    assert (address.machine_id, address.secret.reveal(), address.base_url) == (7, KEY, "https://example.org/train")
    assert settings.store == Path.cwd() / "store"
    assert (settings.grid, settings.producer, settings.file_roots) == ("", "native", ())
    assert settings.limits == PollerLimits()


def test_a_job_needs_no_machine_but_the_poller_says_what_is_missing():
    settings = Settings.load({"MACHINE_ID": "7"}, dotenv=None)
    with pytest.raises(ConfigError, match="MACHINE_SECRET_KEY, ALICETRAINT_BASE_URL"):
        settings.server_address()


def test_environment_wins_over_dotenv_and_an_empty_value_counts_as_none(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"MACHINE_ID=1\nMACHINE_SECRET_KEY='{KEY}'\nexport ALICETRAINT_BASE_URL=http://a\nPIDML_SITE=x\n")
    settings = Settings.load({"MACHINE_ID": "2", "PIDML_SITE": ""}, dotenv)
    assert (settings.machine_id, settings.secret, settings.base_url) == (2, Secret(KEY), "http://a")
    assert settings.site == "x"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ALICETRAINT_POOLING_WAIT_SECONDS": "5"}, 5.0),
        ({"PIDML_POLL_SECONDS": "7"}, 7.0),
        ({"ALICETRAINT_POOLING_WAIT_SECONDS": "5", "PIDML_POLL_SECONDS": "7"}, 7.0),
    ],
)
def test_both_spellings_of_the_waiting_time(values, expected):
    assert Settings.load(values, dotenv=None).limits.wait == expected


def test_names_of_the_older_module_are_accepted_with_a_note():
    settings = Settings.load({"ALICETRAINT_DATA_DIR_PATH": "/data", "ALICETRAINT_VENV_DIR_PATH": "/venv"}, dotenv=None)
    assert [note.split()[0] for note in settings.notes] == ["ALICETRAINT_DATA_DIR_PATH", "ALICETRAINT_VENV_DIR_PATH"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MACHINE_ID", "seven"),
        ("MACHINE_ID", "-1"),
        ("MACHINE_ID", "٣"),
        ("MACHINE_ID", "9" * 30),
        ("MACHINE_SECRET_KEY", "two\nlines"),
        ("ALICETRAINT_BASE_URL", "example.org"),
        ("ALICETRAINT_BASE_URL", "ftp://example.org"),
        ("ALICETRAINT_BASE_URL", "https://user:word@example.org"),
        ("ALICETRAINT_BASE_URL", "https://example.org:99999"),
        ("ALICETRAINT_POOLING_WAIT_SECONDS", "soon"),
        ("ALICETRAINT_POOLING_WAIT_SECONDS", "nan"),
        ("ALICETRAINT_POOLING_WAIT_SECONDS", "-3"),
        ("PIDML_FILE_ROOTS", "data"),
        ("PIDML_GRID", "ftp://grid"),
        ("PIDML_PRODUCER", "magic"),
        ("PIDML_JOB_HOURS", "-1"),
    ],
)
def test_a_bad_value_names_its_key(key, value):
    with pytest.raises(ConfigError, match=key) as caught:
        Settings.load({**MACHINE, key: value}, dotenv=None)
    assert KEY not in f"{caught.value!r} {caught.value}"
    assert "two" not in str(caught.value)


def test_children_read_the_same_settings_from_their_environment(tmp_path):
    settings = Settings.load(
        {**MACHINE, "PIDML_STORE": str(tmp_path), "PIDML_FILE_ROOTS": "/a:/b", "PIDML_PRODUCER": "o2physics"},
        dotenv=None,
    )
    assert Settings.load(settings.environment(), dotenv=None) == settings


def test_whatever_else_dotenv_holds_reaches_jobs_but_not_a_printout(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"PIDML_FETCH_STREAMS=4\nX509_USER_PROXY=/p\nMACHINE_SECRET_KEY={KEY}\nPIDML_SITE=a\n")
    settings = Settings.load({"PIDML_SITE": "b", "HOME": "/root"}, dotenv)
    environment = settings.environment()
    assert (environment["PIDML_FETCH_STREAMS"], environment["X509_USER_PROXY"]) == ("4", "/p")
    assert (environment["PIDML_SITE"], "HOME" in environment) == ("b", False)
    assert KEY not in repr(settings)


def test_the_key_does_not_show():
    secret = Secret(KEY)
    settings = Settings.load(MACHINE, dotenv=None)
    shown = f"{secret} {secret!r} {secret:>40} {settings} {settings!r} {settings.server_address()!r}"
    assert KEY not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(TypeError):
        json.dumps({"key": secret})
    assert secret == Secret(KEY) != Secret("other")
    assert secret.mask(f"a {KEY} b {KEY}") == "a **** b ****"


@pytest.mark.parametrize("before", [0, 5, 1024 * 1024 - 10, 1024 * 1024, 3 * 1024 * 1024 - 1])
def test_a_key_is_masked_in_a_file_wherever_it_lies(tmp_path, before):
    path = tmp_path / "law.log"
    path.write_bytes(b"x" * before + KEY.encode() + b"y" * 100 + KEY.encode())
    assert mask_file(path, Secret(KEY))
    assert path.read_bytes() == b"x" * before + b"****" + b"y" * 100 + b"****"
    assert not mask_file(path, Secret(KEY))
