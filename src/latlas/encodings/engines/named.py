"""From the name of an engine to an engine."""

from latlas.base.errors import SettingError, unknown_name
from latlas.base.launch import check_processes, launched
from latlas.encodings.engines.engine import Engine, LocalEngine
from latlas.encodings.engines.processes import TorchEngine
from latlas.encodings.engines.ray_cluster import RayEngine

ENGINES = ("local", "torch", "ray")


def engine_named(name: str, *, address: str | None = None, devices: int | None = None) -> Engine:
    """Return an engine.

    Args:
        name: one of ENGINES.
        address: of a Ray cluster; see `RayEngine`.
        devices: workers: processes of "torch" on this machine, actors of "ray". None: one; of Ray, as many as the cluster serves.

    Raises:
        UnknownNameError: no such engine.
        SettingError: an address or devices that this engine has no use for; nobody answers at the address; the local engine in
            each of several processes, where all would do the same work.
        MissingExtraError: Ray is not installed.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    if address is not None and name != "ray":
        raise SettingError(f"The {name} engine has no address: leave --address out, or take --engine ray.")
    if name == "ray":
        return RayEngine(address, devices)
    launch = launched()
    if name == "torch":
        if launch is not None and devices is not None:
            check_processes(devices, max(1, launch.world // max(devices, 1)))
        return TorchEngine(1 if devices is None else devices)
    if launch is not None:
        raise SettingError(
            f"The local engine is one process, and {launch.launcher} started {launch.world}, each of which would do all of the work: "
            "take --engine torch, or start the command once."
        )
    if devices not in (None, 1):
        raise SettingError(
            f"The local engine is this process alone, and {devices} devices were asked for: take --engine torch."
        )
    return LocalEngine()
