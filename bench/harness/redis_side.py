"""The Redis side: the same sessions under express-session's keys, driven by redis-benchmark."""

import re
import subprocess

from .cluster import Failure, find_program
from .measure import Sample
from .operations import DAY
from .sides import MANY

NAME = "redis"
LABEL = "Redis"
KEY_HEAD = "sess:kQ7xTzWc2Rf0aVb9LmYp"		# with redis-benchmark's twelve digits: a sid of 32
KEY = KEY_HEAD + "__rand_int__"
MISSING_KEY = KEY_HEAD[:-1] + "-__rand_int__"
SCRATCH_DATABASE = 1						# for inserts, emptied after each run
TRIAL_REQUESTS = 20_000
RPS_FIELD = 7				# in redis-benchmark's csv, from the end of the line


def _command(operation, payload):
	touch = ["EXPIRE", KEY, str(DAY)]
	write = ["SET", KEY, payload, "EX", str(DAY)]
	return {
		"get": ["GET", KEY],
		"get_missing": ["GET", MISSING_KEY],
		"get_many": ["MGET"] + [KEY] * MANY,
		"touch_throttled": touch,
		"get_and_touch": ["GETEX", KEY, "EX", str(DAY)],
		"touch_writes": touch,
		"upsert_same": write,
		"upsert_changed": write,
		"insert": write,
	}[operation]


class RedisRunner:
	"""Times redis-benchmark; it counts requests, so the wanted seconds come from a short trial."""

	def __init__(self, redis, rows):
		self.redis = redis
		self.rows = rows
		self.payload = ""
		self.expected_rates = {}

	def load(self, payload):
		"""Replace everything by rows sessions of this payload."""
		self.payload = payload
		self.expected_rates = {}
		self.redis.command("FLUSHALL")
		value = payload.encode()
		with subprocess.Popen([find_program("redis-cli"), "-s", self.redis.socket, "--pipe"],
							  stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as loader:
			for n in range(self.rows):
				key = f"{KEY_HEAD}{n:012d}".encode()
				loader.stdin.write(b"*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
								   b"$2\r\nEX\r\n$%d\r\n%d\r\n"
								   % (len(key), key, len(value), value, len(str(DAY)), DAY))
		if self.redis.command("DBSIZE") != str(self.rows):
			raise Failure("Redis did not take the sessions")

	def run(self, operation, clients, seconds):
		trial = (operation, clients)
		if trial not in self.expected_rates:
			self.expected_rates[trial] = self._benchmark(operation, clients, TRIAL_REQUESTS)
		requests = max(TRIAL_REQUESTS, int(self.expected_rates[trial] * seconds))
		rate = self._benchmark(operation, clients, requests)
		return Sample(rate, requests)

	def _benchmark(self, operation, clients, requests):
		insert = operation == "insert"
		keys = 10**12 - 1 if insert else self.rows
		database = SCRATCH_DATABASE if insert else 0
		result = subprocess.run(
			[find_program("redis-benchmark"), "-s", self.redis.socket, "-c", str(clients),
			 "-n", str(requests), "-r", str(keys), "--dbnum", str(database), "--csv",
			 *_command(operation, self.payload)],
			capture_output=True, text=True)
		fields = re.findall(r'"([0-9.]+)"', result.stdout.rsplit("\n", 2)[-2])
		if result.returncode != 0 or len(fields) < RPS_FIELD:
			raise Failure(f"redis-benchmark failed:\n{result.stderr}{result.stdout[-500:]}")
		if insert:
			self.redis.command("-n", str(SCRATCH_DATABASE), "FLUSHDB")
		return float(fields[-RPS_FIELD])
