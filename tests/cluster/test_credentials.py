"""Credentials are renewed in time, never twice at once, and once more when they are refused."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from pytest_kvscale.cluster import credentials
from pytest_kvscale.cluster.client import PODS, ApiError, NoCredentialsError
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.credentials import Fixed, Issued, Pass, Renewing, TokenFile, bearer
from pytest_kvscale.sim.authentication import ADMINS, User
from tests.cluster.conftest import Secured, credential, encoded, exec_entry
from tests.cluster.scripted import answering, status


class Desk:
    """A source that takes its time, and issues passes with rising numbers."""

    name = "the desk"

    def __init__(self, takes: float = 1.0, life: float | None = 100.0) -> None:
        self.takes = takes
        self.life = life
        self.fails = ""
        self.token: Callable[[], str] = lambda: f"token-{len(self.asked)}"
        self.asked: list[float] = []

    async def issue(self) -> Issued:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes)
        if self.fails:
            raise NoCredentialsError(self.fails)
        return credentials.issued(Pass(bearer(self.token(), "this")), self.life)


def test_many_requests_share_one_renewal(clock: VirtualClock) -> None:
    async def work() -> None:
        desk = Desk()
        renewing = Renewing(desk)
        shown = await asyncio.gather(*(renewing.current() for _ in range(50)))
        assert len(set(map(id, shown))) == 1
        assert desk.asked == [0]

    clock.run(work())


def test_a_pass_is_renewed_beside_the_requests_before_it_ends(clock: VirtualClock) -> None:
    async def work() -> None:
        desk = Desk(takes=3)
        renewing = Renewing(desk)
        loop = asyncio.get_running_loop()
        first = await renewing.current()
        assert loop.time() == 3
        await asyncio.sleep(79)  # It lives 100 s from 3 s on, and is renewed after four fifths.
        assert await renewing.current() is first
        assert len(desk.asked) == 1
        await asyncio.sleep(2)
        assert await renewing.current() is first
        assert loop.time() == 84
        await asyncio.sleep(4)
        assert desk.asked == [0, 84]
        assert await renewing.current() is not first

    clock.run(work())


def test_a_pass_that_has_ended_is_not_shown(clock: VirtualClock) -> None:
    async def work() -> None:
        desk = Desk()
        renewing = Renewing(desk)
        first = await renewing.current()
        await asyncio.sleep(1000)
        assert await renewing.current() is not first
        assert desk.asked == [0, 1001]

    clock.run(work())


def test_who_gives_up_waiting_does_not_end_the_renewal(clock: VirtualClock) -> None:
    async def work() -> None:
        desk = Desk(takes=5)
        renewing = Renewing(desk)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await renewing.current()
        await renewing.current()
        assert desk.asked == [0]

    clock.run(work())


def test_a_renewal_that_fails_is_tried_again_after_a_pause(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        desk = Desk(takes=0)
        renewing = Renewing(desk)
        first = await renewing.current()
        desk.fails = "the issuer is away"
        await asyncio.sleep(85)
        for _ in range(3):
            assert await renewing.current() is first  # It still lives.
            await asyncio.sleep(0.1)
        assert desk.asked == [0, 85]
        assert "could not be renewed: the issuer is away" in caplog.text
        await asyncio.sleep(100)
        for _ in range(3):
            with pytest.raises(NoCredentialsError, match="the issuer is away"):
                await renewing.current()
        assert len(desk.asked) == 3
        desk.fails = ""
        await asyncio.sleep(credentials.PAUSE + 0.1)
        assert await renewing.current() is not first

    clock.run(work())


def test_a_refused_pass_is_renewed_once_and_the_request_repeated(clock: VirtualClock) -> None:
    """Also where many are refused at once."""

    async def only_second(request: web.BaseRequest) -> web.Response:
        if request.headers.get("Authorization") != "Bearer token-2":
            return status(401, "Unauthorized", "Unauthorized")
        assert await request.text() == '{"a":1}'
        return web.json_response({})

    async def work() -> None:
        desk = Desk(life=None)
        async with answering(only_second) as (client, script):
            client._headers, client._credentials = {}, Renewing(desk)
            await asyncio.gather(*(client.create(PODS, "n", {"a": 1}) for _ in range(20)))
            await client.create(PODS, "n", {"a": 1})
            assert len(desk.asked) == 2
            assert len(script.asked) == client.requests["create"] == 41

    clock.run(work())


def test_a_pass_that_stays_refused_is_given_up(clock: VirtualClock) -> None:
    async def never(request: web.BaseRequest) -> web.Response:
        return status(401, "Unauthorized", f"not {request.headers['Authorization']}")

    async def work() -> None:
        desk = Desk()
        async with answering(never) as (client, script):
            client._headers, client._credentials = {}, Renewing(desk)
            for _ in range(3):
                with pytest.raises(ApiError, match="HTTP 401") as caught:
                    await client.get(PODS, "n", "p")
                assert caught.value.status_message == "not Bearer ***"
            assert len(desk.asked) == 2
            assert len(script.asked) == 4
            desk.token = lambda: "same"
            await asyncio.sleep(credentials.PAUSE + 1)
            desk.fails = "no more"
            with pytest.raises(ApiError, match="HTTP 401"):
                await client.get(PODS, "n", "p")

    clock.run(work())


def test_what_cannot_be_renewed_is_refused_at_once(clock: VirtualClock) -> None:
    async def never(request: web.BaseRequest) -> web.Response:
        return status(401, "Unauthorized", "Unauthorized")

    async def work() -> None:
        async with answering(never) as (client, script):
            client._credentials = Fixed(Pass(bearer("t", "this")))
            with pytest.raises(ApiError, match="HTTP 401"):
                await client.get(PODS, "n", "p")
            assert len(script.asked) == 1

    clock.run(work())


def test_a_token_file_is_read_again_as_it_changes(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one", encoding="ascii")

    async def work() -> None:
        renewing = Renewing(TokenFile(path))
        first = await renewing.current()
        path.write_text("two", encoding="ascii")
        assert await renewing.current() is first
        await asyncio.sleep(credentials.REREAD + 1)
        await renewing.current()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = await renewing.current()
        assert second.shows_same_as(Pass(bearer("two", "this")))
        path.unlink()  # As long as it is being replaced, the last one counts.
        await asyncio.sleep(credentials.REREAD + 1)
        assert await renewing.current() is second

    clock.run(work())


def test_nothing_shows_what_a_pass_holds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    held = Pass(bearer("hush", "this"))
    assert "hush" not in f"{held!r} {held} {Renewing(Desk())!r} {Fixed(held)!r} {Issued(held)!r}"
    assert held.hide("you sent Bearer hush") == "you sent Bearer ***"


# During a run, against a real server ---------------------------------------------------------


def counting(folder: Path, *outputs: str) -> Path:
    """An exec plugin whose answer depends on how often it was run."""
    script, count = folder / "plugin.py", folder / "count"
    script.write_text(
        f"import pathlib\n"
        f"count = pathlib.Path({str(count)!r})\n"
        f"n = len(count.read_text()) if count.exists() else 0\n"
        f"count.write_text('x' * (n + 1))\n"
        f"outputs = {list(outputs)!r}\n"
        f"print(outputs[min(n, len(outputs) - 1)])\n",
        encoding="utf-8",
    )
    return script


def runs(folder: Path) -> int:
    return len((folder / "count").read_text(encoding="utf-8"))


def test_an_exec_plugin_runs_once_for_many_requests(secured: Secured, tmp_path: Path) -> None:
    script = counting(tmp_path, credential(token="first-token"))
    connection = secured.connect(secured.kubeconfig(exec_entry(script)))

    async def work() -> None:
        await asyncio.gather(*(connection.client.about("/version") for _ in range(30)))

    connection.run(work())
    connection.close()
    assert runs(tmp_path) == 1


def test_a_token_that_is_taken_back_during_a_run_is_renewed(
    secured: Secured, tmp_path: Path
) -> None:
    script = counting(tmp_path, credential(token="first-token"), credential(token="second-token"))
    connection = secured.connect(secured.kubeconfig(exec_entry(script)))
    secured.tokens["second-token"] = User("alice-again")
    del secured.tokens["first-token"]

    async def work() -> None:
        await asyncio.gather(*(connection.client.about("/version") for _ in range(30)))

    connection.run(work())
    connection.close()
    assert runs(tmp_path) == 2
    assert secured.gate.seen[-1] == User("alice-again")


def test_a_token_that_has_expired_is_asked_for_again(secured: Secured, tmp_path: Path) -> None:
    past = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).isoformat()
    script = counting(
        tmp_path, credential(token="first-token", expirationTimestamp=past),
        credential(token="first-token"),
    )  # fmt: skip
    connection = secured.connect(secured.kubeconfig(exec_entry(script)))
    for _ in range(3):
        connection.run(connection.client.about("/version"))
    connection.close()
    assert runs(tmp_path) == 2


def test_a_certificate_is_renewed_with_new_connections(secured: Secured, tmp_path: Path) -> None:
    """A connection stays with the certificate it was opened with."""
    said = []
    for name in ("bob", "bobby"):
        certificate, key = secured.authority.issue_client(name, "ops")
        status_ = {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()}
        said.append(credential(**status_))
    script = counting(tmp_path, *said)
    connection = secured.connect(secured.kubeconfig(exec_entry(script)))
    credentials_ = connection.client._credentials
    assert isinstance(credentials_, Renewing)

    async def work() -> None:
        assert await credentials_.renewed(await credentials_.current()) is not None
        await connection.client.about("/version")

    connection.run(work())
    connection.close()
    assert [user.name for user in secured.gate.seen] == ["bob", "bobby"]


def test_a_service_accounts_token_that_is_replaced_is_used(
    secured: Secured, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("first-token", encoding="ascii")
    connection = secured.connect(secured.kubeconfig({"tokenFile": str(path)}))
    secured.tokens["second-token"] = User("alice-again")
    del secured.tokens["first-token"]
    path.write_text("second-token\n", encoding="ascii")
    connection.run(connection.client.about("/version"))
    connection.close()
    assert secured.gate.seen[-1] == User("alice-again")


def test_a_watch_shows_its_pass_too(secured: Secured) -> None:
    certificate, key = (encoded(each) for each in secured.authority.issue_client("bob", ADMINS))
    user = {"client-certificate-data": certificate, "client-key-data": key}
    connection = secured.connect(secured.kubeconfig(user))

    async def work() -> None:
        query = {"timeoutSeconds": "1", "allowWatchBookmarks": "true"}
        async for event in connection.client.watch(PODS, "default", query, 30):
            assert event["type"] == "BOOKMARK"
            break

    connection.run(work())
    connection.close()
    assert secured.gate.seen[-1].name == "bob"
