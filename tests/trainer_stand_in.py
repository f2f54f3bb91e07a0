"""A stand-in for `trainer` that speaks its protocol in milliseconds: for tests of what the farm does around it, never of training.

`write_stand_in(folder, card)` makes a package that goes before the real one on PYTHONPATH, and a torch that every worker may ask for its
device at no cost; whether the real one says no is asked in test_train_command.py.
"""

from __future__ import annotations

from pathlib import Path

SOURCE = r"""
import hashlib, json, pathlib, signal, sys, time, tomllib

def tell(**event):
    print(json.dumps(event), flush=True)

def train(config, run):
    wanted = tomllib.loads(pathlib.Path(config).read_text())
    unknown = set(wanted) - {"epochs", "seconds", "data", "fails_at", "run"}
    if unknown:
        print(f"trainer: the config has an unknown key {min(unknown)!r}", file=sys.stderr)
        raise SystemExit(1)
    for data in wanted["data"]:
        assert pathlib.Path(data["manifest"]).read_bytes() == b"rows", data
        assert pathlib.Path(data["manifest"]).parent.name == "faces", data
    if start := wanted.get("run", {}).get("start_from"):
        card = json.loads(pathlib.Path(start).read_text())
        weights = pathlib.Path(start).with_name(card["weights"]).read_bytes()
        assert hashlib.sha256(weights).hexdigest() == card["sha256"], start
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    last, epochs = pathlib.Path(run, "last.pt"), wanted["epochs"]
    first = int(last.read_text().split()[0]) if last.exists() else 0
    tell(event="begin", epoch=first, epochs=epochs, images=10 * first)
    for epoch in range(first + 1, epochs + 1):
        until = time.monotonic() + wanted["seconds"]
        while time.monotonic() < until and not stop:
            time.sleep(0.01)
        if stop:
            return tell(event="stopped", epoch=epoch - 1, epochs=epochs, images=10 * (epoch - 1))
        if epoch == wanted.get("fails_at"):
            print("trainer: the loss is no number any more\nlower the learning rate", file=sys.stderr)
            raise SystemExit(1)
        tell(event="epoch", epoch=epoch, epochs=epochs, images=10 * epoch, loss=1.0 / epoch, begun_at=first, started=bool(start))
        for name in ("last.pt", "best.pt"):
            part = pathlib.Path(run, name + ".part")
            part.write_text(f"{epoch} {name}")
            part.replace(pathlib.Path(run, name))
            tell(event="checkpoint", epoch=epoch, epochs=epochs, file=str(pathlib.Path(run, name)))
    tell(event="done", epoch=epochs, epochs=epochs, images=10 * epochs)

def export(run, config, out, report):
    data = tomllib.loads(pathlib.Path(config).read_text())["data"]
    assert all(pathlib.Path(each["manifest"]).read_bytes() == b"rows" for each in data), data
    out, report = pathlib.Path(out), pathlib.Path(report, "set")
    report.mkdir(parents=True)
    (report / "evaluation.json").write_text(json.dumps({"auc": 0.5}))
    out.mkdir()
    weights = pathlib.Path(run, "best.pt").read_bytes()
    (out / "net.onnx").write_bytes(weights)
    card = json.loads(pathlib.Path(__file__).with_name("card.json").read_text())
    card["sha256"] = hashlib.sha256(weights).hexdigest()
    (out / "net.json").write_text(json.dumps(card))

def main():
    verb, *rest = sys.argv[1:]
    if verb == "train":
        train(rest[0], rest[rest.index("--run") + 1])
    else:
        assert verb == "export"
        export(rest[0], *(rest[rest.index(option) + 1] for option in ("--config", "--out", "--report")))
"""


def write_stand_in(folder: Path, card: str) -> Path:
    """Write the package below this folder; the folder, for PYTHONPATH. `card` is what export gives, but for its weights."""
    package = folder / "trainer" / "cli"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text(SOURCE)
    (package / "card.json").write_text(card)
    (folder / "torch.py").write_text("def empty(size, device): ...\n")
    return folder
