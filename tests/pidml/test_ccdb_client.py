"""The CCDB client against a server on loopback, with TLS and client certificates."""

from pathlib import Path

import pytest
from support.ccdb_server import Certificates, ccdb_server

from pidml.alicetraint.transport import Retry, Timeouts
from pidml.ccdb import Access, CcdbClient, Validity, run_of, run_validity, upload
from pidml.ccdb.objects import first_and_last_run
from pidml.errors import ConfigError, KeyRefused, PidmlError, ServerError, ServerRefused, SpecError

SOR, EOR = 1_700_000_000_000, 1_700_003_600_000
QUICK = {"timeouts": Timeouts(connect=5, read=0.5), "retry": Retry(attempts=3, first=0.001, longest=2)}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def access(certificates):
    return Access(*(certificates.path(name) for name in ("client.pem", "client.key", "ca.pem")))


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "attention_model_0321.onnx"
    path.write_bytes(bytes(range(256)) * 400)
    return path


def waits():
    """A wait that only counts."""
    seconds = []
    return seconds, lambda pause: seconds.append(pause) or False


def test_the_validity_of_a_run():
    with ccdb_server() as server:
        server.runs[535084] = (SOR, EOR)
        assert run_validity(server.url, 535084) == Validity(SOR, EOR)
        assert server.requests == [("HEAD", "/RCT/Info/RunInformation/535084")]
        server.run_status = 303  # the headers are those of this answer; elsewhere is not asked
        assert run_validity(server.url + "/", 535084) == Validity(SOR, EOR)


@pytest.mark.parametrize(
    "times", [(None, EOR), (SOR, None), (EOR, SOR), (SOR, SOR), ("x", EOR), (-5, EOR), (SOR, 10**25), (SOR, "٣")]
)
def test_a_run_without_a_sensible_interval_is_refused(times):
    with ccdb_server() as server:
        server.runs[5] = tuple(str(t).encode().decode("latin-1") if t is not None else None for t in times)
        with pytest.raises(ServerError, match="does not say when run 5 began and ended"):
            run_validity(server.url, 5)


def test_a_run_that_is_not_known():
    with ccdb_server() as server:
        with pytest.raises(ServerRefused, match="knows no run 7"):
            run_validity(server.url, 7)
        with pytest.raises(ServerRefused, match="no run number"):
            run_validity(server.url, -7)
        assert len(server.requests) == 1


def test_a_file_is_stored_under_name_and_validity_with_our_certificate(certificates, access, network):
    with ccdb_server(certificates) as server, CcdbClient(server.url, access) as client:
        stored = client.upload("Users/m/me/PIDML", "attention_model_0321", Validity(SOR, EOR), network)
        path = f"/Users/m/me/PIDML/attention_model_0321/{SOR}/{EOR}"
        assert server.stored == [(path, "blob", network.name, network.read_bytes(), "client")]
        assert stored.url == server.url + path
        assert stored.location == "/download/1"


def test_the_short_form_uses_the_usual_authorities_and_so_refuses_an_unknown_server(certificates, network):
    with ccdb_server(certificates) as server:
        files = network, certificates.path("client.pem"), certificates.path("client.key")
        with pytest.raises(ServerRefused, match="certificate or ours is not accepted"):
            upload(server.url, "a/b", "n", Validity(1, 2), *files)
        assert server.stored == []
        assert server.requests == []


def test_a_certificate_that_the_server_does_not_know_is_refused(certificates, network):
    rogue = Access(*(certificates.path(name) for name in ("rogue.pem", "rogue.key", "ca.pem")))
    with ccdb_server(certificates) as server, CcdbClient(server.url, rogue, **QUICK, wait=waits()[1]) as client:
        with pytest.raises(ServerError):
            client.upload("a/b", "n", Validity(1, 2), network)
        assert server.requests == []


