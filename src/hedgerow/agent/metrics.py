"""The agent's figures for Prometheus: computed when asked for, from what is there anyway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from .drops import Drop

if TYPE_CHECKING:
    from .http import Parts


def exposition(parts: Parts, drops: Sequence[Drop]) -> bytes:
    """Text, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Figures(parts, drops))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, parts: Parts, drops: Sequence[Drop]) -> None:
        self._parts = parts
        self._drops = drops

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily]:
        parts = self._parts
        labels = ["network", "reason"]
        packets = CounterMetricFamily(
            "hedgerow_dropped_packets", "Packets refused, by network and reason", labels=labels
        )
        size = CounterMetricFamily("hedgerow_dropped_bytes", "The same in bytes", labels=labels)
        for drop in self._drops:
            packets.add_metric([drop.network, drop.reason], drop.packets)
            size.add_metric([drop.network, drop.reason], drop.bytes)
        yield packets
        yield size
        yield GaugeMetricFamily("hedgerow_endpoints", "Endpoints of this host", len(parts.attachments.endpoints()))
        yield GaugeMetricFamily("hedgerow_addresses_taken", "Addresses taken", len(parts.attachments.reservations()))
        connected = float(parts.session.connected_to is not None)
        yield GaugeMetricFamily("hedgerow_controller_connected", "1 while a controller is connected", connected)
        yield GaugeMetricFamily("hedgerow_row_faults", "Kernel objects that are not as wanted", len(parts.loop.failed))
        yield CounterMetricFamily("hedgerow_rounds", "Rounds of the loop", parts.loop.rounds.generation)
        yield GaugeMetricFamily("hedgerow_connections", "Flows that rules let begin", parts.connections.count)
        cuts = CounterMetricFamily("hedgerow_cut_flows", "Flows that a change of the rules cut", labels=["rule"])
        for rule, count in parts.connections.cuts.items():
            cuts.add_metric([rule], count)
        yield cuts
        times = parts.attachments.times
        attach = SummaryMetricFamily("hedgerow_attach_seconds", "Attaching a container, agent side")
        attach.add_metric([], count_value=times.count, sum_value=times.sum_ms / 1e3)
        yield attach
        for name, share in (("median", 0.5), ("p99", 0.99)):
            seconds = times.quantile_ms(share) / 1e3
            yield GaugeMetricFamily(f"hedgerow_attach_{name}_seconds", f"Of the last {times.KEPT} attaches", seconds)
