"""Called by scripts/soak: writers and faults, then quiet and an exact comparison, for as long as asked."""

import argparse
import random
import signal
import sys
import time

from . import faults, rounds, world as worlds
from .servers import Failure


def parse_options():
	parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
	parser.add_argument("--work", required=True)
	parser.add_argument("--pg-config", required=True)
	parser.add_argument("--minutes", type=float, default=15)
	parser.add_argument("--seed", type=int, default=1)
	parser.add_argument("--rate", type=int, default=500, help="writes a second on Redis")
	parser.add_argument("--sessions", type=int, default=3000, help="sids that are written to")
	parser.add_argument("--only", action="append", choices=sorted(faults.FAULTS), metavar="FAULT",
						help="one of " + ", ".join(sorted(faults.FAULTS)))
	parser.add_argument("--one-way", dest="both", action="store_false", help="writers on Redis only")
	parser.add_argument("--partitioned", action="store_true", help="a store with partitions of an hour")
	parser.add_argument("--rounds", type=int, help="at most so many quiet periods")
	parser.add_argument("--patience", type=float, default=60, help="seconds to wait for both sides to be equal")
	options = parser.parse_args()
	options.bin_dir = worlds.bin_dir(options.pg_config)
	return options


def main():
	signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
	options = parse_options()
	world = worlds.World(options)
	world.rng = random.Random(options.seed)
	try:
		world.start()
		soak = rounds.Soak(world)
		started = time.monotonic()
		try:
			soak.run(started + options.minutes * 60)
		finally:
			print(soak.report(time.monotonic() - started), flush=True)
	finally:
		world.end()
	return 0 if soak.passed else 1


if __name__ == "__main__":
	try:
		sys.exit(main())
	except Failure as failure:
		sys.exit(f"scripts/soak: {failure}")
	except KeyboardInterrupt:
		sys.exit(130)
