"""`mizzen join`: with a token alone, against a server that may be another."""

from __future__ import annotations

import datetime
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from controlplane.cli.api import Api
from controlplane.cli.identity import join, renew, settled, trusted_root
from controlplane.cli.kubeconfig import Access
from controlplane.cli.main import command
from tests.controlplane.api.serving import Background, Client, until


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with Background(tmp_path_factory.mktemp("mesh")) as background:
        yield background


def mizzen(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def token(background: Background) -> str:
    made = Client(background)("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "reviews"})
    return str(made.json["token"])


def test_a_machine_joins_and_renews(background: Background, tmp_path: Path) -> None:
    server, directory = background.served.server.url, tmp_path / "identity"
    joined = mizzen("join", "--server", server, "--token", token(background), "--identity-dir", str(directory))
    assert joined.exit_code == 0, joined.output
    assert sorted(os.listdir(directory)) == ["agent.json", "chain.pem", "key.pem", "root.pem", "secret.json"]
    assert {stat.S_IMODE((directory / name).stat().st_mode) for name in os.listdir(directory)} == {0o600}
    assert (directory / "root.pem").read_bytes() == background.served.authority.pem
    first, key = (directory / "chain.pem").read_bytes(), (directory / "key.pem").read_bytes()
    leaf = x509.load_pem_x509_certificates(first)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cluster.local/ns/shop/sa/reviews"]
    renewed = mizzen("join", "--server", server, "--identity-dir", str(directory))
    assert renewed.exit_code == 0, renewed.output
    second = x509.load_pem_x509_certificates((directory / "chain.pem").read_bytes())[0]
    assert second.serial_number != leaf.serial_number and (directory / "key.pem").read_bytes() != key
    assert second.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == names


def test_one_that_has_ended_is_not_renewed_and_says_what_to_type(background: Background, tmp_path: Path) -> None:
    server, directory = background.served.server.url, tmp_path / "identity"
    arguments = ("join", "--server", server, "--identity-dir", str(directory))
    assert mizzen(*arguments, "--token", token(background), "--lifetime", "1").exit_code == 0
    leaf = x509.load_pem_x509_certificates((directory / "chain.pem").read_bytes())[0]
    until(lambda: leaf.not_valid_after_utc < datetime.datetime.now(datetime.UTC))
    refused = mizzen(*arguments)
    assert refused.exit_code == 1
    for words in (
        f"the certificate in {directory} ended ",
        "`mizzen token create --namespace shop --service-account reviews`",
        f"mizzen join --server {server} --token TOKEN --identity-dir {directory}",
    ):
        assert words in refused.output, refused.output
    again = mizzen(*arguments, "--token", token(background))
    assert again.exit_code == 0, again.output
    assert mizzen(*arguments).exit_code == 0, "which is renewed as ever"


def test_a_token_is_not_spent_where_nothing_can_be_kept(background: Background, tmp_path: Path) -> None:
    server, text = background.served.server.url, token(background)
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        refused = mizzen("join", "--server", server, "--token", text, "--identity-dir", str(tmp_path / name))
        assert refused.exit_code == 1 and "a certificate cannot be kept there" in refused.output, refused
    joined = mizzen("join", "--server", server, "--token", text, "--identity-dir", str(tmp_path / "good"))
    assert joined.exit_code == 0, joined.output


@pytest.mark.parametrize("done", range(5))
def test_a_kill_while_files_are_written(
    done: int, background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of files is renewed, chain and key are one another's for whoever asks next, and can be renewed."""
    served, text = background.served, token(background)
    access = Access(served.server.url, trusted_root(served.server.url, text), "")
    join(Api(access), text, tmp_path)
    with monkeypatch.context() as killing:
        replace, replaced = Path.replace, iter(range(done))

        def dies(path: Path, target: Path) -> Path:
            if next(replaced, None) is None:
                raise KeyboardInterrupt
            return replace(path, target)

        killing.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            renew(Api(access), tmp_path)
    secret = json.loads((tmp_path / "secret.json").read_bytes())["resources"][0]["tls_certificate"]
    for path, field in zip(settled(tmp_path), ("certificate_chain", "private_key"), strict=True):
        assert path.read_text() == secret[field]["inline_string"]
    renew(Api(access), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["agent.json", "chain.pem", "key.pem", "root.pem", "secret.json"]


def test_a_secret_that_is_none(background: Background, tmp_path: Path) -> None:
    server, text = background.served.server.url, token(background)
    join(Api(Access(server, trusted_root(server, text), "")), text, tmp_path)
    for garbage in ("", "[]", '{"resources": []}', '{"resources": [{"tls_certificate": {"certificate_chain": 1}}]}'):
        (tmp_path / "secret.json").write_text(garbage)
        refused = mizzen("join", "--server", server, "--identity-dir", str(tmp_path))
        assert refused.exit_code == 1 and "remove it to go on by chain.pem and key.pem" in refused.output, garbage
    (tmp_path / "secret.json").unlink()
    assert mizzen("join", "--server", server, "--identity-dir", str(tmp_path)).exit_code == 0


def test_a_server_with_another_root_is_told_nothing(background: Background, tmp_path: Path) -> None:
    text = token(background)
    (tmp_path / "other").mkdir()
    with Background(tmp_path / "other") as other:
        refused = mizzen(
            "join", "--server", other.served.server.url, "--token", text, "--identity-dir", str(tmp_path / "i")
        )
    assert refused.exit_code == 1 and "is not the control plane that the token is from" in refused.output
    assert not (tmp_path / "i").exists()
    server = background.served.server.url
    assert mizzen("join", "--server", server, "--token", text, "--identity-dir", str(tmp_path / "i")).exit_code == 0
    again = mizzen("join", "--server", server, "--token", text, "--identity-dir", str(tmp_path / "i"))
    assert again.exit_code == 1 and "used before" in again.output


def test_only_workloads_renew(background: Background) -> None:
    assert Client(background)("POST", "/mizzen/v1/renew", {}).status == 403
    assert Client(background, "")("POST", "/mizzen/v1/renew", {}).status == 401
    assert Client(background, "")("GET", "/mizzen/v1/root").json == {"root": background.served.authority.pem.decode()}


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "127.0.0.1:15080", "https://"])
def test_other_addresses_are_refused(server: str, tmp_path: Path) -> None:
    refused = mizzen("join", "--server", server, "--token", "x", "--identity-dir", str(tmp_path))
    assert refused.exit_code == 2 and "https://10.0.0.1:15080" in refused.output


def test_there_is_nothing_to_renew(background: Background, tmp_path: Path) -> None:
    refused = mizzen("join", "--server", background.served.server.url, "--identity-dir", str(tmp_path))
    assert refused.exit_code == 1 and "give a --token to join first" in refused.output
