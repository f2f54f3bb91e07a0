"""The cards of the farm as rows: what each may do is decided here, so that any machine can drain one; their workers obey within a beat.

    ready -> hot -> ready                 by its temperature, with a gap between the two thresholds
    ready | hot -> drained -> ready       by hand
    any -> quarantined -> ready           by its worker; back by hand alone
    ready | hot -> gone -> ready          by its host's bus; back when a worker finds it again

Knows no runtime, no bus and no process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from farm.db.models import Card, CardSample, CardState
from farm.db.session import db_now
from farm.errors import BadInput
from farm.farm import Farm
from farm.jobs.tables import table_of
from farm.jobs.upsert import insert_for

CARDS, SAMPLES = table_of(Card), table_of(CardSample)
SILENT_SECONDS = 15.0
"""A worker that was not heard for longer, and for five beats, is taken for dead."""
RESUMABLE = (CardState.HOT, CardState.DRAINED, CardState.QUARANTINED)


@dataclass(frozen=True, slots=True)
class CardStatus:
    """One card as its row has it. Times are seconds since the epoch by the database's clock."""

    host: str
    bdf: str
    serial: str | None
    shell: str | None
    state: str
    reason: str | None
    changed_at: float
    #: the node that drives it, None where none was heard lately
    worker: str | None
    engine: str | None
    celsius: float | None
    watts: float | None
    sampled_at: float | None
    canary_at: float | None
    crops_done: int
    losses: int


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker says of its card since it said so last."""

    worker: str
    #: crops scored since the last beat
    crops: int = 0
    #: times that the card's process was lost since the last beat
    losses: int = 0
    #: seconds since the golden pictures were answered rightly; None: never, or the engine has none
    canary_age_seconds: float | None = None


def enlist(farm: Farm, host: str, bdf: str, *, worker: str, engine: str) -> int:
    """The id of this card's row, made at its first worker's start; a card that was gone is ready again."""
    with farm.write() as connection:
        made = insert_for(connection.dialect.name, Card).values(
            host=host, bdf=bdf, state=CardState.READY, changed_at=db_now(), crops_done=0, losses=0
        )
        connection.execute(made.on_conflict_do_nothing())
        here = (CARDS.c.host == host, CARDS.c.bdf == bdf)
        card_id = connection.execute(select(CARDS.c.id).where(*here)).scalar_one()
        connection.execute(update(CARDS).where(*here).values(worker=worker, engine=engine, seen_at=db_now()))
        _move(connection, card_id, CardState.READY, None, of=(CardState.GONE,))
    return int(card_id)


def beat(farm: Farm, card_id: int, said: Beat) -> CardState:
    """Note that the card's worker lives and what it did; what the card may do now."""
    values: dict[str, Any] = {
        "worker": said.worker,
        "seen_at": db_now(),
        "crops_done": CARDS.c.crops_done + said.crops,
        "losses": CARDS.c.losses + said.losses,
    }
    if said.canary_age_seconds is not None:
        values["canary_at"] = db_now() - said.canary_age_seconds
    with farm.write() as connection:
        told = update(CARDS).where(CARDS.c.id == card_id).values(**values).returning(CARDS.c.state)
        return CardState(connection.execute(told).scalar_one())


def leave(farm: Farm, card_id: int, worker: str) -> None:
    """Note that the card's worker ended, unless another has come already."""
    with farm.write() as connection:
        mine = (CARDS.c.id == card_id, CARDS.c.worker == worker)
        connection.execute(update(CARDS).where(*mine).values(worker=None))


def describe(farm: Farm, card_id: int, serial: str | None, shell: str | None) -> None:
    """Note what the card says of itself."""
    with farm.write() as connection:
        connection.execute(update(CARDS).where(CARDS.c.id == card_id).values(serial=serial, shell=shell))


def sample(farm: Farm, card_id: int, celsius: float | None, watts: float | None) -> None:
    """Store what its sensors say, drop samples that are too old, and drain or resume the card by its temperature."""
    chosen, read = farm.settings, {"celsius": celsius, "watts": watts}
    with farm.write() as connection:
        connection.execute(insert(SAMPLES).values(card_id=card_id, sampled_at=db_now(), **read))
        old = SAMPLES.c.sampled_at < db_now() - chosen.card_samples_kept_seconds
        connection.execute(delete(SAMPLES).where(SAMPLES.c.card_id == card_id, old))
        connection.execute(update(CARDS).where(CARDS.c.id == card_id).values(sampled_at=db_now(), **read))
        if celsius is not None and celsius >= chosen.card_drain_celsius:
            why = (
                f"{celsius:g} C is at or above {chosen.card_drain_celsius:g} C (FARM_CARD_DRAIN_CELSIUS); it works again at "
                f"{chosen.card_resume_celsius:g} C. Look at the server's fans and air flow"
            )
            _move(connection, card_id, CardState.HOT, why, of=(CardState.READY,))
        elif celsius is not None and celsius <= chosen.card_resume_celsius:
            _move(connection, card_id, CardState.READY, None, of=(CardState.HOT,))


