"""Kubeconfig files are read and merged as kubectl does, and nothing of them is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from pytest_kvscale.cluster.kubeconfig import Access, from_files, read
from pytest_kvscale.errors import ConfigurationError
from tests.cluster.conftest import write_kubeconfig


def access(*paths: Path, context: str | None = None) -> Access:
    return from_files(os.pathsep.join(map(str, paths)), context)


def test_of_several_files_the_first_of_a_name_counts(tmp_path: Path) -> None:
    paths = []
    for folder, name in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / folder).mkdir()
        entry = {"server": f"https://{folder}", "certificate-authority": "ca.crt"}
        user = {"tokenFile": folder}
        paths.append(write_kubeconfig(tmp_path / folder / "config", user, entry, name))
    paths.insert(0, tmp_path / "none")
    first = access(*paths)
    assert (first.server, first.context, first.user.token_file) == ("https://a", "one", "a")
    second = access(*paths, context="two")
    assert (second.server, second.context) == ("https://b", "two")
    assert second.cluster_folder == second.user_folder == tmp_path / "b"


def test_entries_of_one_context_may_stand_in_several_files(tmp_path: Path) -> None:
    whole = write_kubeconfig(tmp_path / "whole", {"token": "t"}, {"server": "https://h/x/"})
    content = yaml.safe_load(whole.read_text(encoding="utf-8"))
    paths = []
    for key in ("users", "contexts", "clusters"):
        (tmp_path / key).mkdir()
        paths.append(tmp_path / key / "config")
        part = {key: content[key]}
        if key == "clusters":
            part["current-context"] = "here"
        paths[-1].write_text(yaml.safe_dump(part), encoding="utf-8")
    found = access(*paths)
    assert found.server == "https://h/x"
    assert found.user_folder == tmp_path / "users"
    assert found.cluster_folder == tmp_path / "clusters"


def test_a_path_with_a_separator_is_one_file(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / f"a{os.pathsep}b", {}, {"server": "https://h"})
    assert from_files(str(path), None).server == "https://h"


def test_dates_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("expiry: 2030-01-01T00:00:00Z\nyes: 2030-01-01", encoding="utf-8")
    assert read(path) == {"expiry": "2030-01-01T00:00:00Z", True: "2030-01-01"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: *hush", "it is not YAML in line 1"),
        ("a: !hush 3", "it is not YAML in line 1"),
        ("a: !!int hush", "it is not YAML"),
        ("a: @hush", "it is not YAML in line 1"),
        ("hush", "it is not a mapping"),
        ("users: hush", "users is not a list"),
        ("users: [{nam: hush}]", "an entry of users has no name"),
        ("current-context: x", "it has no context 'x'"),
        ("current-context: x\ncontexts: [{name: x, context: hush}]", "context: input should be"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: y}}]", "no cluster 'y'"),
    ],
)
def test_files_that_cannot_be_used_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "config"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        access(path)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{path} cannot be used: ")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "server", ["h:6443", "ftp://h", "https://", "https://u:hush@h", "https://h:x"]
)
def test_servers_that_are_none_are_told(tmp_path: Path, server: str) -> None:
    path = write_kubeconfig(tmp_path / "config", {}, {"server": server})
    with pytest.raises(ConfigurationError, match="must be a URL as https://HOST:PORT") as caught:
        access(path)
    assert "hush" not in str(caught.value)


def test_a_name_nearly_right_is_suggested(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "config", {}, {"server": "https://h"}, "production")
    with pytest.raises(ConfigurationError, match=r"no context 'prodution' \(did you mean 'produ"):
        access(path, context="prodution")


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    user = {
        "token": "hush", "password": "hush", "username": "hush", "client-key-data": "hush",
        "exec": {
            "apiVersion": "v", "command": "c", "args": ["hush"],
            "env": [{"name": "A", "value": "hush"}],
        },
        "auth-provider": {"name": "oidc", "config": {"refresh-token": "hush"}},
    }  # fmt: skip
    entry = {"server": "https://h", "proxy-url": "http://u:hush@p"}
    found = access(write_kubeconfig(tmp_path / "config", user, entry))
    assert "hush" not in f"{found!r} {found} {found.user!r} {found.user} {found.cluster}"
