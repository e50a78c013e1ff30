"""KubeVirt brought to another version, and back; in virtual time."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster import kubevirt, migrations, recovery, upgrade
from pytest_kvscale.cluster import kubevirt_release as release
from pytest_kvscale.cluster import upgrade_command as commands
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import (
    DAEMON_SETS,
    DEPLOYMENTS,
    KUBEVIRTS,
    NODES,
    PODS,
    Client,
)
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.journal_record import (
    FieldNote,
    ObjectsNote,
    Record,
    TuningNote,
    UpgradeNote,
    read,
)
from pytest_kvscale.cluster.tuner import Tuner
from pytest_kvscale.cluster.upgrade import Reached, UpgradeError, Upgrader, Way
from pytest_kvscale.cluster.upgrade_command import CommandFailedError
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.players import virt_operator

Json = dict[str, Any]


class Notes:
    """Keeps what was noted last of each part, and in which order."""

    def __init__(self) -> None:
        self.parts: Json = {}
        self.order: list[str] = []

    async def before(self, **parts: Any) -> None:
        self.parts |= parts
        self.order += [f"before {each}" for each in parts]

    async def after(self, **parts: Any) -> None:
        self.parts |= parts
        self.order += [f"after {each}" for each in parts]

    def record(self) -> Record:
        """The journal of a run that died, as the next one reads it."""
        found = Record(run="dead", by="me@here", cluster="u", **self.parts)
        return read(found.text(), "the journal")


@pytest.fixture
def connection(connect: Callable[..., Connection]) -> Connection:
    return connect(sim_profile="upgrade-from")


@pytest.fixture
def notes() -> Notes:
    return Notes()


async def the_cr(client: Client) -> Object:
    return copy.deepcopy(dict(await kubevirt.find_kubevirt(client)))


def cr(connection: Connection) -> Object:
    return connection.run(the_cr(connection.client))


def change(connection: Connection, spec: Json, status: bool = False) -> Object:
    path = KUBEVIRTS.path("kubevirt", "kubevirt", "status" if status else "")
    body = {"status" if status else "spec": spec}
    return connection.run(
        connection.client.request(
            "patch", "PATCH", path, body=body, content_type="application/merge-patch+json"
        )
    )


# By the CR --------------------------------------------------------------------------------------


def test_an_upgrade_is_noted_first_and_over_when_all_of_it_is_seen(
    connection: Connection, notes: Notes
) -> None:
    noted: list[Any] = []

    async def work() -> Reached:
        client = connection.client
        note = notes.before

        async def before(**parts: Any) -> None:
            await note(**parts)
            noted.append((await the_cr(client))["spec"])

        notes.before = before  # type: ignore[method-assign]
        upgrader = Upgrader(client, notes, Way("v1.10.0", "mirror.example/kv"))
        reached = await upgrader.upgrade()
        assert upgrader.is_under_way
        await upgrader.keep()
        return reached

    reached = connection.run(work())
    assert (reached.before, reached.after) == ("v1.9.0", "v1.10.0")
    assert reached.took > 20
    assert "imageTag" not in noted[0]
    assert notes.order == ["before upgrade", "after upgrade"]
    assert notes.parts == {"upgrade": None}
    found = cr(connection)
    assert found["spec"]["imageRegistry"] == "mirror.example/kv"
    assert kubevirt.version(found) == "v1.10.0"


def test_an_upgrade_that_was_asked_back_is_undone_and_waited_for(
    connection: Connection, notes: Notes
) -> None:
    before = cr(connection)
    upgrader = Upgrader(connection.client, notes, Way("v1.10.2"))
    connection.run(upgrader.upgrade())
    assert connection.run(upgrader.undo()) == []
    found = cr(connection)
    assert (found["spec"], kubevirt.version(found)) == (before["spec"], "v1.9.0")
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert notes.parts == {"upgrade": None}


@pytest.mark.parametrize(
    ("to", "where"), [("v3.0.0", "virt-handler: 1 of 1 pods updated, 0 ready"),
                      ("v1.10.4", "virt-controller: 1 of 2 pods updated, 2 ready")],
)  # fmt: skip
def test_an_upgrade_that_hangs_says_where_and_is_undone(
    connection: Connection, notes: Notes, to: str, where: str
) -> None:
    before = cr(connection)["spec"]
    upgrader = Upgrader(connection.client, notes, Way(to, timeout=300))
    with pytest.raises(UpgradeError) as caught:
        connection.run(upgrader.upgrade())
    said = str(caught.value)
    assert said.startswith(f"KubeVirt {to} was not rolled out within 5m (")
    assert f"{where} (virt-" in said
    assert f": ImagePullBackOff, image quay.io/kubevirt/virt-{where[5:12]}" in said
    assert said.endswith("; it has been undone")
    found = cr(connection)
    assert (found["spec"], notes.parts) == (before, {"upgrade": None})
    assert release_of(connection, "v1.9.0") == ""


def release_of(connection: Connection, version: str) -> str:
    return connection.run(release.look(connection.client, "kubevirt", "kubevirt", version))


def test_what_somebody_else_sets_meanwhile_is_left(connection: Connection, notes: Notes) -> None:
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0"))
    connection.run(upgrader.upgrade())
    change(connection, {"imageTag": "v1.10.1"})
    (left,) = connection.run(upgrader.undo())
    assert left == "left as somebody else has set it since: imageTag of the KubeVirt CR"
    assert cr(connection)["spec"]["imageTag"] == "v1.10.1"


def test_an_api_that_restarts_in_the_middle_costs_nothing(
    connection: Connection, notes: Notes
) -> None:
    for fault in (
        {"kind": "restart", "seconds": 10, "times": 2, "every": 12},
        {"kind": "cut", "when": "after", "verbs": ["patch"], "times": 1},
    ):
        connection.run(connection.client.request("create", "POST", "/_sim/faults", body=fault))
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0"))
    assert connection.run(upgrader.upgrade()).after == "v1.10.0"
    assert upgrader.is_under_way
    connection.run(upgrader.undo())
    assert "imageTag" not in cr(connection)["spec"]


def test_what_a_killed_run_was_upgrading_is_brought_back_by_its_journal(
    connection: Connection, notes: Notes
) -> None:
    """Its settings are put back too, after it: they may be of a version's own."""
    before = cr(connection)["spec"]

    async def die() -> None:
        client = connection.client
        await Tuner(client, notes, "node").apply(
            {"configuration": {"virtualMachineInstancesPerNode": 300}}
        )
        upgrader = Upgrader(client, notes, Way("v1.10.2"))
        task = asyncio.create_task(upgrader.upgrade())
        await asyncio.sleep(15)
        task.cancel()
        await asyncio.wait([task])

    connection.run(die())
    assert cr(connection)["spec"] != before
    assert notes.order == ["before tuning", "before upgrade"]
    undone = connection.run(recovery.undo(connection.client, notes.record(), 60))
    assert undone.text() == "put back 1 KubeVirt settings; brought KubeVirt back to v1.9.0"
    assert (cr(connection)["spec"], release_of(connection, "v1.9.0")) == (before, "")
    again = connection.run(recovery.undo(connection.client, notes.record(), 60))
    assert again.left == []