def quarantine(farm: Farm, card_id: int, why: str) -> None:
    """Let the card take no work until somebody resumes it."""
    with farm.write() as connection:
        _move(connection, card_id, CardState.QUARANTINED, why, of=tuple(CardState))


def mark_gone(farm: Farm, host: str, bdf: str, why: str) -> None:
    """Note that the card left its host's bus. One that may not work stays so, whatever bus it comes back to."""
    with farm.write() as connection:
        row = connection.execute(select(CARDS.c.id).where(CARDS.c.host == host, CARDS.c.bdf == bdf)).one_or_none()
        if row is not None:
            _move(connection, row.id, CardState.GONE, why, of=(CardState.READY, CardState.HOT))


def drain(farm: Farm, named: str, why: str) -> CardStatus:
    """Let the card take no new work; what its worker holds it finishes. Raises BadInput where `named` is not one card.

    A quarantined card stays so: its reason must not be lost.
    """
    return _told(farm, named, CardState.DRAINED, why, of=(CardState.READY, CardState.HOT, CardState.GONE))


def resume(farm: Farm, named: str) -> CardStatus:
    """Let the card take work again; its worker opens one that was quarantined anew. Raises BadInput where `named` is not one card."""
    return _told(farm, named, CardState.READY, None, of=RESUMABLE)


def list_cards(farm: Farm, host: str = "") -> list[CardStatus]:
    """Every card, or those of one host, by host and address."""
    query = select(CARDS, db_now().label("now")).order_by(CARDS.c.host, CARDS.c.bdf)
    if host:
        query = query.where(CARDS.c.host == host)
    with farm.read() as connection:
        return [_status(row, farm.settings.card_beat_seconds) for row in connection.execute(query)]


def _told(farm: Farm, named: str, state: CardState, why: str | None, of: Iterable[CardState]) -> CardStatus:
    with farm.write() as connection:
        card_id = _find(connection, named)
        _move(connection, card_id, state, why, of=of)
        row = connection.execute(select(CARDS, db_now().label("now")).where(CARDS.c.id == card_id)).one()
    return _status(row, farm.settings.card_beat_seconds)


def _find(connection: Connection, named: str) -> int:
    """The id of the one card that `named` means: an address, HOST/ADDRESS, or a serial number."""
    host, _, bdf = named.rpartition("/")
    columns = (CARDS.c.id, CARDS.c.host, CARDS.c.bdf)
    every = connection.execute(select(*columns, CARDS.c.serial).order_by(CARDS.c.host, CARDS.c.bdf)).all()
    wanted = {bdf, f"0000:{bdf}"}
    found = [row for row in every if (row.bdf in wanted and host in ("", row.host)) or row.serial == named]
    if len(found) == 1:
        return int(found[0].id)
    known = (
        ", ".join(f"{row.host}/{row.bdf}" for row in (found or every))
        or "none; a card is listed once its worker started"
    )
    why = f"{len(found)} cards are called {named}" if found else f"no card is called {named}"
    raise BadInput(f"{why}: name one as HOST/ADDRESS or by its serial number; known: {known}")


def _move(connection: Connection, card_id: int, state: CardState, why: str | None, *, of: Iterable[CardState]) -> None:
    """Change the card's state if it is one of these, and another."""
    old = [each for each in of if each is not state]
    moved = update(CARDS).where(CARDS.c.id == card_id, CARDS.c.state.in_(old))
    connection.execute(moved.values(state=state, reason=why, changed_at=db_now()))


def _status(row: Row[Any], beat_seconds: float) -> CardStatus:
    values = row._asdict()
    now, seen, _ = values.pop("now"), values.pop("seen_at"), values.pop("id")
    alive = seen is not None and now - seen <= max(SILENT_SECONDS, 5 * beat_seconds)
    return CardStatus(**{**values, "worker": values["worker"] if alive else None})
