"""How long the embedded API takes for a request."""

from __future__ import annotations

from collections.abc import Callable

from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.profile import ApiTimes
from pytest_kvscale.sim.resources import VMIRS, VMIS, VMS

_NAMED_BY_RUN = ("namespaces", "configmaps")
BEHIND_WEBHOOKS = tuple(each.plural for each in (VMS, VMIRS, VMIS))


class Latency:
    """Seconds per request, drawn around the profile's values.

    Every draw is its own, keyed by what is asked for which object: two requests never end at
    the same moment, so which comes first does not depend on the order they arrived in.
    """

    def __init__(
        self, times: ApiTimes, draws: Draws, pace: Callable[[str], float] = lambda _: 1.0
    ) -> None:
        self._times = times
        self._pace = pace
        self._draws = draws

    def of(self, verb: str, plural: str, name: str, caller: str = "") -> float:
        """Seconds this request takes."""
        times = self._times
        base = times.read if verb in ("get", "list", "watch") else times.write
        base *= self._pace("kube-apiserver")
        if verb == "create" and plural in BEHIND_WEBHOOKS:
            base += times.webhooks * self._pace("virt-api")
        # A run's namespace and its notes have another name every time, and must take the same time.
        key = (caller, verb, plural, "" if plural in _NAMED_BY_RUN else name)
        nth = self._draws.nth("request", *key)
        return base * self._draws.spread(times.spread, "latency", *key, nth)