def test_a_kubevirt_cr_made_anew_since_is_left(connection: Connection, notes: Notes) -> None:
    field = FieldNote(path=("imageTag",), absent=True, before=None, after="v1.10.0", present=0)
    note = UpgradeNote(namespace="kubevirt", name="kubevirt", uid="former", version="v1.9.0",
                       to="v1.10.0", timeout=60,
                       fields=(field,))  # fmt: skip
    notes.parts = {"upgrade": note}
    undone = connection.run(recovery.undo(connection.client, notes.record(), 60))
    assert "has been made anew since: nothing was put back" in undone.text()


def test_what_somebody_else_upgrades_to_at_the_same_time_is_theirs(
    connection: Connection, notes: Notes
) -> None:
    note = notes.before

    async def before(**parts: Any) -> None:
        await note(**parts)
        body = {"spec": {"imageTag": "v1.10.0"}}
        await connection.client.patch(KUBEVIRTS, "kubevirt", "kubevirt", body)

    notes.before = before  # type: ignore[method-assign]
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0"))
    with pytest.raises(UpgradeError, match=r"says v1\.10\.0 already: somebody else has"):
        connection.run(upgrader.upgrade())
    assert (upgrader.is_under_way, notes.parts) == (False, {"upgrade": None})
    assert connection.run(upgrader.undo()) == []
    assert cr(connection)["spec"]["imageTag"] == "v1.10.0"


