"""Medians, ratios and the verdict on each, as one table and as JSON."""

import json
import statistics
from dataclasses import dataclass, field

from .targets import judge

OURS = "ours"
COLUMNS = [
	("operation", "<"), ("bytes", ">"), ("clients", ">"), ("commit", "<"), ("against", "<"),
	("ours/s", ">"), ("peer/s", ">"), ("ratio", ">"), ("of the rounds", "<"),
	("WAL B", ">"), ("peer", ">"), ("+images", ">"), ("peer", ">"),
	("written%", ">"), ("HOT%", ">"), ("peer", ">"), ("size", ">"), ("peer", ">"),
	("p50/95/99 ms", ">"), ("peer", ">"), ("target", "<"),
]


def _percent(part, whole):
	return 100.0 * part / whole if whole else None


@dataclass
class Comparison:
	"""All samples of one operation at one size, number of clients and synchronous_commit.

	growth: for sides that ran long, bytes of table and indexes before and after, expired rows left.
	"""

	operation: str
	title: str
	size: int
	clients: int
	synchronous_commit: str
	samples: dict
	growth: dict = field(default_factory=dict)

	def rate(self, side):
		return statistics.median(sample.rate for sample in self.samples[side])

	def _sum(self, side, attribute):
		return sum(getattr(sample, attribute) for sample in self.samples[side])

	def wal_records(self, side):
		"""WAL bytes an operation, page images left out: the median of the runs."""
		return statistics.median(
			sample.wal_records / max(1, sample.operations) for sample in self.samples[side])

	def wal_total(self, side):
		"""WAL bytes an operation with page images, over all runs."""
		operations = max(1, self._sum(side, "operations"))
		return (self._sum(side, "wal_records") + self._sum(side, "wal_images")) / operations

	def hot_percent(self, side):
		return _percent(self._sum(side, "hot_updates"), self._sum(side, "updates"))

	def written_percent(self, side):
		return _percent(self._sum(side, "updates"), self._sum(side, "operations"))

	def growth_factor(self, side):
		sizes = self.growth.get(side)
		return sum(sizes["after"]) / sum(sizes["before"]) if sizes else None

	def latency(self, side, name):
		"""Milliseconds of an open loop, median of the runs; none where it was no open loop."""
		if not all(sample.latency for sample in self.samples[side]):
			return None
		return statistics.median(getattr(sample.latency, name) for sample in self.samples[side])

	def p99_pairs(self, peer):
		return [(ours.latency.p99, theirs.latency.p99)
				for ours, theirs in zip(self.samples[OURS], self.samples[peer])]

	def longest_wait(self):
		return max(sample.latency.longest_wait for sample in self.samples[OURS])

	def ratio(self, peer):
		return self.rate(OURS) / self.rate(peer)

	def round_ratios(self, peer):
		return [ours.rate / theirs.rate
				for ours, theirs in zip(self.samples[OURS], self.samples[peer])]

	def metrics(self, side):
		return {
			"rate": self.rate(side),
			"rates": [sample.rate for sample in self.samples[side]],
			"wal_bytes_per_operation": self.wal_records(side),
			"wal_bytes_per_operation_with_page_images": self.wal_total(side),
			"updates_percent_of_operations": self.written_percent(side),
			"hot_percent_of_updates": self.hot_percent(side),
			"table": self.growth.get(side),
			"growth": self.growth_factor(side),
			"latencies_ms": [vars(sample.latency) for sample in self.samples[side] if sample.latency],
		}


def _number(value, digits=0):
	return "-" if value is None else f"{value:,.{digits}f}"


def _wal(comparison, side):
	"""WAL bytes without and with page images; none for a side that is no table."""
	total = comparison.wal_total(side)
	return (_number(comparison.wal_records(side)), _number(total)) if total else ("-", "-")


def _latencies(comparison, side):
	if comparison.latency(side, "p99") is None:
		return "-"
	return "/".join(f"{comparison.latency(side, name):.2f}" for name in ("p50", "p95", "p99"))


def _row(comparison, peer, verdicts):
	rounds = comparison.round_ratios(peer)
	our_records, our_total = _wal(comparison, OURS)
	peer_records, peer_total = _wal(comparison, peer)
	return [
		comparison.title, str(comparison.size), str(comparison.clients),
		comparison.synchronous_commit, peer,
		_number(comparison.rate(OURS)), _number(comparison.rate(peer)),
		_number(comparison.ratio(peer), 2), f"{min(rounds):.2f} to {max(rounds):.2f}",
		our_records, peer_records, our_total, peer_total,
		_number(comparison.written_percent(OURS), 1), _number(comparison.hot_percent(OURS), 1),
		_number(comparison.hot_percent(peer), 1),
		_number(comparison.growth_factor(OURS), 2), _number(comparison.growth_factor(peer), 2),
		_latencies(comparison, OURS), _latencies(comparison, peer),
		"; ".join(verdict.text for verdict in verdicts),
	]


def _solo_row(comparison, side):
	records, total = _wal(comparison, side)
	return [
		comparison.title, str(comparison.size), str(comparison.clients),
		comparison.synchronous_commit, side, "-", _number(comparison.rate(side)), "-", "-", "-",
		records, "-", total, "-", "-",
		_number(comparison.hot_percent(side), 1), "-",
		_number(comparison.growth_factor(side), 2), "-", _latencies(comparison, side), "",
	]


class Report:
	"""Collects comparisons; prints the table and writes the JSON."""

	def __init__(self, facts):
		self.facts = facts
		self.comparisons = []

	def add(self, comparison):
		self.comparisons.append(comparison)

	def _rows(self):
		for comparison in self.comparisons:
			for side in comparison.samples:
				if OURS not in comparison.samples:
					yield _solo_row(comparison, side)
				elif side != OURS:
					yield _row(comparison, side, judge(comparison, side))

	def text(self):
		rows = [[title for title, _ in COLUMNS], *self._rows()]
		widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
		lines = [f"{name}: {value}" for name, value in self.facts.items()]
		lines.append("")
		lines += ["  ".join(f"{cell:{align}{width}}" for cell, (_, align), width
							in zip(row, COLUMNS, widths)).rstrip() for row in rows]
		missed = [f"{comparison.title}, {comparison.size} bytes, {comparison.clients} clients,"
				  f" synchronous_commit {comparison.synchronous_commit}, {peer}: {verdict.text}"
				  for comparison, peer, verdict in self._verdicts() if not verdict.ok]
		judged = sum(1 for _ in self._verdicts())
		if judged:
			lines += ["", f"{judged - len(missed)} of {judged} targets reached"]
		lines += [f"  missed: {line}" for line in missed]
		return "\n".join(lines) + "\n"

	def _verdicts(self):
		for comparison in self.comparisons:
			if OURS in comparison.samples:
				for peer in comparison.samples:
					for verdict in judge(comparison, peer):
						yield comparison, peer, verdict

	def write_json(self, path):
		document = {"facts": self.facts, "comparisons": [
			{
				"operation": comparison.operation,
				"payload_bytes": comparison.size,
				"clients": comparison.clients,
				"synchronous_commit": comparison.synchronous_commit,
				"sides": {side: comparison.metrics(side) for side in comparison.samples},
				"ratios": {peer: {
					"of_medians": comparison.ratio(peer),
					"of_rounds": comparison.round_ratios(peer),
					"targets": [vars(verdict) for verdict in judge(comparison, peer)],
				} for peer in comparison.samples if OURS in comparison.samples and peer != OURS},
			} for comparison in self.comparisons]}
		with open(path, "w", encoding="utf-8") as output:
			json.dump(document, output, indent=1)
			output.write("\n")