@pytest.mark.parametrize(
    ("faults", "tries"),
    [([503, 429], 3), (["cut"], 2), (["hang", 500], 3), ([(503, {"Retry-After": "1"})], 2), ([408, 502], 3)],
    ids=str,
)
def test_what_may_pass_is_tried_again_and_stored_once(certificates, access, network, faults, tries):
    seconds, wait = waits()
    with ccdb_server(certificates) as server, CcdbClient(server.url, access, **QUICK, wait=wait) as client:
        server.faults += faults
        client.upload("a/b", "n", Validity(1, 2), network)
        assert len(server.requests) == tries
        assert len(server.stored) == 1
    assert len(seconds) == tries - 1
    if isinstance(faults[0], tuple):
        assert seconds[0] >= 1


def test_tries_come_to_an_end(network):
    with ccdb_server() as server, CcdbClient(server.url, **QUICK, wait=waits()[1]) as client:
        server.faults += [503] * 10
        with pytest.raises(ServerError, match="try later"):
            client.upload("a/b", "n", Validity(1, 2), network)
        assert len(server.requests) == 3
    with pytest.raises(ServerError, match="connection failed"):
        CcdbClient(server.url, **QUICK, wait=waits()[1]).run_validity(5)


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        (401, KeyRefused, "may it write|does not accept"),
        (403, KeyRefused, "does not accept this certificate"),
        (400, ServerRefused, r"refuses \(400 said 400\)"),
        (200, ServerRefused, "refuses"),
        ((302, {"Location": "https://elsewhere.example/"}), ServerRefused, "redirects to 'https://elsewhere.example/'"),
        ((307, {"Location": "/elsewhere"}), ServerRefused, "redirects"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(network, fault, error, text):
    with ccdb_server() as server, CcdbClient(server.url, **QUICK, wait=waits()[1]) as client:
        server.faults.append(fault)
        with pytest.raises(error, match=text):
            client.upload("a/b", "n", Validity(1, 2), network)
        assert len(server.requests) == 1
        assert server.stored == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", "n"), ("/a", "n"), ("a/", "n"), ("a//b", "n"), ("../a", "n"), ("a/../b", "n"), ("a/.", "n"), ("a b", "n"),
        ("a/b?x", "n"), ("a#b", "n"), ("a%2fb", "n"), ("a\n", "n"), ("å", "n"), ("a" * 501, "n"),
        ("a", ""), ("a", "n.onnx"), ("a", "n/1"), ("a", "n\0"),
    ],
)  # fmt: skip
def test_a_place_that_is_malformed_is_refused_before_anything_is_sent(network, path, name):
    with ccdb_server() as server, CcdbClient(server.url) as client:
        with pytest.raises(ConfigError):
            client.upload(path, name, Validity(1, 2), network)
        assert server.requests == []