def test_a_tag_and_a_registry_are_put_back_together_or_not_at_all(
    connection: Connection, notes: Notes
) -> None:
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0", "mirror.example/kv"))
    connection.run(upgrader.upgrade())
    change(connection, {"imageTag": "v1.10.1"})
    (left,) = connection.run(upgrader.undo())
    assert left.endswith(": imageTag of the KubeVirt CR")
    spec = cr(connection)["spec"]
    assert (spec["imageTag"], spec["imageRegistry"]) == ("v1.10.1", "mirror.example/kv")


def test_a_version_that_can_no_longer_be_come_back_to_does_not_stay_in_the_way(
    connection: Connection, notes: Notes
) -> None:
    """virt-operator itself was changed since: without a tag KubeVirt is of its version."""
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0"))
    connection.run(upgrader.upgrade())
    notes.parts["upgrade"] = notes.parts["upgrade"].model_copy(update={"version": "v1.8.0"})
    undone = connection.run(recovery.undo(connection.client, notes.record(), 60))
    assert undone.text() == (
        "the KubeVirt CR is as it was, but makes it v1.9.0 now, not v1.8.0: somebody else has "
        "changed virt-operator since"
    )
    assert "imageTag" not in cr(connection)["spec"]


def test_a_version_that_is_one_in_name_only_fails_and_is_undone(
    connection: Connection, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator that is told of its images uses them, whatever the CR's tag is."""
    monkeypatch.setattr(virt_operator, "_image_of", lambda part: "pinned")
    monkeypatch.setattr(virt_operator, "image", lambda release, name: "pinned")
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0"))
    with pytest.raises(UpgradeError) as caught:
        connection.run(upgrader.upgrade())
    said = str(caught.value)
    assert said.startswith("KubeVirt says it is v1.10.0, but is not: virt-api is still of quay.io/")
    assert said.endswith("; it has been undone")
    assert "imageTag" not in cr(connection)["spec"]


def test_images_of_components_and_launchers_are_told_apart() -> None:
    before = {"virt-api": "a:1", "virt-launcher": "l:1"}
    assert release.unchanged(before, {"virt-api": "a:2", "virt-launcher": "l:2"}) == []
    assert release.unchanged(before, {"virt-api": "a:2", "virt-launcher": "l:1"}) == [
        "virt-launcher is still of l:1"
    ]


def test_the_image_of_launchers_is_an_argument_of_virt_controller(connection: Connection) -> None:
    container = {"name": "virt-controller", "image": "c:1",
                 "args": ["--launcher-image", "l:1", "-v", "2"]}  # fmt: skip
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    client = connection.client
    connection.run(client.patch(DEPLOYMENTS, "kubevirt", "virt-controller", body))
    found = connection.run(release.images(client, "kubevirt"))
    assert (found["virt-controller"], found["virt-launcher"]) == ("c:1", "l:1")


def test_what_a_hanging_version_let_not_go_is_removed_after_it(
    connection: Connection, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0"))
    connection.run(upgrader.upgrade())
    versions: list[str] = []

    async def remove(client: Client, *_: Any) -> tuple[list[str], list[str]]:
        versions.append(kubevirt.version(await the_cr(client)))
        if len(versions) == 1:
            raise TimeoutError("still there")
        return ["vmis a"], []

    monkeypatch.setattr(recovery, "remove", remove)
    notes.parts["objects"] = ObjectsNote(
        what="the VMIs", namespace="n", own=True, kinds=(), names=("a",)
    )
    undone = connection.run(recovery.undo(connection.client, notes.record(), 60))
    assert undone.text() == "removed 1 objects (vmis a); brought KubeVirt back to v1.9.0"
    assert versions == ["v1.10.0", "v1.9.0"]


# Whether it can be done ---------------------------------------------------------------------------


def checked(connection: Connection, way: Way) -> str:
    return connection.run(upgrade.check(connection.client, way))


def test_an_upgrade_that_is_there_already_is_refused(connection: Connection) -> None:
    assert checked(connection, Way("v1.10.0")) == "v1.9.0"
    with pytest.raises(ConfigurationError, match=r"KubeVirt is v1\.9\.0 already .*nothing to"):
        checked(connection, Way("v1.9.0"))
    with pytest.raises(ConfigurationError, match="already"):
        checked(connection, Way("v1.9.0", "quay.io/kubevirt"))
    assert checked(connection, Way("v1.9.0", "mirror.example/kv"))


def test_an_upgrade_under_way_is_refused(connection: Connection) -> None:
    change(connection, {"imageTag": "v3.0.0"})
    connection.run(asyncio.sleep(60))
    with pytest.raises(ConfigurationError, match=r"being brought from v1\.9\.0 to v3\.0\.0: wait"):
        checked(connection, Way("v1.10.0"))


def test_a_cr_that_an_operator_keeps_is_upgraded_by_a_command_only(connection: Connection) -> None:
    label = {"metadata": {"labels": {"app": "kubevirt-hyperconverged"}}}
    connection.run(connection.client.patch(KUBEVIRTS, "kubevirt", "kubevirt", label))
    with pytest.raises(ConfigurationError) as caught:
        checked(connection, Way("v1.10.0"))
    assert str(caught.value).endswith(
        "whose operator would undo a change: upgrade it there, by --kvscale-upgrade-command "
        "instead of the KubeVirt CR"
    )
    assert checked(connection, Way("v1.10.0", command="x")) == "v1.9.0"


@pytest.mark.parametrize(
    ("way", "why"),
    [
        (Way("1.10.0"), "begin with v .v1.9.0.: say v1.10.0, not 1.10.0"),
        (Way("kubevirt:v1.10.0"), "cannot be the tag of an image: expected one like v1.9.0"),
        (Way("sha256@x"), "cannot be the tag of an image"),
        (Way("v1.10.0", "https://quay.io/kubevirt"), "cannot be where images come from"),
    ],
)
def test_what_can_be_no_image_is_refused(connection: Connection, way: Way, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        checked(connection, way)


def test_an_operator_that_names_its_images_is_upgraded_by_a_command_only(
    connection: Connection,
) -> None:
    env = [{"name": "KUBEVIRT_VERSION", "value": "v1.9.0"}]
    container = {"name": "virt-operator", "image": "o@sha256:1", "env": env}
    operator = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "virt-operator"},
        "spec": {
            "selector": {"matchLabels": {"kubevirt.io": "virt-operator"}},
            "template": {
                "metadata": {"labels": {"kubevirt.io": "virt-operator"}},
                "spec": {"containers": [container]},
            },
        },
    }  # fmt: skip
    connection.run(connection.client.create(DEPLOYMENTS, "kubevirt", operator))
    assert checked(connection, Way("v1.10.0")) == "v1.9.0"
    env.append({"name": "VIRT_HANDLER_IMAGE", "value": "h@sha256:2"})
    change_it = connection.client.patch(DEPLOYMENTS, "kubevirt", "virt-operator", operator)
    connection.run(change_it)
    with pytest.raises(ConfigurationError, match=r"virt-operator names .* itself .VIRT_HANDLER_"):
        checked(connection, Way("v1.10.0"))
    assert checked(connection, Way("v1.10.0", command="x")) == "v1.9.0"


# With settings of the run -------------------------------------------------------------------------


def test_the_version_a_run_wanted_is_no_drift_and_everything_else_is(
    connection: Connection, notes: Notes
) -> None:
    tuner = Tuner(connection.client, notes, "node")
    connection.run(tuner.apply({"configuration": {"virtualMachineInstancesPerNode": 300}}))
    upgrader = Upgrader(connection.client, notes, Way("v1.10.2"))
    connection.run(upgrader.upgrade())
    assert connection.run(tuner.drift()) == [
        "the version was v1.9.0, is v1.10.2", "imageTag was absent, is 'v1.10.2'",
    ]  # fmt: skip
    connection.run(tuner.upgraded())
    connection.run(upgrader.keep())
    assert connection.run(tuner.drift()) == []
    change(connection, {"configuration": {"defaultRuntimeClass": "x"}})
    change(connection, {"imageTag": "v3.0.0"})
    assert connection.run(tuner.drift()) == [
        "configuration.defaultRuntimeClass was absent, is 'x'",
        "imageTag was 'v1.10.2', is 'v3.0.0'",
    ]
    change(connection, {"configuration": {"defaultRuntimeClass": None}})
    change(connection, {"imageTag": "v1.10.2"})
    note: TuningNote = notes.parts["tuning"]
    assert note.devices is None  # How many the new version offers by itself nobody has seen.
    assert connection.run(tuner.put_back()) == []
    node = connection.run(connection.client.get(NODES, "", "node"))
    assert node["status"]["allocatable"]["devices.kubevirt.io/kvm"] == "110"


def test_back_at_the_former_version_its_devices_are_waited_for(
    connection: Connection, notes: Notes
) -> None:
    before = cr(connection)["spec"]
    tuner = Tuner(connection.client, notes, "node")
    connection.run(tuner.apply({"configuration": {"virtualMachineInstancesPerNode": 300}}))
    upgrader = Upgrader(connection.client, notes, Way("v1.10.0"))
    connection.run(upgrader.upgrade())
    connection.run(tuner.upgraded())
    connection.run(upgrader.undo())
    connection.run(tuner.upgraded())
    assert notes.parts["tuning"].devices == "1k"
    assert connection.run(tuner.put_back()) == []
    assert cr(connection)["spec"] == before


# By a command -------------------------------------------------------------------------------------

PATCH = """
import json, os, re, sys, urllib.request
server = re.search(r"server: (\\S+)", open(os.environ["KUBECONFIG"]).read())[1]
assert os.environ["KVSCALE_FROM"]
tag = sys.argv[1].replace("TO", os.environ["KVSCALE_TO"])
path = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
request = urllib.request.Request(server + path, method="PATCH",
    data=json.dumps({"spec": {"imageTag": tag}}).encode(),
    headers={"Content-Type": "application/merge-patch+json"})
urllib.request.urlopen(request).close()
print("token: s3cr3t")
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A command that sets the CR's tag to its first word, and ends with its second."""
    path = tmp_path / "patch.py"
    path.write_text(PATCH, encoding="utf-8")
    return f"{sys.executable} -S {path}"


def by_command(connection: Connection, notes: Notes, command: str, **more: Any) -> Upgrader:
    way = Way(command=command, environment=connection.environment(), **more)
    return Upgrader(connection.client, notes, way)


def test_a_command_upgrades_and_another_brings_back(
    connection: Connection, notes: Notes, program: str
) -> None:
    upgrader = by_command(
        connection, notes, f"{program} TO 0", to="v1.10.0", back_command=f"{program} TO 0"
    )
    assert connection.run(upgrader.upgrade()).after == "v1.10.0"
    noted = notes.record().text()
    assert "patch.py" not in noted  # It may hold what is secret.
    assert connection.run(upgrader.undo()) == []
    assert kubevirt.version(cr(connection)) == "v1.9.0"


def test_a_command_may_decide_on_the_version(
    connection: Connection, notes: Notes, program: str
) -> None:
    upgrader = by_command(connection, notes, f"{program} v1.10.1 0")
    assert connection.run(upgrader.upgrade()).after == "v1.10.1"
    # Nothing undoes it; it is whole, and is left.
    assert connection.run(upgrader.undo()) == [
        "KubeVirt was upgraded by a command and is left as it is: v1.10.1"
    ]


def test_a_command_that_fails_half_way_is_told_and_its_secrets_are_not(
    connection: Connection, notes: Notes, program: str
) -> None:
    upgrader = by_command(connection, notes, f"{program} v3.0.0 3", to="v3.0.0", timeout=60)
    with pytest.raises(UpgradeError) as caught:
        connection.run(upgrader.upgrade())
    said = str(caught.value)
    assert "ended with exit code 3; it said: token: ***; " in said
    assert "s3cr3t" not in said
    assert "was being upgraded from v1.9.0 by a command, which nothing undoes (virt-han" in said
    assert upgrader.is_under_way  # It stays noted.
    back = recovery.Back(f"{program} TO 0", connection.environment())
    undone = connection.run(recovery.undo(connection.client, notes.record(), 60, back))
    assert undone.text() == "brought KubeVirt back to v1.9.0"


def test_a_command_that_cannot_be_run_has_nothing_to_undo(
    connection: Connection, notes: Notes, tmp_path: Path
) -> None:
    back = f"touch {tmp_path / 'back'}"
    upgrader = by_command(connection, notes, "no-such-program-here", back_command=back)
    with pytest.raises(UpgradeError, match="No such file or directory; nothing was changed"):
        connection.run(upgrader.upgrade())
    assert (notes.parts, (tmp_path / "back").exists()) == ({"upgrade": None}, False)


def test_a_command_is_not_shown(connection: Connection, notes: Notes) -> None:
    assert "s3cr3t" not in repr(Way(command="x s3cr3t", back_command="y s3cr3t"))
    with pytest.raises(ConfigurationError) as caught:
        commands.words("x 's3cr3t")
    assert str(caught.value) == "the command cannot be read: No closing quotation"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("no-such-program-here", "the command no-such-program-here cannot be run: No such file"),
        ("sh -c 'exit 3'", "the command sh ended with exit code 3, and said nothing"),
        ("sh -c 'kill -9 $$'", "the command sh was ended by signal 9"),
        ("sh -c 'sleep 60'", "the command sh had not ended after 0.1 s"),
    ],
)
def test_how_a_command_ended_is_told(clock: VirtualClock, command: str, sentence: str) -> None:
    with pytest.raises(CommandFailedError) as caught:
        clock.run(commands.run(command, {}, 0.1 if "sleep" in command else 60))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\nb\x1b[31m\n", "a | b [31m"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('{"password": "p w", "x": 1}', '{"password": ***, "x": 1}'),
        ("x --set db.password=a1 --token b2 -n c", "x --set db.password=*** --token *** -n c"),
        ("GET https://me:pw@host/x", "GET https://***@host/x"),
        ("error: token eyJhbG.eyJzd.c-_x is bad", "error: token *** is bad"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nb", "*** | b"),
        ("-----BEGIN PRIVATE KEY-----\n" + "MII\n" * 30, "***"),
        ("tls.key: LS0t\n.dockerconfigjson: e30=", "tls.key: *** | .dockerconfigjson: ***"),
        (
            'secret/kubevirt-1 created\nsecrets "a" not found',
            'secret/kubevirt-1 created | secrets "a" not found',
        ),
        ("curl -H 'bearer abc'", "curl -H 'bearer ***'"),
        ("\n".join(map(str, range(20))), " | ".join(map(str, range(8, 20)))),
    ],
)
def test_the_end_of_an_output_is_shown_without_secrets(text: str, shown: str) -> None:
    assert commands.tail(text) == shown


@pytest.mark.parametrize(("command", "why"), [("  ", "is empty"), ("a 'b", "cannot be read")])
def test_a_command_that_is_none_is_told(command: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        commands.words(command)


# Has it been rolled out? --------------------------------------------------------------------------


def test_every_sign_has_to_be_there(connection: Connection) -> None:
    """Whatever is changed of a version that is rolled out, it is no longer."""

    async def see() -> tuple[Json, Json, list[Json]]:
        client = connection.client
        found = await the_cr(client)
        parts, pods = {}, []
        for kind in (DEPLOYMENTS, DAEMON_SETS):
            for each in (await client.list(kind, "kubevirt"))["items"]:
                parts[each["metadata"]["name"]] = each
        pods = (await client.list(PODS, "kubevirt"))["items"]
        return found, parts, pods

    whole = connection.run(see())
    assert release.hanging(*whole, "v1.9.0") == ""
    assert release.hanging(*whole, "", "v1.8.0") == ""
    assert release.hanging(None, {}, [], "v1.9.0") == "the KubeVirt CR is gone"

    def after(
        spoil: Callable[[Json, Json, list[Json]], object],
        version: str = "v1.9.0",
        other_than: str = "",
    ) -> str:
        spoilt = copy.deepcopy(whole)
        spoil(*spoilt)
        return release.hanging(*spoilt, version, other_than)

    handler = "virt-handler"
    assert after(lambda c, p, o: p.pop(handler)) == "virt-handler is missing"
    assert "KubeVirt says it is v1.9.0, not v1.10.0" in after(lambda *_: None, version="v1.10.0")
    assert after(lambda *_: None, version="", other_than="v1.9.0").endswith(
        "not another version than v1.9.0"
    )
    assert after(lambda c, p, o: c["metadata"].update(generation=9)).endswith("by virt-operator")
    assert "1 of 2" in after(lambda c, p, o: p["virt-api"]["status"].update(updatedReplicas=1))
    assert "has just been changed" in after(
        lambda c, p, o: p[handler]["metadata"].update(generation=9)
    )
    assert after(
        lambda c, p, o: p[handler]["metadata"]["annotations"].update({release.VERSION: "v1"})
    ) == "virt-handler is of v1"  # fmt: skip
    pod = next(i for i, e in enumerate(whole[2]) if e["metadata"]["name"].startswith("virt-api"))
    assert "is made of x, not of quay" in after(
        lambda c, p, o: o[pod]["spec"]["containers"][0].update(image="x")
    )
    assert "has not ended" in after(
        lambda c, p, o: o[pod]["metadata"].update(deletionTimestamp="now")
    )


# Migrations ---------------------------------------------------------------------------------------


def test_migrations_of_a_runs_vmis_are_counted_by_how_they_end(connection: Connection) -> None:
    async def work() -> tuple[Any, Any]:
        client = connection.client

        async def migrate(name: str, vmi: str, phase: str = "") -> None:
            made = await client.create(
                migrations.MIGRATIONS, "default",
                {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
                 "metadata": {"name": name}, "spec": {"vmiName": vmi}},
            )  # fmt: skip
            if phase:
                path = migrations.MIGRATIONS.path("default", name, "status")
                body = {**made, "status": {"phase": phase}}
                await client.request("update", "PUT", path, body=body)

        await migrate("early", "a", "Succeeded")
        async with migrations.counting(client, "default") as counted:
            await migrate("b1", "b", "Failed")
            await migrate("b2", "b", "Succeeded")
            await migrate("c1", "c")
            await migrate("other", "z", "Failed")
            await asyncio.sleep(1)
            await client.delete(migrations.MIGRATIONS, "default", "b2")
            await asyncio.sleep(1)
        fault = {"kind": "answer", "status": 403, "verbs": ["list"],
                 "resources": ["virtualmachineinstancemigrations"]}  # fmt: skip
        await client.request("create", "POST", "/_sim/faults", body=fault)
        async with migrations.counting(client, "default") as unseen:
            await asyncio.sleep(1)
        return counted.counted("abc"), (unseen.counted("abc"), unseen.unknown[:24])

    counted, unseen = connection.run(work())
    assert counted == {"succeeded": 2, "failed": 1, "running": 1}
    assert unseen == (None, "migrations are not known")
