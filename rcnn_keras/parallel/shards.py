"""The one way in which work on many shards runs, whatever the engine."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Protocol, TypeVar

from rcnn_keras.parallel.processes import Outcome, Processes
from rcnn_keras.parallel.ray import Ray

ENGINES = ("processes", "ray")

AnyShard = TypeVar("AnyShard")
AnyResult = TypeVar("AnyResult")


class Engine(Protocol):
    """Something that works on shards side by side."""

    def outcomes(
        self, work: Callable[[Any], Any], shards: Iterable[Any]
    ) -> Iterator[tuple[Any, Outcome]]:
        """Give each shard with its outcome, as they come."""
        ...


def run_shards(
    work: Callable[[AnyShard], AnyResult],
    shards: Iterable[AnyShard],
    engine: Engine | None = None,
) -> Iterator[tuple[AnyShard, AnyResult]]:
    """Work on shards side by side, and give each with its result, in the order they finish.

    What a worker writes must be an atomic write: one that is killed leaves its shard, which
    another begins again, and nothing else is lost.

    Args:
        work: from a shard to its result. A function of a module, a `functools.partial` of one or
            an object that pickle can take, as are its arguments and results.
        shards: taken up a few at a time, so that they may be made, or read, on the way.
        engine: by default one process for each core.

    Raises:
        Exception: what `work` raised; shards that are in work by then are given up.
        ChildProcessError: three workers died at the same shard.
    """
    with closing((engine or Processes()).outcomes(work, shards)) as outcomes:  # type: ignore[type-var]
        for shard, (result, error) in outcomes:
            if error is not None:
                error.add_note(f"at the shard {shard!r:.200}")
                raise error
            yield shard, result


def engine_named(name: str, workers: int | None = None, address: str | None = None) -> Engine:
    """Return an engine by its name, "processes" or "ray".

    Args:
        name: of `ENGINES`.
        workers: see the engine.
        address: of a Ray cluster.

    Raises:
        ValueError: for another name, or an address that the engine has no use for.
        ImportError: Ray is asked for and not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {list(ENGINES)}, not {name!r}")
    if name == "ray":
        return Ray(workers, address or "local")
    if address is not None:
        raise ValueError(f"address {address!r} is for the engine 'ray', not for {name!r}")
    return Processes(workers)
