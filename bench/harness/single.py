"""The single operations, each side in turn within every round."""

from . import tables
from .measure import Script
from .operations import MAX_RUN_SECONDS, OPERATIONS, THROTTLED_PERCENT, Clock
from .payload import build
from .cluster import Failure
from .redis_side import NAME as REDIS
from .report import Comparison
from .targets import EITHER
from .sides import TABLE_SIDES

NAMES = [operation.name for operation in OPERATIONS]


class SingleOperations:
	"""Measures operations on tables of one payload size that stay loaded from one to the next."""

	operations = OPERATIONS
	prefix = ""				# of the names of the comparisons
	title = "{}"			# of a comparison, from that of the operation

	def __init__(self, bench, size):
		self.bench = bench
		self.size = size
		self.clock = Clock()
		self.side_names = bench.side_names
		self.sides = {name: TABLE_SIDES[name] for name in bench.side_names if name in TABLE_SIDES}
		self.payload_counter = 0

	def run(self, names):
		"""Yield a Comparison for each operation, synchronous_commit and number of clients."""
		if self.bench.seconds >= MAX_RUN_SECONDS:
			raise Failure(f"a run takes less than {MAX_RUN_SECONDS} seconds")
		self._load()
		for operation in self.operations:
			if operation.name in names:
				self.redis_samples = {}
				for synchronous_commit in ("on", "off") if operation.writes else (EITHER,):
					for clients in self.bench.clients:
						yield self._compare(operation, synchronous_commit, clients)
		for side in self.sides.values():
			tables.drop(self.bench.postgres, side)

	def _load(self):
		payload = build(self.size)
		for side in self.sides.values():
			self.bench.say(f"loading {self.bench.rows:,} sessions of {len(payload)} bytes:"
						   f" {side.label}")
			tables.create(self.bench.postgres, side)
			tables.load(self.bench.postgres, side, payload, self.clock.expire_sql(), 1,
						self.bench.rows)
		tables.finish_loading(self.bench.postgres, self.sides.values())
		for side in self.sides.values():
			tables.check(self.bench.postgres, side, payload, self.bench.rows)
		if REDIS in self.side_names:
			self.bench.redis.load(payload)

	def _compare(self, operation, synchronous_commit, clients):
		samples = {name: [] for name in self.side_names}
		title = self.title.format(operation.title)
		self.bench.say(f"{self.size} bytes, {title}, {clients} clients,"
					   f" synchronous_commit {synchronous_commit}")
		for number in range(self.bench.rounds):
			# Another side begins each round, so that none always follows the same one.
			turn = number % len(self.side_names)
			for name in self.side_names[turn:] + self.side_names[:turn]:
				if name == REDIS:
					sample = self._run_redis(operation, clients, number)
				else:
					sample = self._run_table(self.sides[name], operation, synchronous_commit,
											 clients)
				samples[name].append(sample)
		return Comparison(self.prefix + operation.name, title, self.size, clients, synchronous_commit,
						  samples)

	def _run_redis(self, operation, clients, number):
		"""One run for both settings of synchronous_commit, which Redis does not have."""
		key = (clients, number)
		if key not in self.redis_samples:
			self.redis_samples[key] = self.bench.redis.run(operation.name, clients,
															self.bench.seconds)
		return self.redis_samples[key]

	def _run_table(self, side, operation, synchronous_commit, clients):
		variables = {"rows": self.bench.rows,
					 "settled_rows": self.bench.rows * THROTTLED_PERCENT // 100,
					 **self.clock.variables(self.bench.seconds)}
		scripts = []
		for variant in range(max(1, operation.variants)):
			name = f"payload{variant}"
			statement = side.statements[operation.name].replace(":payload", f":{name}")
			scripts.append(Script(self.bench.directory, f"{side.name}_{operation.name}_{variant}",
								  operation.preamble + statement))
			if operation.variants:
				variables[name] = build(self.size, self._next_counter(operation))
		sample = self.bench.tables.run(side, scripts, clients, self.bench.seconds, variables,
									   "on" if synchronous_commit == EITHER else synchronous_commit)
		if operation.writes:
			self.bench.tables.settle(side)
		return sample

	def _next_counter(self, operation):
		"""Counters that no earlier run wrote, where the payload is to change."""
		if operation.variants > 1:
			self.payload_counter += 1
			return self.payload_counter
		return 0
