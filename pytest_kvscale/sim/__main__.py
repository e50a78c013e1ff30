"""`python -m pytest_kvscale.sim`: the embedded cluster alone, at the wall's pace."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import node_profile, profile
from pytest_kvscale.sim.authentication import Gate, read_tokens
from pytest_kvscale.sim.clock import this_moment
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.tls import Authority


def main(arguments: list[str] | None = None) -> int:
    """Run until interrupted; returns the exit code. `profile` does something else: see there."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["profile"]:
        return node_profile.main(given[1:])
    parser = argparse.ArgumentParser(prog="python -m pytest_kvscale.sim", description=__doc__)
    parser.add_argument(
        "--profile", default="blog-2021", metavar="NAME|FILE",
        help=f"hardware, versions and times: a file or one of {', '.join(profile.names())}",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--port", type=int, default=0, help="port to serve on (0: any free one)")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="write a kubeconfig here")
    parser.add_argument(
        "--tls", action="store_true",
        help="serve HTTPS with a certificate made for this run; the kubeconfig trusts it",
    )  # fmt: skip
    parser.add_argument(
        "--tokens", type=Path, metavar="FILE",
        help="let in only those with a token of this CSV file: token,user,uid,\"group1,group2\" "
        "(with --tls also those with a certificate); the kubeconfig has the first one",
    )  # fmt: skip
    parser.add_argument(
        "--anonymous-auth", action="store_true",
        help="let in those without token and certificate as system:anonymous, who may do little",
    )  # fmt: skip
    parser.add_argument(
        "--max-requests-inflight", type=_count, metavar="N",
        help="reading requests worked on at a time, beyond them 429 (0: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--max-mutating-requests-inflight", type=_count, metavar="N",
        help="writing requests worked on at a time, beyond them 429 (0: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--api-only", action="store_true",
        help="serve the API alone: no node, no KubeVirt, no webhooks; objects stay as written",
    )  # fmt: skip
    options = parser.parse_args(given)
    try:
        chosen = _with_limits(profile.load(options.profile), options)
        gate = _gate(options)
    except ConfigurationError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 4
    return asyncio.run(_serve(chosen, gate, options))


def _gate(options: argparse.Namespace) -> Gate:
    return Gate(
        read_tokens(options.tokens) if options.tokens is not None else {},
        Authority() if options.tls else None,
        options.anonymous_auth,
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _with_limits(chosen: profile.Profile, options: argparse.Namespace) -> profile.Profile:
    """The profile with the limits that the command line sets."""
    names = ("max_requests_inflight", "max_mutating_requests_inflight")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return chosen.model_copy(update={"api": chosen.api.model_copy(update=given)})


async def _serve(chosen: profile.Profile, gate: Gate, options: argparse.Namespace) -> int:
    cluster = EmbeddedCluster(
        chosen, options.profile, options.seed, this_moment(), gate, options.api_only
    )
    try:
        url = await cluster.start(options.host, options.port)
    except OSError as problem:
        where = f"{options.host}:{options.port}"
        print(f"error: cannot serve on {where}: {problem.strerror}", file=sys.stderr)
        await cluster.stop()
        return 4
    if options.kubeconfig is not None:
        cluster.write_kubeconfig(options.kubeconfig)
    print(f"serving an embedded cluster (SIMULATED, {options.profile}) on {url}", flush=True)
    stop = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _finish, stop)
    failure = asyncio.ensure_future(_failed(cluster))
    await asyncio.wait((stop, failure), return_when=asyncio.FIRST_COMPLETED)
    broken = failure.exception() if failure.done() else None
    failure.cancel()
    await cluster.stop()
    if broken is not None:
        print(f"error: {broken}", file=sys.stderr)
        return 3
    return 0


def _finish(stop: asyncio.Future[None]) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        stop.set_result(None)


async def _failed(cluster: EmbeddedCluster) -> None:
    await asyncio.shield(cluster.team.failure)


if __name__ == "__main__":
    sys.exit(main())
