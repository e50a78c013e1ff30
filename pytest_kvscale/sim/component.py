"""A component of the cluster over its lives: it can be killed and started anew.

Controllers begin with nothing but what they list. A kubelet and a virt-handler find on their node
what they have begun there, and go on; so does virt-operator with the roll-out it was at.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_kvscale.sim.metrics.account import Account
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.process import Process


class Component:
    """One component; `make` sets its players up in a new process.

    `forgets` says whether a new life begins with nothing.
    """

    def __init__(
        self,
        team: Team,
        name: str,
        make: Callable[[Component], None],
        account: Account,
        pace: Callable[[str], float],
        node: str = "",
        forgets: bool = True,
    ) -> None:
        self._team = team
        self._make = make
        self._pace = pace
        self._forgets = forgets
        self.name = name
        self.node = node
        self.account = account
        self.process = self._start()

    def _start(self) -> Process:
        process = Process(self._team, self.name, self.node, self._pace)
        self.process = process
        self.account.queues = process.queues
        self._make(self)
        return process

    def kill(self) -> None:
        """End it."""
        if self._forgets:
            self.process.end()
        self.process.dead = True
        self.process.freeze()

    def revive(self) -> None:
        """Start it anew, with its counts at zero."""
        self.account.reset()
        if self._forgets:
            self._start()
            return
        self.process.dead = False
        self.process.thaw()
