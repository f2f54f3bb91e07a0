"""OpenStack Swift with its S3 API on loopback: proxy, account, container and object server from the wheel, in one process.

Run as `python swift_server.py FOLDER`; prints the S3 endpoint's port once it answers, ends when its standard input closes.
Needs no rsync, memcached, /etc/swift or system user. Key id `farm:farm`, secret `farm-secret`.
"""

import eventlet

eventlet.monkey_patch(all=False, socket=True, select=True, thread=True)

import os  # noqa: E402  eventlet has to patch first
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from eventlet import wsgi  # noqa: E402

SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = farm
swift_hash_path_prefix = farm

[storage-policy:0]
name = only
default = yes
"""

COMMON = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
log_address = {folder}/no-syslog
log_level = ERROR
fallocate_reserve = 0
disable_fallocate = true
"""

BACKEND = (
    COMMON
    + """
[app:main]
use = egg:swift#{app}
auto_create_account_prefix = .
"""
)

PROXY = (
    COMMON
    + """
[pipeline:main]
pipeline = catch_errors gatekeeper bulk s3api tempauth slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
conn_timeout = 5
node_timeout = 30

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:bulk]
use = egg:swift#bulk

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
check_bucket_owner = false
allow_multipart_uploads = true

[filter:tempauth]
use = egg:swift#tempauth
user_farm_farm = farm-secret .admin

[filter:slo]
use = egg:swift#slo
"""
)


class OneConditionalPutAtATime:
    """Makes `If-None-Match: *` as strict as AWS S3 documents it.

    Swift's object server looks for the object first and renames later, so two racers may both get 201; here the second waits.
    """

    def __init__(self, app):
        self.app = app
        self.locks = {}

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] != "PUT" or environ.get("HTTP_IF_NONE_MATCH") != "*":
            return self.app(environ, start_response)
        lock = self.locks.setdefault(environ["PATH_INFO"], eventlet.semaphore.Semaphore())
        with lock:
            return list(self.app(environ, start_response))


def write_rings(folder: Path, ports: dict[str, int]) -> None:
    """One device, one replica, for each of the three storage servers."""
    from swift.common.ring import RingBuilder

    for kind, port in ports.items():
        builder = RingBuilder(part_power=2, replicas=1, min_part_hours=0)
        device = {"region": 1, "zone": 1, "weight": 1.0, "device": "d1", "meta": "", "ip": "127.0.0.1", "port": port}
        builder.add_dev({**device, "replication_ip": "127.0.0.1", "replication_port": port})
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{kind}.ring.gz"))


def keeps_attributes(folder: Path) -> bool:
    """Whether the file system stores user.* attributes, where Swift's object server keeps its metadata."""
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.swift.metadata", b"x" * 2000)
    except OSError:
        return False
    return True


def serve(folder: Path) -> None:
    """Start the four servers in green threads of this process; returns when standard input closes."""
    from swift.common import storage_policy, utils
    from swift.common.wsgi import SwiftHttpProtocol, loadapp

    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(SWIFT_CONF)
    utils.set_swift_dir(str(folder))
    storage_policy.reload_storage_policies()

    kinds = ("account", "container", "object", "proxy")
    sockets = {kind: eventlet.listen(("127.0.0.1", 0), backlog=256) for kind in kinds}
    ports = {kind: listener.getsockname()[1] for kind, listener in sockets.items()}
    write_rings(folder, {kind: ports[kind] for kind in kinds[:3]})
    apps = {"object": "object" if keeps_attributes(folder) else "mem_object"}
    for kind in kinds:
        conf = folder / f"{kind}.conf"
        text = PROXY if kind == "proxy" else BACKEND
        conf.write_text(text.format(folder=folder, app=apps.get(kind, kind)))
        app = loadapp(str(conf), global_conf={"log_name": kind})
        if kind == "proxy":
            app = OneConditionalPutAtATime(app)
        eventlet.spawn(
            wsgi.server,
            sockets[kind],
            app,
            utils.NullLogger(),
            protocol=SwiftHttpProtocol,
            capitalize_response_headers=False,
        )
    sys.stdout.write(f"{ports['proxy']}\n")
    sys.stdout.flush()
    eventlet.tpool.execute(sys.stdin.read)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
