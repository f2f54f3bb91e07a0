"""Flower on this farm's broker. Knows Flower's options; what workers send it is workers/tasks.py's business."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from farm.errors import BadInput

USER = "farm"


def serve(home: Path | None, address: str, port: int) -> None:
    """Run Flower until it is stopped.

    Raises BadInput for an address others can reach without FARM_FLOWER_PASSWORD, and where Flower is not installed or no Redis is named.
    """
    from farm.settings import settings

    password = settings().flower_password.get_secret_value()
    if not password and not is_loopback(address):
        raise BadInput(
            f"Flower on {address} can be reached by others: set FARM_FLOWER_PASSWORD, or leave --address at 127.0.0.1"
        )
    from farm.cli.options import home_of
    from farm.embedded import embedded_settings
    from farm.queue import make_app

    folder = home_of(home)
    redis_url = (settings() if folder is None else embedded_settings(folder)).redis_url
    if not redis_url:
        raise BadInput("no farm is configured: set FARM_REDIS_URL, or name a running embedded farm with --home")
    try:
        from flower import command  # noqa: F401  registers the command and its options
        from tornado.options import options
    except ImportError as error:
        raise BadInput(
            "Flower is not installed: in the checkout, pip install -c constraints.txt --no-build-isolation -e '.[flower]'"
        ) from error
    if password:
        # not on the command line, where every user of this machine could read it
        options.basic_auth = [f"{USER}:{password}"]
    arguments = [
        "flower",
        f"--address={address}",
        f"--port={port}",
        "--tasks_columns=name,args,state,result,received,runtime,worker",
    ]
    make_app(redis_url).start(arguments if password else [*arguments, "--read_only"])


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address; a name other than localhost is taken for public."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
