"""The application on PostgreSQL, in the dual phases: functions and direct statements, on its own sids and shared ones."""

import time

from .applications import EXPECTED, Connected
from .ledger import UNSURE, Ledger, Written
from .writers import payload

GRANULARITY = 61			# seconds that a touch may add to what was asked
MANY = 20


class PostgresWriter(Connected):
	"""Its ledger knows the last state of its own sids, as the writer's on Redis does."""

	def __init__(self, world, rng, own, shared, rate):
		super().__init__("the writer on PostgreSQL", world, rng)
		self.own, self.shared = own, shared
		self.pause_between = 1 / rate
		self.ledger = Ledger()
		self.number = 0
		self.doubtful = ()

	def next_number(self):
		self.number += 1
		return 10_000_000 + self.number			# never one of the writer's on Redis

	def work(self):
		sid = (f"s-{self.rng.randrange(self.shared)}" if self.rng.random() < 0.3
			   else f"p-{self.rng.randrange(self.own)}")
		kind = self.rng.choices(
			(self.upsert, self.write_direct, self.touch, self.merge, self.touch_direct, self.log_out,
			 self.log_out_direct, self.destroy, self.many), (25, 20, 15, 10, 10, 4, 4, 2, 3))[0]
		state = self.ledger.get(sid)
		self.doubtful = {sid: state}
		self.ledger.set(sid, UNSURE)
		note = kind(sid, state)
		self.connection.commit()
		self.doubtful = ()
		note()
		time.sleep(self.pause_between * self.rng.random() * 2)

	def note(self, error):
		"""A statement that failed has changed nothing; where no answer came nobody knows."""
		if error.pgcode and (error.pgcode in EXPECTED or not error.pgcode.startswith("57")):
			for sid, state in dict(self.doubtful).items():
				self.ledger.set(sid, state)
		self.doubtful = ()
		return super().note(error)

	def one(self, statement, arguments):
		rows = self.execute(statement, arguments)
		return rows[0][0] if rows else None

	def ttl(self):
		# In a partitioned store long enough for several partitions.
		return self.rng.randrange(100, 2000) * (20 if self.world.options.partitioned else 1)

	def settled(self, sid, state):
		return lambda: self.ledger.set(sid, state)

	# --- Each gives what is to be noted once it is committed -------------------------------------

	def _stored(self, sid, before, number, done, sent, ttl, slack=0):
		"""A write that the logout guard may have refused."""
		if not done:
			return self.settled(sid, before)
		return self.settled(sid, Written(number, sent + ttl, time.time() + ttl + slack))

	def upsert(self, sid, before):
		number, ttl, sent = self.next_number(), self.ttl(), time.time()
		version = self.one("SELECT session_store.upsert(%s, %s::jsonb, ttl => %s)",
						   (sid, payload(self.rng, number), f"{ttl} seconds"))
		return self._stored(sid, before, number, version is not None, sent, ttl)

	def write_direct(self, sid, before):
		"""By a statement that only a table with a unique index on sid knows."""
		if self.world.options.partitioned:
			return self.upsert(sid, before)
		number, ttl, sent = self.next_number(), self.ttl(), time.time()
		done = self.one(
			f"INSERT INTO {self.world.table_name} (sess, expire, sid) SELECT %s, to_timestamp(%s), %s"
			" ON CONFLICT (sid) DO UPDATE SET sess = EXCLUDED.sess, expire = EXCLUDED.expire RETURNING sid",
			(payload(self.rng, number), sent + ttl, sid))
		return self._stored(sid, before, number, done is not None, sent, ttl)

	def many(self, sid, before):
		"""Many sessions by one statement."""
		sids = sorted({f"p-{self.rng.randrange(self.own)}" for _ in range(MANY)} - {sid})
		for other in sids:
			self.doubtful[other] = self.ledger.get(other)
			self.ledger.set(other, UNSURE)
		states = {other: state for other, state in self.doubtful.items() if other != sid}
		number, ttl, sent = self.next_number(), self.ttl(), time.time()
		done = {row[0] for row in self.execute(
			f"UPDATE {self.world.table_name} SET sess = jsonb_set(sess, '{{n}}', %s::text::jsonb), expire = to_timestamp(%s)"
			" WHERE sid = ANY (%s) AND expire > clock_timestamp() RETURNING sid", (number, sent + ttl, sids))}

		def note():
			self.ledger.set(sid, before)
			for other, state in states.items():
				self.ledger.set(other, Written(number, sent + ttl, sent + ttl) if other in done else state)
		return note

	def touch(self, sid, before):
		ttl, sent = self.ttl(), time.time()
		live = self.one("SELECT session_store.touch(%s, ttl => %s)", (sid, f"{ttl} seconds"))
		return self._touched(sid, before, live, sent + ttl, time.time() + ttl + GRANULARITY)

	def touch_direct(self, sid, before):
		expire = time.time() + self.ttl()
		live = self.one(f"UPDATE {self.world.table_name} SET expire = to_timestamp(%s) WHERE sid = %s"
						" AND expire > clock_timestamp() RETURNING sid", (expire, sid))
		if live is None or before in (None, UNSURE):
			return self.settled(sid, before)
		return self.settled(sid, Written(before.number, expire, expire))

	def _touched(self, sid, before, live, earliest, latest):
		if not live or before in (None, UNSURE):
			return self.settled(sid, before)
		return self.settled(sid, Written(
			before.number, min(before.earliest, earliest), max(before.latest, latest)))

	def merge(self, sid, before):
		number, ttl, sent = self.next_number(), self.ttl(), time.time()
		merged = self.one("SELECT session_store.merge(%s, %s, ttl => %s) IS NOT NULL",
						  (sid, f'{{"n": {number}}}', f"{ttl} seconds"))
		if not merged:
			return self.settled(sid, before)
		earliest, latest = sent + ttl, time.time() + ttl + GRANULARITY
		if before not in (None, UNSURE):
			earliest, latest = min(before.earliest, earliest), max(before.latest, latest)
		else:
			latest = float("inf")
		return self.settled(sid, Written(number, earliest, latest))

	def log_out(self, sid, _):
		self.one("SELECT session_store.expire(%s)", (sid,))
		return self.settled(sid, None)

	def log_out_direct(self, sid, _):
		self.execute(f"DELETE FROM {self.world.table_name} WHERE sid = %s", (sid,))
		return self.settled(sid, None)

	def destroy(self, sid, _):
		self.one("SELECT session_store.destroy(%s)", (sid,))
		return self.settled(sid, None)
