"""What the project promises of each comparison, and whether a measured one keeps it."""

import statistics
from dataclasses import dataclass

EITHER = "either"		# synchronous_commit, where nothing is written
RATE, WAL, HOT, GROWTH = "rate", "WAL", "HOT%", "size"
P99, P99_MORE, WAIT = "p99", "ms more p99", "ms waited for maintenance"
HOT_ALL = 99.5			# percent: what prints as 100


@dataclass(frozen=True)
class Target:
	"""A bound on our metric, or for rate, WAL and p99 on its ratio to the peer's.

	or_ms_more: of the p99, which is enough as well.
	"""

	metric: str
	bound: float
	at_least: bool
	synchronous_commit: tuple = ("on", "off")
	or_ms_more: float = None


@dataclass(frozen=True)
class Verdict:
	ok: bool
	text: str


def faster(bound, *commit):
	return Target(RATE, bound, True, commit or ("on", "off"))


def at_most(metric, bound):
	return Target(metric, bound, False)


CONNECT_PG_SIMPLE = ("cps_json", "cps_jsonb")

TARGETS = {
	("get", "cps_jsonb"): [faster(1.0)],
	("get", "cps_json"): [faster(0.95)],
	**{("get_and_touch", peer): [faster(3.0, "on"), faster(1.8, "off")]
	   for peer in CONNECT_PG_SIMPLE},
	**{("touch_throttled", peer): [faster(4.0, "on"), faster(1.5, "off"), at_most(WAL, 0.01)]
	   for peer in CONNECT_PG_SIMPLE},
	("touch_writes", "common"): [faster(1.4), Target(HOT, HOT_ALL, True), at_most(WAL, 0.5)],
	("upsert_same", "cps_jsonb"): [faster(1.1)],
	("upsert_changed", "cps_jsonb"): [faster(1.1)],
	("mix", "cps_json"): [faster(1.5), at_most(WAL, 0.4), at_most(GROWTH, 1.3)],
	("partitions_get", "by_hand"): [faster(1.8)],
	("partitions_touch_writes", "plain"): [faster(0.8), Target(HOT, HOT_ALL, True)],
	("drop_expired", "plain"): [faster(100), at_most(WAL, 0.01)],
	**{(name, "without"): [Target(P99, 1.5, False, or_ms_more=2.0)]
	   for name in ("mix_and_cleanup", "mix_and_drop")},
	**{(name, "without"): [at_most(WAIT, 60), at_most(P99_MORE, 10)]
	   for name in ("mix_and_maintenance", "mix_and_repartition")},
}


def _measure(comparison, peer, metric):
	if metric == RATE:
		return comparison.ratio(peer)
	if metric == WAL:
		wal = comparison.wal_total if comparison.operation == "mix" else comparison.wal_records
		return wal("ours") / wal(peer)
	if metric == HOT:
		return comparison.hot_percent("ours") or 0.0
	if metric == P99:
		return statistics.median(ours / theirs for ours, theirs in comparison.p99_pairs(peer))
	if metric == P99_MORE:
		return statistics.median(ours - theirs for ours, theirs in comparison.p99_pairs(peer))
	if metric == WAIT:
		return comparison.longest_wait()
	return comparison.growth_factor("ours")


def judge(comparison, peer):
	"""The verdicts of all targets that apply to this comparison with this peer."""
	verdicts = []
	for target in TARGETS.get((comparison.operation, peer), []):
		if comparison.synchronous_commit not in (EITHER, *target.synchronous_commit):
			continue
		value = _measure(comparison, peer, target.metric)
		ok = value >= target.bound if target.at_least else value <= target.bound
		sign = ">=" if target.at_least else "<="
		promise, measured = f"{target.metric} {sign} {target.bound:g}", f"{value:.3g}"
		if target.or_ms_more:
			more = _measure(comparison, peer, P99_MORE)
			ok = ok or more <= target.or_ms_more
			promise += f" or {target.or_ms_more:g} ms more"
			measured += f", {more:.2g} ms"
		verdicts.append(Verdict(ok, f"{promise}: {measured} {'ok' if ok else 'MISS'}"))
	return verdicts
