"""The engine `ray`: actors on a Ray cluster, which Ray places, starts again when they die, and gives their work to anew."""

import os
import socket
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import count as counting
from typing import Any

from latlas.base.errors import EngineError, MissingExtraError, SettingError
from latlas.encodings.engines.engine import Engine, Item, Result

_REACHED_WITHIN = 5.0  # seconds
# Ray speaks gRPC, which is HTTP/2: both sides begin with a frame of settings (RFC 9113, section 3.4), type 4 in its fourth byte.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = b"\x04"
_STORE = 256 * 2**20  # bytes of shared memory, of a cluster that is started here: results are small, and images no part of them
_RETRIES = 2  # of one item: with the first try, as often as a pool of processes tries

_numbers = counting()  # tell apart the functions that actors are given


@dataclass(frozen=True, eq=False)
class RayEngine(Engine):
    """Work on a Ray cluster. Every machine of it needs latlas, and the images and models under the same paths.

    Args:
        address: HOST:PORT of a running cluster, `ray://HOST:PORT` from outside of it, or "auto" on one of its machines; None
            starts one on this machine, which ends with the program. Where the program is connected to a cluster already, to any,
            that one serves.
        devices: actors; None for one on each GPU of the cluster, or where it has none, on each core.
        gpus: of each actor; None for 1 where the cluster has any.

    Raises:
        MissingExtraError: Ray is not installed.
        SettingError: fewer than 1 device, an address that is none, or nobody answers there.
    """

    address: str | None = None
    devices: int | None = None
    gpus: float | None = None
    name: str = "ray"
    _idle: list[Any] = field(default_factory=list, init=False, repr=False)  # actors, kept from call to call

    def __post_init__(self) -> None:
        if self.devices is not None and self.devices < 1:
            raise SettingError(f"An engine needs at least 1 device, got {self.devices}.")
        _ray()
        if self.address is not None and self.address != "auto":
            _reach(self.address)

    @property
    def threads(self) -> int:
        """An actor asks the cluster for one core."""
        return 1

    @property
    def cores(self) -> int:
        """Or for a GPU: how many cores are free beside it, the cluster alone knows."""
        return 1

    @property
    def several(self) -> bool:
        """Actors are placed wherever there is room."""
        return True

    def results(
        self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield results as actors finish them."""
        ray = _ray()
        self._connect(ray)
        held, number = ray.put(make), next(_numbers)  # once for all actors of a machine; held here until they are done
        left = iter(enumerate(items))
        promised: dict[Any, tuple[int, Any]] = {}
        for actor, (place, item) in zip(self._actors(ray, len(items)), left, strict=False):  # an item more would be lost
            promised[actor.work.remote(number, [held], item)] = place, actor
        while promised:
            (first, *_), _ = ray.wait(list(promised), num_returns=1)
            place, actor = promised.pop(first)
            result = _result(ray, first, items[place])
            following = next(left, None)
            if following is None:
                self._idle.append(actor)
            else:
                promised[actor.work.remote(number, [held], following[1])] = following[0], actor
            yield place, result

    def _connect(self, ray: Any) -> None:
        if ray.is_initialized():
            return
        settings: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        if self.address is None:
            settings |= {"num_cpus": self.devices or os.cpu_count(), "include_dashboard": False, "object_store_memory": _STORE}
        try:
            ray.init(address=self.address or "local", **settings)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as failure:
            where = "on this machine" if self.address in (None, "auto") else f"at {self.address}"
            raise SettingError(
                f"No Ray cluster can be used {where} ({_line(failure)}). Start one: ray start --head."
            ) from failure

    def _actors(self, ray: Any, most: int) -> list[Any]:
        cluster = ray.cluster_resources()
        gpus = self.gpus if self.gpus is not None else float(cluster.get("GPU", 0) > 0)
        # No more than find a place: the items of the others would wait for ever.
        free = max(1, int(cluster.get("GPU", 0) / gpus) if gpus else int(cluster.get("CPU", 1)))
        actor = ray.remote(num_cpus=0 if gpus else 1, num_gpus=gpus, max_restarts=-1, max_task_retries=_RETRIES)(_Actor)
        count = min(self.devices or free, free, most)
        return [self._idle.pop() if self._idle else actor.remote() for _ in range(count)]


class _Actor:
    """A worker: makes its function when it first hears of it, and again when Ray has started it again."""

    def __init__(self) -> None:
        self.number = -1
        self.function: Callable[[Any], Any] | None = None

    def work(self, number: int, held: list[Any], item: Any) -> Any:
        if self.function is None or number != self.number:
            import ray

            self.function = None  # what came before may be large
            self.function = ray.get(held[0])()
            self.number = number
        return self.function(item)


def _result(ray: Any, promise: Any, item: Any) -> Any:
    try:
        return ray.get(promise)
    except ray.exceptions.RayTaskError as failure:
        raise failure.cause from failure
    except ray.exceptions.RayActorError as ended:
        raise EngineError(
            f"A Ray actor ended {_RETRIES + 1} times while it worked on {item!r} ({_line(ended)}). Take fewer of them (--devices), "
            "or see Ray's logs."
        ) from ended


def _ray() -> Any:
    # Ray counts its uses unless this is said before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as failure:
        raise MissingExtraError("The engine ray needs a package that is not installed: pip install 'latlas[ray]'.") from failure
    return ray


def _reach(address: str) -> None:
    """Raise unless what listens at an address may be Ray: Ray itself would try for a minute, and more than once."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise SettingError(f"--address takes HOST:PORT, ray://HOST:PORT or auto, got {address!r}.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_WITHIN) as peer:
            peer.settimeout(_REACHED_WITHIN)
            peer.sendall(_GREETING)
            answer = peer.recv(9)
    except OSError as failure:
        raise SettingError(
            f"No Ray cluster answers at {address} ({failure.strerror or failure}). Start one there (ray start --head), or mend the address."
        ) from failure
    if answer[3:4] != _SETTINGS:
        raise SettingError(f"What answers at {address} is no Ray cluster. Give the address that `ray start --head` tells.")


def _line(failure: Exception) -> str:
    return str(failure).strip().split("\n", maxsplit=1)[0]
