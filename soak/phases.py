"""Ownership moves while everything else goes on."""

from .faults import fault

NAMES = {"phase_changed"}			# only where both sides are written to
DUAL = ("dual_redis_primary", "dual_pg_primary")


@fault
def phase_changed(world):
	"""To any dual phase and percentage, in sync or not."""
	phase = world.rng.choice(DUAL)
	percent = world.rng.choice((0, 10, 50, 90, 100)) if phase == DUAL[0] else None
	world.phase = phase if percent is None else f"{phase} {percent} %"
	world.postgres.rows("SELECT session_store.set_phase(%s, %s, %s, force => true)", (world.store, phase, percent))
