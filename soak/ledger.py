"""What one writer knows that the last write to each of its sids was: no other writer has them."""

from dataclasses import dataclass

UNSURE = object()		# a write was sent and no answer came


@dataclass(frozen=True)
class Written:
	"""An acknowledged session: its number, and when it runs out at the earliest and the latest."""

	number: int
	earliest: float
	latest: float


class Ledger:
	"""sid -> Written, None (ended) or UNSURE; a sid that is not there has never been written."""

	def __init__(self):
		self.states = {}

	def get(self, sid):
		return self.states.get(sid)

	def set(self, sid, state):
		self.states[sid] = state

	def doubt(self, sids):
		for sid in sids:
			self.states[sid] = UNSURE

	def forget(self):
		"""Servers lost data: nothing is known but what is written from now on."""
		self.states = {sid: UNSURE for sid in self.states}

	def broken(self, found, now, slack):
		"""The sids whose session in `found` (sid -> (number, expire)) is not the last written one."""
		for sid, state in self.states.items():
			there = found.get(sid)
			if state is UNSURE:
				continue
			if state is None:
				if there:
					yield sid, "back after its end"
			elif there:
				if there[0] != state.number:
					yield sid, f"write {there[0]} instead of {state.number}"
				elif not state.earliest - slack <= there[1] <= state.latest + slack:
					yield sid, f"expires {there[1] - state.latest:+.1f} s off"
			elif state.earliest - slack > now:
				yield sid, "gone"
