// Comparing both sides of a store: all of it, or a sample.
//
// First every sid (of the sample) is looked at once on each side. Those that differ are candidates;
// they are looked at again, after what either side had accepted by then has been copied, until they
// are equal, or differ though neither side has changed them in between, which is a difference. A
// sid that both sides keep changing while the mirror copies it is none.
//
// Memory is bounded: sightings are digests, and what there are many of goes to temporary files. A
// scheduled verification keeps no transaction open while it talks to Redis or waits; one that a
// person calls runs in that person's.
#pragma once

#include "core/verify.h"
#include "mirror/sides.h"
#include "mirror/target.h"
#include "postgres/pg.h"

namespace session_store {

struct Verification {
	MirrorTarget target;
	bool scheduled; // by a worker: each step in a transaction of its own
	int64 tolerance;
	// Called for each difference, within a transaction; may be null.
	void (*report)(
		void *argument, Datum sid, core::Difference difference, const core::Sighting *seen);
	void *argument;

	// What came out.
	int64 compared; // sids looked at
	int64 differences;
	int64 rejects;   // of Redis, that cannot be mirrored
	int64 evictions; // rows kept though Redis evicted their keys
	bool lagging;    // the mirror did not catch up: differences may be its lag
};

// Every session of both sides; only for a person. Opens and closes the connection to Redis.
void verify_all(Verification *verification);
// About that many sids of each side, chosen at random.
void verify_sample(Verification *verification, int sample_size);

} // namespace session_store
