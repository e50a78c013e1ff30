"""From watch events to timelines."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kvscale.measure.figures import figures, occupancy, row
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.timeline import Creation, Sign

Json = dict[str, Any]


def stamp(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}Z"


def vmi(phase: str = "", uid: str = "u1", name: str = "one", **more: Any) -> Json:
    stamps = more.pop("stamps", {})
    return {
        "metadata": {"name": name, "uid": uid, "creationTimestamp": stamp(0), **more},
        "status": {
            "phase": phase,
            "phaseTransitionTimestamps": [
                {"phase": each, "phaseTransitionTimestamp": stamp(second)}
                for each, second in stamps.items()
            ],
        },
    }


def pod(owner: str = "u1", uid: str = "p1", node: str = "", **status: Any) -> Json:
    return {
        "metadata": {
            "name": "virt-launcher-one-x",
            "uid": uid,
            "labels": {"kubevirt.io/created-by": owner},
        },
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Pending", **status},
    }


def container(**state: Any) -> Json:
    return {"containerStatuses": [{"name": "compute", "state": state}]}


def warning(uid: str, reason: str, message: str = "m", **more: Any) -> Json:
    return {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "uid": uid},
        "type": "Warning",
        "reason": reason,
        "message": message,
        **more,
    }


@pytest.fixture
def observer() -> Observer:
    made = Observer()
    creation = Creation("one", 0.0, 0.5, 0.6)
    made.expect(creation)
    return made


def test_phases_are_timed_when_the_watch_tells(observer: Observer) -> None:
    for at, phase in ((1.0, "Pending"), (2.0, "Scheduling"), (5.0, "Scheduled"), (9.0, "Running")):
        observer.take("vmis", "MODIFIED", vmi(phase), at)
        observer.take("vmis", "MODIFIED", vmi(phase), at + 0.5)
    line = row(observer.timelines["one"], None, [])
    assert line["phases"] == {
        "Pending": 0.5, "Scheduling": 1.5, "Scheduled": 4.5, "Running": 8.5,
    }  # fmt: skip
    assert (line["intended"], line["sent"], line["acked"]) == (-0.5, 0.0, 0.1)


def test_a_launcher_pod_is_timed_from_seen_to_gone(observer: Observer) -> None:
    ready = [
        {"type": name, "status": "True", "lastTransitionTime": stamp(second)}
        for name, second in (
            ("PodScheduled", 1), ("PodReadyToStartContainers", 3), ("Initialized", 4)
        )
    ]  # fmt: skip
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    observer.take("pods", "ADDED", pod(), 1.5)
    observer.take("pods", "MODIFIED", pod(node="n", conditions=ready[:1]), 2.5)
    observer.take("pods", "MODIFIED", pod(node="n", conditions=ready[:2]), 4.0)
    observer.take("pods", "MODIFIED", pod(node="n", conditions=ready), 5.0)
    begun = {**container(running={"startedAt": stamp(5)}), "conditions": ready}
    for at in (6.0, 7.0):
        observer.take("pods", "MODIFIED", pod(node="n", **begun), at)
    observer.take("pods", "DELETED", pod(), 9.0)
    line = row(observer.timelines["one"], None, [])
    assert line["pod"] == {
        "name": "virt-launcher-one-x", "seen": 1.0, "scheduled": 2.0, "sandbox": 3.5,
        "initialised": 4.5, "started": 5.5, "gone": 8.5,
        "server": {"scheduled": 1.0, "sandbox": 3.0, "initialised": 4.0, "started": 5.0},
    }  # fmt: skip


def test_how_far_a_pod_came_is_told_late_by_the_servers_stamp() -> None:
    observer = Observer()
    observer.expect(Creation("one", 100.0, 100.0, 100.1))
    observer.take("vmis", "ADDED", vmi("Scheduling", stamps={"Scheduling": 1}), 101.2)
    observer.take("pods", "ADDED", pod(), 101.3)
    bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(20)}
    observer.take_list("pods", [pod(node="n", conditions=[bound])], 160.0, 110.0)
    assert observer.timelines["one"].pod.scheduled == pytest.approx(120.2)


def test_the_first_refusal_is_kept_though_it_passes(observer: Observer) -> None:
    observer.timelines["one"].creation.turned_away = (0.55, "too many requests")
    line = row(observer.timelines["one"], None, [])
    assert line["refused"] == {"at": pytest.approx(0.05), "what": "too many requests"}
    observer.timelines["one"].creation.turned_away = None
    assert row(observer.timelines["one"], None, [])["refused"] is None
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    observer.take("pods", "ADDED", pod(), 1.0)
    observer.take("events", "ADDED", warning("p1", "Unhealthy", "no refusal"), 2.0)
    for at, message in ((3.5, "no cpu"), (5.0, "no memory"), (6.0, "no cpu")):
        observer.take("events", "ADDED", warning("p1", "FailedScheduling", message), at)
    line = row(observer.timelines["one"], None, [])
    assert line["refused"] == {"at": 3.0, "what": "event FailedScheduling: no cpu"}


def test_the_deletion_is_timed_from_asked_to_final_phase_to_gone(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running"), 1.0)
    observer.end_level(10.5)
    observer.delete_asked(10.5)
    observer.take("vmis", "MODIFIED", vmi("Failed"), 12.5)
    observer.take("vmis", "DELETED", vmi("Failed"), 14.5)
    line = row(observer.timelines["one"], None, [])
    told = [line[each] for each in ("deleted", "final", "final_phase", "gone")]
    assert told == [10.0, 12.0, "Failed", 14.0]


def test_a_phase_that_was_skipped_is_at_the_next_one_seen(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running"), 9.0)
    assert row(observer.timelines["one"], None, [])["phases"] == {
        "Scheduling": 8.5, "Scheduled": 8.5, "Running": 8.5,
    }  # fmt: skip


def test_a_level_is_settled_when_each_vmi_runs_or_cannot_any_more(observer: Observer) -> None:
    observer.expect(Creation("two", 0.0, 0.5))
    observer.expect(Creation("three", 0.0, 0.5))
    told: list[bool] = []
    observer.on_change = lambda: told.append(observer.settled)
    observer.take("vmis", "ADDED", vmi("Running"), 1.0)
    observer.take("vmis", "ADDED", vmi("Failed", "u2", "two"), 2.0)
    assert not observer.settled
    creation = observer.timelines["three"].creation
    observer.refused(creation, Sign(3.0, "api", "create", "no"), 403)
    assert observer.settled
    assert told == [False, False, True]


def test_a_vmi_that_stops_running_is_lost(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running"), 1.0)
    observer.take("vmis", "MODIFIED", vmi("Failed"), 2.0)
    timeline = observer.timelines["one"]
    assert timeline.ran
    assert not timeline.running
    assert timeline.hopeless


def test_a_vmi_deleted_by_somebody_else_is_lost(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running"), 1.0)
    observer.take("vmis", "DELETED", vmi("Running"), 2.0)
    assert not observer.timelines["one"].running
    assert observer.present == 0


def test_after_the_end_only_the_deletion_is_measured(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    observer.take("pods", "ADDED", pod(), 1.5)
    observer.end_level(10.0)
    observer.delete_asked(10.0)
    observer.take("vmis", "MODIFIED", vmi("Running"), 11.0)
    observer.take("pods", "MODIFIED", pod(node="n"), 11.0)
    observer.take("events", "ADDED", warning("p1", "FailedScheduling"), 11.0)
    observer.take("vmis", "MODIFIED", vmi("Succeeded"), 12.0)
    observer.take("pods", "DELETED", pod(), 13.0)
    observer.take("vmis", "DELETED", vmi("Succeeded"), 14.0)
    timeline = observer.timelines["one"]
    assert not timeline.ran
    assert timeline.pod.scheduled is None
    assert not timeline.signs
    assert (timeline.final_phase, timeline.gone) == (12.0, 14.0)
    assert figures(observer).deletion["p50"] == 4.0


def test_progress_is_a_change_of_state_and_nothing_else(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    observer.take("pods", "ADDED", pod(), 2.0)
    observer.take("pods", "MODIFIED", pod(node="n"), 3.0)
    observer.take("pods", "MODIFIED", pod(node="n", **container(waiting={"reason": "x"})), 4.0)
    assert observer.last_progress == 4.0
    observer.take("pods", "MODIFIED", pod(node="n", **container(waiting={"reason": "y"})), 5.0)
    observer.take("vmis", "MODIFIED", vmi("Scheduling", resourceVersion="9"), 6.0)
    observer.take("events", "ADDED", warning("p1", "FailedCreatePodSandBox"), 7.0)
    observer.take("events", "MODIFIED", warning("p1", "FailedCreatePodSandBox", count=9), 8.0)
    assert observer.last_progress == 4.0
    observer.take("pods", "MODIFIED", pod(node="n", **container(running={})), 9.0)
    assert observer.last_progress == 9.0


def test_an_event_may_come_before_what_it_is_about(observer: Observer) -> None:
    observer.take("events", "ADDED", warning("p1", "FailedScheduling"), 1.0)
    observer.take("vmis", "ADDED", vmi("Scheduling"), 2.0)
    observer.take("pods", "ADDED", pod(), 3.0)
    assert [each.reason for each in observer.timelines["one"].signs] == ["FailedScheduling"]


def test_repeated_events_are_counted_once(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    observer.take("pods", "ADDED", pod(), 1.0)
    for second, count in ((5, 1), (6, 2), (7, 3)):
        event = warning("p1", "FailedKillPod", count=count, lastTimestamp=stamp(second))
        observer.take("events", "MODIFIED", event, float(second))
    (sign,) = observer.timelines["one"].signs
    assert sign.count == 3
    assert sign.at == 7.0


def test_what_is_not_ours_is_left_alone(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running", "u9", "another"), 1.0)
    launcher = pod("u9", "p9")
    launcher["metadata"]["ownerReferences"] = [{"name": "another", "uid": "u9"}]
    observer.take("pods", "ADDED", launcher, 1.0)
    assert observer.strangers == {"u9": "another"}
    assert observer.present == 0
    assert list(observer.timelines) == ["one"]
    observer.take("vmis", "DELETED", vmi("Running", "u9", "another"), 2.0)
    assert observer.strangers == {}


def test_vmis_of_an_owner_count_from_its_creation() -> None:
    observer = Observer()
    observer.expect(Creation("set", 0.0, 1.0, 1.1))
    for index in range(3):
        made = vmi("Running", f"u{index}", f"set-{index}")
        made["metadata"]["ownerReferences"] = [{"name": "set", "uid": "owner"}]
        observer.take("vmis", "ADDED", made, 5.0 + index)
    found = figures(observer)
    assert (found.requested, found.running) == (3, 3)
    assert found.phases["Running"]["max"] == 6.0


def test_a_list_after_a_lost_watch_tells_by_the_servers_stamps() -> None:
    observer = Observer()
    for name in ("one", "two"):
        observer.expect(Creation(name, 100.0, 100.0, 100.1))
    told = vmi("Scheduling", "u2", "two", stamps={"Scheduling": 2})
    observer.take("vmis", "ADDED", told, 102.5)
    stamps = {"Scheduling": 3, "Scheduled": 20, "Running": 30}
    listed = [vmi("Running", stamps=stamps), told]
    observer.take_list("vmis", listed, 160.0, 110.0)
    line = row(observer.timelines["one"], None, [])
    assert line["phases"]["Running"] == pytest.approx(30.5)
    assert line["phases"]["Scheduled"] == pytest.approx(20.5)
    assert line["phases"]["Scheduling"] == pytest.approx(10.0)
    assert line["bounds"]["Running"] == [pytest.approx(20.5), pytest.approx(60.0)]
    assert figures(observer).phases["Running"]["n"] == 1


def test_what_is_missing_in_a_list_is_gone(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running"), 1.0)
    observer.take("pods", "ADDED", pod(), 1.0)
    assert observer.present == 2
    observer.take_list("pods", [], 5.0, 2.0)
    observer.take_list("vmis", [], 5.0, 2.0)
    assert observer.present == 0


def test_no_creation_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="nothing was created"):
        figures(Observer())


def test_what_was_never_sent_counts_as_asked_for(observer: Observer) -> None:
    found = figures(observer, requested=5)
    assert (found.requested, found.created, found.running) == (5, 1, 0)
    assert found.phases["Running"]["censored"] == 5


def test_the_plot_has_each_vmi_in_one_phase_at_a_time(observer: Observer) -> None:
    observer.expect(Creation("two", 0.0, 0.5))
    for at, phase in ((0.6, "Pending"), (2.0, "Scheduling"), (5.0, "Scheduled"), (9.0, "Running")):
        observer.take("vmis", "MODIFIED", vmi(phase), at)
        observer.take("vmis", "MODIFIED", vmi(phase, "u2", "two"), at + 1)
    observer.end_level(11.0)
    observer.delete_asked(11.0)
    for uid, name in (("u1", "one"), ("u2", "two")):
        observer.take("vmis", "MODIFIED", vmi("Succeeded", uid, name), 15.0)
        observer.take("vmis", "DELETED", vmi("Succeeded", uid, name), 20.0)
    shown = occupancy(list(observer.timelines.values()), points=195)
    assert shown["moments"][0] == 0
    assert shown["moments"][-1] == 19.5
    totals = [sum(each) for each in zip(*shown["phases"].values(), strict=True)]
    assert max(totals) == 2
    assert shown["phases"]["Running"][shown["moments"].index(10.0)] == 2
    assert shown["phases"]["Ended"][shown["moments"].index(15.0)] == 2
    assert totals[-1] == 0


# Losing sight ---------------------------------------------------------------------------------


def test_what_is_older_than_what_was_seen_is_no_news(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling", resourceVersion="10"), 1.0)
    observer.take("vmis", "MODIFIED", vmi("Running", resourceVersion="12"), 2.0)
    observer.take("vmis", "MODIFIED", vmi("Scheduled", resourceVersion="11"), 3.0)
    timeline = observer.timelines["one"]
    assert timeline.running
    assert timeline.phases["Scheduled"] == 2.0
    assert observer.last_progress == 2.0


def test_what_is_gone_is_gone_once(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running", resourceVersion="10"), 1.0)
    for at in (2.0, 3.0):
        observer.take("vmis", "DELETED", vmi("Running", resourceVersion="12"), at)
    observer.take("vmis", "MODIFIED", vmi("Running", resourceVersion="11"), 4.0)
    assert observer.timelines["one"].gone == 2.0
    assert observer.present == 0


def test_a_pod_told_of_before_its_vmi_is_not_lost(observer: Observer) -> None:
    observer.take("pods", "ADDED", pod(node="node"), 1.0)
    assert observer.present == 0
    observer.take("vmis", "ADDED", vmi("Scheduling"), 2.0)
    assert observer.present == 2
    assert observer.timelines["one"].pod.scheduled == 1.0


def test_a_pod_that_came_and_went_before_its_vmi_was_seen_is_no_rest(observer: Observer) -> None:
    observer.take("pods", "ADDED", pod(node="node"), 1.0)
    observer.take("pods", "DELETED", pod(node="node"), 1.5)
    observer.take("vmis", "ADDED", vmi("Scheduling"), 2.0)
    assert observer.present == 1


def test_a_create_that_was_not_answered_and_took_effect_is_no_refusal(observer: Observer) -> None:
    creation = observer.timelines["one"].creation
    observer.refused(creation, Sign(3.0, "api", "create", "no answer in time"), 0)
    assert observer.settled
    observer.take("vmis", "ADDED", vmi("Scheduling"), 4.0)
    assert not observer.settled
    assert creation.refusal is None
    observer.refused(creation, Sign(5.0, "api", "create", "server error"), 503)
    assert not observer.settled


def test_a_refusal_for_good_stays_one(observer: Observer) -> None:
    creation = observer.timelines["one"].creation
    observer.refused(creation, Sign(3.0, "api", "create", "denied"), 403)
    assert observer.settled
    assert creation.refusal_code == 403


def test_what_a_lost_watch_tells_late_takes_the_servers_stamp(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling", stamps={"Scheduling": 1}), 1.2)
    observer.resumed("vmis", 2.0, 100.0)
    late = vmi("Scheduled", stamps={"Scheduling": 1, "Scheduled": 30})
    observer.take("vmis", "MODIFIED", late, 100.1)
    live = vmi("Running", stamps={"Scheduling": 1, "Scheduled": 30, "Running": 150})
    observer.take("vmis", "MODIFIED", live, 150.3)
    timeline = observer.timelines["one"]
    assert timeline.phases["Scheduled"] == pytest.approx(30.2)
    assert timeline.bounds == {"Scheduled": (2.0, 100.1)}
    assert timeline.phases["Running"] == 150.3


def test_an_event_told_again_is_not_seen_anew(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    event = warning(
        "u1", "FailedCreate", lastTimestamp=stamp(2), metadata={"name": "e", "uid": "e1"}
    )
    observer.take("events", "ADDED", event, 2.0)
    observer.take_list("events", [event], 300.0, 0.0)
    (sign,) = observer.timelines["one"].signs
    assert (sign.at, sign.count) == (2.0, 1)


def test_the_end_of_a_pod_that_was_replaced_is_not_the_end_of_the_new_one(
    observer: Observer,
) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    observer.take("pods", "ADDED", pod(uid="p1", phase="Failed"), 2.0)
    observer.take("pods", "ADDED", pod(uid="p2"), 3.0)
    assert observer.present == 3
    observer.take("pods", "DELETED", pod(uid="p1"), 4.0)
    assert observer.present == 2
    assert observer.timelines["one"].pod.gone is None


def test_a_list_without_a_pod_that_was_replaced_keeps_the_new_one(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Scheduling"), 1.0)
    observer.take("pods", "ADDED", pod(uid="p1", phase="Failed"), 2.0)
    observer.take("pods", "ADDED", pod(uid="p2"), 3.0)
    observer.take_list("pods", [pod(uid="p2")], 4.0, 3.0)
    assert observer.present == 2
    assert observer.timelines["one"].pod.gone is None
    observer.take_list("pods", [], 5.0, 4.0)
    assert observer.present == 1
    assert observer.timelines["one"].pod.gone == 5.0


def test_what_is_told_late_of_the_pod_of_a_replaced_vmi_says_nothing_of_the_new_one() -> None:
    observer = Observer()
    observer.expect(Creation("vm", 0.0, 0.0, 0.1, is_owner=True))
    owner: Json = {"ownerReferences": [{"name": "vm"}]}
    old = pod(uid="p1", owner="u1", node="n", **container(running={}))
    observer.take("vmis", "ADDED", vmi("Scheduling", uid="u1", **owner), 1.0)
    observer.take("pods", "ADDED", old, 2.0)
    observer.take("vmis", "MODIFIED", vmi("Failed", uid="u1", **owner), 3.0)
    observer.take("vmis", "DELETED", vmi("Failed", uid="u1", **owner), 4.0)
    observer.take("vmis", "ADDED", vmi("Scheduling", uid="u2", **owner), 5.0)
    observer.take("pods", "MODIFIED", old, 6.0)
    observer.take("events", "ADDED", warning("p1", "FailedKillPod", "KillPodSandboxError"), 6.0)
    (timeline,) = observer.timelines.values()
    assert (timeline.uid, timeline.restarts, timeline.pod.uid, timeline.signs) == ("u2", 1, "", [])
    observer.take("pods", "ADDED", pod(uid="p2", owner="u2"), 7.0)
    assert timeline.pod.uid == "p2"
    observer.take("pods", "DELETED", old, 8.0)
    assert dict(observer.there("pods")) == {"p2": "virt-launcher-one-x"}


def test_a_deletion_asked_for_at_the_clocks_zero_is_measured(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running"), -1.0)
    observer.end_level(0.0)
    observer.delete_asked(0.0)
    observer.take("vmis", "DELETED", vmi("Running"), 3.0)
    assert figures(observer).deletion["max"] == 3.0


def test_a_stranger_that_is_not_listed_is_gone(observer: Observer) -> None:
    observer.take("vmis", "ADDED", vmi("Running", uid="u9", name="theirs"), 1.0)
    assert observer.strangers == {"u9": "theirs"}
    observer.take_list("vmis", [], 2.0, 1.0)
    assert observer.strangers == {}
