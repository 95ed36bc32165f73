"""A Ray cluster, or Ray on this machine."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rcnn_keras.parallel.processes import AHEAD, ATTEMPTS, ENVIRONMENT, Outcome, outcome


class Ray:
    """An engine of Ray tasks, one a shard; a task whose worker dies is begun again.

    Workers on other machines need this package, the images under the same paths, and a file system
    for the results that all share.

    Args:
        workers: max_tasks shards in work at a time; by default one for each core of the cluster.
        address: of a cluster, "auto" for the one that this machine belongs to; "local" starts Ray
            here and ends it with the work. A program that has called `ray.init` itself keeps what
            it started.

    Raises:
        ImportError: Ray is not installed; says how to get it.
        ValueError: `workers` is below 1.
    """

    def __init__(self, workers: int | None = None, address: str = "local"):
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers!r}")
        _ray()
        self.workers, self.address = workers, address

    def __repr__(self) -> str:
        return f"Ray({self.workers}, {self.address!r})"

    def outcomes(
        self, work: Callable[[Any], Any], shards: Iterable[Any]
    ) -> Iterator[tuple[Any, Outcome]]:
        """Give each shard with its outcome, as they come; see `run_shards`."""
        ray = _ray()
        is_ours = not ray.is_initialized()
        if is_ours:
            self._connect(ray)
        try:
            task = ray.remote(
                num_cpus=1, max_retries=ATTEMPTS - 1, runtime_env={"env_vars": ENVIRONMENT}
            )(outcome)
            held = ray.put(work)  # once, and not with each shard
            max_tasks = self.workers or AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            running: dict[Any, Any] = {}
            for shard in shards:
                running[task.remote(held, shard)] = shard
                if len(running) >= max_tasks:
                    yield from _finished(ray, running)
            while running:
                yield from _finished(ray, running)
        finally:
            if is_ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        options = {"include_dashboard": False} if self.address == "local" else {}
        ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **options)


def _finished(ray: Any, running: dict[Any, Any]) -> Iterator[tuple[Any, Outcome]]:
    """Wait until a task is done, and give what is finished then."""
    done, _ = ray.wait(list(running), num_returns=1)
    for reference in done:
        shard = running.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError:  # the worker could not even begin, for want of a module
            raise
        except ray.exceptions.RayError as error:
            raise ChildProcessError(
                f"{ATTEMPTS} workers died one after the other at the same shard: {error}"
            ) from error
        yield shard, result


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("the engine ray needs Ray: pip install 'rcnn-keras[cluster]'") from error
    return ray
