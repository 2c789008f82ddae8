"""The rounds of a run: a time of writes and faults, then quiet, and both sides are to be equal."""

import collections
import random
import re
import time

import psycopg2

from . import compare, faults, phases
from .applications import SixRows
from .conflicts import Conflicts
from .postgres_writers import PostgresWriter
from .writers import RedisWriter

BETWEEN = (0.5, 2.5)			# seconds between the faults of a round
CONFLICTS_EVERY = 4			# rounds
FAULTS_A_ROUND = (1, 2, 2, 3)
SLACK = 1.5						# seconds that a ledger's expiry may be off
CRASH = re.compile(r"was terminated by signal (?!9\b)\d+|PANIC|TRAP:|AddressSanitizer|runtime error")


class Soak:
	def __init__(self, world):
		self.world = world
		self.rng = world.rng
		seed = world.options.seed
		own, both = world.options.sessions, world.options.both
		shared = own // 3 if both else 0
		self.redis_writer = RedisWriter(world, random.Random(seed + 1), own, shared)
		self.six_rows = SixRows("the application with six rows", world, random.Random(seed + 2))
		self.postgres_writers = [
			PostgresWriter(world, random.Random(seed + 3), own, shared, world.options.rate / 5)] if both else []
		self.parts = [self.redis_writer, self.six_rows, *self.postgres_writers]
		self.conflicts = Conflicts(world, self.say) if both else None
		self.faults = collections.Counter()
		self.trouble = collections.Counter()			# lost, ghost, payload, expire, ledger
		self.compared = 0
		self.rounds = 0
		self.answers = 0
		self.longest = (0.0, "")
		self.late = 0
		self.memory = 0
		self.crashes = 0

	def say(self, text):
		print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

	def run(self, end):
		self.world.table_name = self.world.table()
		for part in self.parts:
			part.start()
		self.round_of([], 1.5)			# the sessions that are there before anything goes wrong
		kinds = self.world.options.only or sorted(faults.FAULTS.keys() - (set() if self.conflicts else phases.NAMES))
		deck = []
		while time.monotonic() < end and self.rounds != self.world.options.rounds:
			wanted = self.rng.choice(FAULTS_A_ROUND)
			if len(deck) < wanted:			# every kind comes once before one comes again
				more = kinds * (1 if len(kinds) > wanted else wanted)
				self.rng.shuffle(more)
				deck = more + deck
			self.round_of([deck.pop() for _ in range(wanted)])
		for part in self.parts:
			part.end()

	def round_of(self, names, seconds=0.0):
		world = self.world
		world.lost_data = world.broke_continuity = False
		world.blind_seconds = 0
		for part in self.parts:
			part.resume()
		time.sleep(seconds)
		for name in names:
			time.sleep(self.rng.uniform(*BETWEEN))
			self.inject(name)
		time.sleep(self.rng.uniform(0, BETWEEN[0]))
		for part in self.parts:
			part.pause()
		faults.mend(world)
		for part in self.parts:
			part.wait_paused()
		self.rounds += 1
		if self.settle(names) and self.conflicts and self.rounds % CONFLICTS_EVERY == 0:
			self.conflicts.run()

	def inject(self, name):
		self.faults[name] += 1
		try:
			faults.FAULTS[name](self.world)
		except faults.ERRORS as error:
			self.say(f"{name} was cut short or refused: {str(error).splitlines()[0]}")
			faults.mend(self.world)

	def settle(self, names):
		"""Wait until both sides are equal, answering for the operator where deletes wait for an answer. True when they are."""
		started = last_answer = time.monotonic()
		deadline = started + self.world.options.patience
		while True:
			found = compare.compare(self.world)
			took = (found.read_at if found else time.monotonic()) - started
			if found is not None and not found.differences:
				break
			if time.monotonic() > deadline:
				self.differ(names, found)
				break
			if time.monotonic() > last_answer + 1 and self.world.is_held():
				self.answer()
				started = last_answer = time.monotonic()
				deadline = started + self.world.options.patience
			time.sleep(0.05)
		self.judge(names, found, took)
		self.wait_in_sync(names)
		return found is not None and not found.differences

	def wait_in_sync(self, names):
		"""A comparison may still be under way: what is written in it is not what is tested."""
		deadline = time.monotonic() + self.world.options.patience
		while not (self.world.status() or ("",))[0].startswith("in sync"):
			if time.monotonic() > deadline:
				self.trouble["never in sync"] += 1
				self.say(f"  not in sync: {self.world.status()}: {', '.join(names)}")
				return
			time.sleep(0.05)

	def answer(self):
		try:
			self.world.answer_held_deletes()
			self.answers += 1
		except psycopg2.Error as error:
			self.say(f"the operator was refused: {error}")
			self.trouble["answers refused"] += 1

	def judge(self, names, found, took):
		label = ", ".join(names) or "no fault"
		if found is None:
			return
		self.compared += found.sessions
		if not found.differences and took > self.longest[0] and names:
			self.longest = (took, label)
		allowed = 1 + found.sessions / 50_000 + self.world.blind_seconds
		if took > allowed:
			self.late += 1
		self.memory = max(self.memory, self.world.mirror_memory())
		self.check_ledger(found)
		self.say(f"{found.sessions} sessions, {len(found.invalid)} that cannot be mirrored, equal after {took:.2f} s"
				 f"{' LATE' if took > allowed else ''}: {label}")

	def check_ledger(self, found):
		"""Neither side may have lost, brought back or mixed up what its one writer was told is written."""
		for writer in (self.redis_writer, *self.postgres_writers):
			if self.world.lost_data or (self.world.broke_continuity and self.conflicts):
				writer.ledger.forget()			# absence in the owner wins: what the other side wrote last may be gone
				continue
			for sid, what in writer.ledger.broken(compare.numbers(found.redis), time.time(), SLACK):
				if not sid.startswith("s-"):
					self.trouble["not what was written"] += 1
					self.say(f"  {sid}: {what}, in {self.world.phase}")

	def differ(self, names, found):
		status = self.world.status()
		self.say(f"NOT EQUAL after {self.world.options.patience:.0f} s: {', '.join(names)}; status: {status}")
		if found is None:
			self.trouble["no answer"] += 1
			return
		for kind in found.differences.values():
			self.trouble[kind] += 1
		for line in found.describe():
			self.say("  " + line)

	# --- The end ---------------------------------------------------------------------------------

	def count_crashes(self):
		with open(self.world.postgres.log, encoding="utf-8", errors="replace") as log:
			lines = [line.rstrip() for line in log if CRASH.search(line)]
		for line in lines[:5]:
			self.say("  " + line)
		return len(lines)

	def report(self, seconds):
		self.crashes = self.count_crashes()
		writer, six = self.redis_writer, self.six_rows
		kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
		wrong = self.trouble
		return "\n".join([
			"",
			f"seed {self.world.options.seed}, {seconds / 60:.1f} minutes, {self.rounds} quiet periods",
			f"faults: {sum(self.faults.values())}: {kinds}",
			f"writes on Redis: {writer.acknowledged} acknowledged, {writer.failed} without an answer",
			f"transactions of six rows: {six.transactions}, deadlocks {six.deadlocks}, longest statement"
			f" {six.longest:.2f} s, errors {dict(six.failures)}{self.moved(six)}",
			*self.report_both(),
			f"sessions compared: {self.compared}",
			f"differences: lost {wrong['lost']}, ghosts {wrong['ghost']}, wrong {wrong['payload'] + wrong['expire']}"
			f" (payload {wrong['payload']}, expiry {wrong['expire']}), not what was written {wrong['not what was written']}",
			f"mass deletes answered by the operator: {self.answers}",
			f"longest time to converge: {self.longest[0]:.2f} s ({self.longest[1]}); later than promised: {self.late}",
			f"mirror's own memory: {self.memory / 2**20:.0f} MB; crashes: {self.crashes}",
			"PASSED" if self.passed else "FAILED",
		])

	def moved(self, application):
		partitioned = self.world.options.partitioned
		return f", to be tried again for a row that was moved: {application.moved}" if partitioned else ""

	def report_both(self):
		if self.conflicts is None:
			return
		writer = self.postgres_writers[0]
		yield (f"writes on PostgreSQL: {writer.transactions} transactions, deadlocks {writer.deadlocks}, longest statement"
			   f" {writer.longest:.2f} s, errors {dict(writer.failures)}{self.moved(writer)}")
		yield f"conflicts: {self.conflicts.checked} checked, {self.conflicts.wrong} with the wrong outcome"

	@property
	def passed(self):
		applications = [self.six_rows, *self.postgres_writers]
		return self.rounds > 0 and not (
			sum(self.trouble.values()) or self.crashes or (self.conflicts and self.conflicts.wrong)
			or any(application.deadlocks or application.failures for application in applications))
