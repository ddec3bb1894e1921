"""Which sources a path leads to, and which paths are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidml.errors import ConfigError, PathRefused, PidmlError
from pidml.fetch import FetchOptions, fetch
from pidml.fetch.redaction import redacted_text
from pidml.fetch.sources import sources
from pidml.spec.data_sections import InputFile

LFN = "/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root"
SANDBOX = "/alice/sim/2026/LHC26sandbox/0/1/AOD/001/AO2D.root"
DEFAULT = FetchOptions()


def found(path, options=DEFAULT):
    return [(source.method, source.address) for source in sources(path, options)]


@pytest.mark.parametrize("path", [LFN, f"alien://{LFN}", f"alien:{LFN}"])
def test_lfns_are_looked_up_on_the_grid(path):
    assert found(path) == [("alien_cp", LFN)]


def test_the_simulated_period_needs_no_grid_unless_one_is_named():
    assert found(SANDBOX) == [("sandbox", SANDBOX)]
    served = FetchOptions.from_env({"PIDML_GRID": "http://localhost:8080/grid"})
    assert found(SANDBOX, served) == [("http", f"http://localhost:8080/grid{SANDBOX}")]
    with pytest.raises(PathRefused, match="is not on the GRID that PIDML_GRID names"):
        sources(SANDBOX, FetchOptions.from_env({"PIDML_GRID": "alien"}))


def test_places_of_the_grid_are_tried_in_the_order_named():
    options = FetchOptions.from_env({"PIDML_GRID": "/data/mirror, https://grid.example/x/,root://eos.example/,alien"})
    assert found(LFN, options) == [
        ("file", f"/data/mirror{LFN}"),
        ("http", f"https://grid.example/x{LFN}"),
        ("fsspec", f"root://eos.example{LFN}"),
        ("alien_cp", LFN),
    ]


def test_fallbacks_replace_the_beginning_of_an_address():
    rules = "root://a.example/=root://b.example/ https://c.example/; https://c.example/=file:///mirror/"
    options = FetchOptions.from_env({"PIDML_FETCH_FALLBACKS": rules})
    assert found("root://a.example//x/y.root", options) == [
        ("fsspec", "root://a.example//x/y.root"),
        ("fsspec", "root://b.example//x/y.root"),
        ("http", "https://c.example//x/y.root"),
    ]
    assert found("https://c.example/y.root", options)[1:] == [("file", "/mirror/y.root")]


@pytest.mark.parametrize(
    "path",
    [
        "/alice/sim/2024/a;!rm -rf x/AO2D.root",
        "/alice/sim/2024/a | sh/AO2D.root",
        "alien:///alice/sim/2024/$(reboot)/AO2D.root",
        "alien:///alice/sim/2024/a@disk:2/AO2D.root",
        "alien:///alice/sim/2024/*/AO2D.root",
        "alien:///alice/sim/2024/a b/AO2D.root",
        "alien://alice/sim/AO2D.root",
        "alien:///etc/passwd",
        "/alice/sim/../../etc/passwd",
        "/alice/sim/%2e%2e/%2e%2e/etc/passwd",
        "/alice/sim/2024/a\0.root",
        "/alice/sim/2024/a\n.root",
        "http://host/a%00.root",
        "http://host/a%0d%0aHost: b",
        "https:///no-host",
        "http://[::1/a.root",
        "s3:///no-bucket",
        "file://otherhost/etc/passwd",
        "file:///a/../b",
        "file:///a/%2E%2E/b",
        "ftp://host/a.root",
        "gopher://host/",
        "..",
        "a\\b",
        "/a/" + "x" * 5000,
    ],
)
def test_hostile_paths_are_refused(path):
    with pytest.raises(PathRefused):
        sources(path, DEFAULT)


@given(st.text(max_size=60), st.sampled_from(["", "/alice/sim/", "alien:///alice/", "http://", "file:///", "root://"]))
def test_any_text_is_accepted_or_refused_by_name(text, beginning):
    try:
        accepted = sources(beginning + text, DEFAULT)
    except PidmlError:
        return
    for source in accepted:
        assert not any(ord(character) < 32 for character in source.address)
        assert ".." not in source.address.split("/")
        if source.method == "alien_cp":
            assert not set(source.address) & set(";|@,*$`'\"\\ !&<>(){}[]?~#%:")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PIDML_GRID", "ftp://host/"),
        ("PIDML_GRID", "relative/folder"),
        ("PIDML_FETCH_ATTEMPTS", "0"),
        ("PIDML_FETCH_ATTEMPTS", "1.5"),
        ("PIDML_FETCH_READ_TIMEOUT", "nan"),
        ("PIDML_FETCH_STREAMS", "16"),
        ("PIDML_FETCH_BACKOFF", "no"),
        ("PIDML_FETCH_FALLBACKS", "root://a.example/"),
    ],
)
def test_wrong_settings_name_the_variable(name, value):
    with pytest.raises(ConfigError, match=name):
        FetchOptions.from_env({name: value})


def test_relative_roots_are_refused():
    with pytest.raises(ConfigError, match="PIDML_FILE_ROOTS"):
        FetchOptions.from_env({"PIDML_FILE_ROOTS": "data"}, from_server=True)


def test_local_files_are_open_to_the_user_and_closed_to_a_server(tmp_path):
    path = tmp_path / "a.root"
    path.write_bytes(b"content")
    file = InputFile(path=str(path))
    with pytest.raises(PathRefused, match="PIDML_FILE_ROOTS"):
        fetch(file, tmp_path / "out.root", FetchOptions.from_env({}, from_server=True))
    allowed = FetchOptions.from_env({"PIDML_FILE_ROOTS": f"/nowhere:{tmp_path}"}, from_server=True)
    assert fetch(file, tmp_path / "out.root", allowed).size == 7
    assert FetchOptions.from_env({"PIDML_FILE_ROOTS": "/nowhere"}).file_roots is None


def test_what_programs_say_is_shown_without_credentials():
    text = "open root://u:pw@se.example//f?xrd.wantprot=unix&authz=AAA failed; authz=BBB; Authorization: Bearer CCC"
    shown = redacted_text(text)
    assert "se.example//f" in shown
    assert not any(secret in shown for secret in ("pw", "AAA", "BBB", "CCC"))
