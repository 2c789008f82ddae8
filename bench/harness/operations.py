"""The single operations: what each script asks of which session, and the times that it asks for.

All sessions are loaded with one expire, in the middle of an hour about a day ahead (Clock.expire).
`touch_granularity` throttles an ask that is less than a minute before it, so a throttled touch asks
for a random second of that minute and a writing one for a random second of that hour: the seconds
differ from touch to touch, as they do in life, where a peer's every touch moves its indexed expire.
"""

import time
from dataclasses import dataclass

from .payload import key_of
from .sides import MANY

HOUR = 3600
DAY = 24 * HOUR
THROTTLE_MARGIN = 55		# seconds: below the default touch_granularity of one minute
MAX_RUN_SECONDS = 50		# time moves on during a run, and the ask must not pass the expire
THROTTLED_PERCENT = 95
VARIANTS = 8				# payloads that a changed upsert takes in turn


class Clock:
	"""The expiry times of one loaded set of tables, in epoch seconds."""

	def __init__(self):
		hour = (int(time.time()) + DAY) // HOUR * HOUR
		self.expire = hour + HOUR // 2
		self.write_from = hour + 120
		self.write_to = hour + HOUR - 300

	def expire_sql(self):
		"""The expire of session n as it is loaded."""
		return f"to_timestamp({self.expire})"

	def variables(self, run_seconds):
		return {"now": int(time.time()),
				"still_from": self.expire - THROTTLE_MARGIN,
				"still_to": self.expire - run_seconds - 1,
				"from": self.write_from, "to": self.write_to}


EXISTING = "\\set n random(1, :rows)\n"
SETTLED = "\\set n random(1, :settled_rows)\n"	# rows that only throttled touches ask for
NEW = "\\set n :rows + random(1, 1500000000)\n"
ONE_KEY = f"\\set key {key_of(':n')}\n"
MANY_KEYS = "".join(
	f"\\set n random(1, :rows)\n\\set key{i} {key_of(':n')}\n" for i in range(MANY))
ASK_STILL = "\\set exp random(:still_from, :still_to)\n"
ASK_WRITING = "\\set exp random(:from, :to)\n"
ASK_MIXED = ("\\set exp case when :n <= :settled_rows then random(:still_from, :still_to)"
			 " else random(:from, :to) end\n")
TTL = "\\set ttl :exp - :now\n"


@dataclass(frozen=True)
class Operation:
	"""One comparison; variants is how many payloads its scripts take in turn."""

	name: str
	title: str
	preamble: str
	writes: bool = False
	variants: int = 0


# The order matters: an operation finds the rows as those before it left them.
OPERATIONS = [
	Operation("get", "get", EXISTING + ONE_KEY),
	Operation("get_missing", "get, missing sid", EXISTING + ONE_KEY),
	Operation("get_many", f"get_many of {MANY}", MANY_KEYS),
	Operation("touch_throttled", "touch, throttled", SETTLED + ONE_KEY + ASK_STILL + TTL,
			  writes=True),
	Operation("get_and_touch", f"get + touch, {THROTTLED_PERCENT} % throttled",
			  EXISTING + ONE_KEY + ASK_MIXED + TTL, writes=True),
	Operation("touch_writes", "touch that writes", EXISTING + ONE_KEY + ASK_WRITING + TTL,
			  writes=True),
	Operation("upsert_same", "upsert, same payload", EXISTING + ONE_KEY + ASK_WRITING + TTL,
			  writes=True, variants=1),
	Operation("upsert_changed", "upsert, changed payload", EXISTING + ONE_KEY + ASK_WRITING + TTL,
			  writes=True, variants=VARIANTS),
	Operation("insert", "insert, new sid", NEW + ONE_KEY + ASK_WRITING + TTL,
			  writes=True, variants=1),
]
