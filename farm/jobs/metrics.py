"""What Prometheus may ask a farm: how its cards are, and how much work waits. Read from SQL at each scrape; SQL is the truth.

Names and units follow Prometheus' conventions: base units, counters end in _total.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from farm.db.models import CardState, CropBatchRow, ScanState, ScanVideo, TrainingJob, WorkState
from farm.errors import BadInput, Retryable
from farm.farm import Farm
from farm.jobs.cards import CardStatus, list_cards
from farm.jobs.tables import SCANS, table_of
from farm.queue import SPLIT_QUEUE, TRAIN_QUEUE, infer_queue

if TYPE_CHECKING:
    from prometheus_client import Metric

log = logging.getLogger(__name__)
LABELS = ("host", "bdf", "serial")


class FarmCollector:
    """Cards of one host (all of them without one), and the rows that wait per queue."""

    def __init__(self, farm: Farm, host: str = "") -> None:
        self._farm = farm
        self._host = host

    def collect(self) -> Iterable[Metric]:
        """One scrape; where SQL is away, that alone."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("farm_sql_up", "Whether the farm's database answered.")
        try:
            families = [*card_families(list_cards(self._farm, self._host)), self._backlog()]
            up.add_metric([], 1)
        except Retryable as error:
            log.warning("a scrape found no SQL: %s", error)
            families = []
            up.add_metric([], 0)
        return [up, *families]

    def _backlog(self) -> Metric:
        """Rows that are ready or leased, per queue: what a scaler of workers wants to know."""
        from prometheus_client.core import GaugeMetricFamily

        rows = GaugeMetricFamily("farm_rows", "Rows of work that are not done.", labels=["queue", "state"])
        counts: dict[tuple[str, str], int] = {}
        open_states = (WorkState.READY, WorkState.LEASED)
        running = SCANS.c.state.in_((ScanState.SUBMITTING, ScanState.ACTIVE))
        with self._farm.read() as connection:
            for work in (ScanVideo, CropBatchRow):
                table = table_of(work)
                query = select(SCANS.c.engine, table.c.state, func.count()).join(SCANS, SCANS.c.id == table.c.scan_id)
                query = query.where(running, table.c.state.in_(open_states)).group_by(SCANS.c.engine, table.c.state)
                for engine, state, count in connection.execute(query):
                    queue = SPLIT_QUEUE if work is ScanVideo else infer_queue(engine)
                    counts[queue, state] = counts.get((queue, state), 0) + count
            jobs = table_of(TrainingJob)
            of_jobs = select(jobs.c.state, func.count()).where(jobs.c.state.in_(open_states)).group_by(jobs.c.state)
            counts |= {(TRAIN_QUEUE, state): count for state, count in connection.execute(of_jobs)}
        for (queue, state), count in sorted(counts.items()):
            rows.add_metric([queue, state], count)
        return rows


def card_families(cards: list[CardStatus]) -> list[Metric]:
    """The cards' figures; what a card does not tell is left out."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    gauges = {
        "celsius": GaugeMetricFamily("farm_card_temperature_celsius", "Hottest sensor of the card.", labels=LABELS),
        "watts": GaugeMetricFamily("farm_card_power_watts", "Power of the whole card.", labels=LABELS),
        "canary_at": GaugeMetricFamily(
            "farm_card_canary_timestamp_seconds", "When the golden pictures were last answered rightly.", labels=LABELS
        ),
    }
    state = GaugeMetricFamily("farm_card_state", "1 for the state that the card is in.", labels=[*LABELS, "state"])
    worker = GaugeMetricFamily("farm_card_worker_up", "Whether a worker that drives the card was heard.", labels=LABELS)
    crops = CounterMetricFamily("farm_card_crops", "Crops that the card scored.", labels=LABELS)
    losses = CounterMetricFamily("farm_card_losses", "Times that the card's process died or hung.", labels=LABELS)
    for card in cards:
        labels = [card.host, card.bdf, card.serial or ""]
        for name, family in gauges.items():
            value = getattr(card, name)
            if value is not None:
                family.add_metric(labels, value)
        for each in CardState:
            state.add_metric([*labels, each.value], float(card.state == each))
        worker.add_metric(labels, float(card.worker is not None))
        crops.add_metric(labels, card.crops_done)
        losses.add_metric(labels, card.losses)
    return [*gauges.values(), state, worker, crops, losses]


def serve_metrics(farm: Farm, host: str = "") -> None:
    """Answer Prometheus on FARM_METRICS_PORT from a thread, for as long as this process lives; nothing where no port is set.

    Raises BadInput where the port cannot be had.
    """
    chosen = farm.settings
    if not chosen.metrics_port:
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(FarmCollector(farm, host))
    try:
        start_http_server(chosen.metrics_port, chosen.metrics_address, registry)
    except OSError as error:
        raise BadInput(
            f"the exporter cannot listen on {chosen.metrics_address}:{chosen.metrics_port} ({error.strerror}): "
            "set FARM_METRICS_PORT to a free port, 0 for none"
        ) from error