@pytest.mark.parametrize(
    "base",
    ["", "ccdb.example", "ftp://ccdb.example", "https://", "https://me:S3CR3T@ccdb.example", "https://a b", "https://a?x",
     "https://a:99999", "https://a#b", "file:///etc/passwd", "https://a\n"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(base):
    with pytest.raises(ConfigError) as caught:
        CcdbClient(base)
    assert "S3CR3T" not in str(caught.value)


@pytest.mark.parametrize("interval", [(0, 5), (5, 5), (6, 5), (-1, 5), (1, 2**63)])
def test_an_interval_is_one(interval):
    with pytest.raises(ValueError, match="no interval"):
        Validity(*interval)


# --- certificates


def test_which_certificate_counts():
    every = {
        "PIDML_CCDB_CERT": "a", "PIDML_CCDB_KEY": "b", "X509_USER_PROXY": "p", "X509_USER_CERT": "c",
        "X509_USER_KEY": "d", "JALIEN_TOKEN_CERT": "e", "JALIEN_TOKEN_KEY": "f", "X509_CERT_DIR": "g",
    }  # fmt: skip
    found = []
    for gone in ((), ("PIDML_CCDB_CERT", "PIDML_CCDB_KEY"), ("X509_USER_PROXY",), ("X509_USER_CERT", "X509_USER_KEY")):
        every = {name: value for name, value in every.items() if name not in gone}
        access = Access.from_env(every)
        found.append((str(access.certificate), str(access.key), str(access.authorities)))
    assert found == [("a", "b", "g"), ("p", "p", "g"), ("c", "d", "g"), ("e", "f", "g")]
    assert Access.from_env({}) == Access()
    with pytest.raises(ConfigError, match="X509_USER_CERT is set without X509_USER_KEY"):
        Access.from_env({"X509_USER_CERT": "c"})


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        ("absent.pem", "client.key", "PIDML_CCDB_CERT: No such file"),
        ("client.pem", "absent.key", "PIDML_CCDB_KEY: No such file"),
        ("client.pem", "encrypted.key", "the key is encrypted"),
        ("client.pem", "server.key", "belong together"),
        ("client.key", "client.key", "no PEM certificate"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_said_without_its_path(certificates, certificate, key, text):
    with pytest.raises(ConfigError, match=text) as caught:
        CcdbClient("https://127.0.0.1:1", Access(certificates.path(certificate), certificates.path(key)))
    assert str(certificates.folder) not in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert str(certificates.folder) not in str(chain) or chain.__suppress_context__ or chain is caught.value
        chain = chain.__cause__


def test_storing_over_https_needs_a_certificate_and_reading_does_not(certificates, network):
    access = Access(authorities=certificates.path("ca.pem"))
    with ccdb_server(certificates, client_required=False) as server, CcdbClient(server.url, access) as client:
        server.runs[5] = (SOR, EOR)
        assert client.run_validity(5).start == SOR
        with pytest.raises(ConfigError, match="only from clients with a certificate"):
            client.upload("a/b", "n", Validity(1, 2), network)
        assert [method for method, _ in server.requests] == ["HEAD"]


def test_authorities_that_are_not_there(tmp_path):
    client = CcdbClient("https://127.0.0.1:1", Access(authorities=tmp_path / "none"))
    with pytest.raises(ConfigError, match="PIDML_CCDB_CA") as caught:
        client.run_validity(5)
    assert str(tmp_path) not in str(caught.value)


def test_what_is_printed_of_an_access_shows_no_path(access, certificates):
    assert str(certificates.folder) not in repr(access)


# --- runs


@pytest.mark.parametrize(
    ("lfn", "run"),
    [
        ("/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root", 535084),
        ("/alice/sim/2024/LHC24b1b/535084/AOD/001/AO2D.root", 535084),
        ("/alice/data/2022/LHC22o/526641/apass4/0630/AO2D.root", 526641),
        ("/alice/data/2011/LHC11h/000169858/ESDs/AO2D.root", 169858),
        ("/alice/sim/2026/LHC26sandbox/0/2/AOD/001/AO2D.root", 2),
        ("/alice/sim/2024/LHC24b1b/notes/AO2D.root", None),
        ("/home/me/AO2D.root", None),
        ("https://se.example/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root", None),
    ],
)
def test_run_of(lfn, run):
    assert run_of(lfn) == run


def test_first_and_last_run():
    paths = [f"/alice/sim/2024/LHC24b1b/0/{run}/AOD/001/AO2D.root" for run in (535084, 534000, 536000)] + [
        "/local.root"
    ]
    assert first_and_last_run(paths) == (534000, 536000)
    assert first_and_last_run(paths, last=540000) == (534000, 540000)
    assert first_and_last_run([], 5, 6) == (5, 6)
    for arguments in (([], 5, 0), (["/local.root"],), (paths, 600000), ([], 7, 6)):
        with pytest.raises(SpecError):
            first_and_last_run(*arguments)


def test_errors_are_of_the_one_family(network):
    with pytest.raises(PidmlError):
        CcdbClient("http://127.0.0.1:1", **QUICK, wait=waits()[1]).upload("a", "b", Validity(1, 2), Path(network))
