// Which side owns a session, by the rule of clients/README.md, and when the other side is to be asked as well.

import { crc32 } from 'node:zlib';

const kAskEvery = 200;              // milliseconds
const kAfterChange = 2_000;         // how long a miss at the owner is no answer yet: some times as long as the others
                                    // take to learn of a change, and the mirror to copy what came before

export function owner(sid, phase, rollout_percent) {
	if (phase !== 'dual_redis_primary') return phase === 'redis_only' ? 'redis' : 'postgres';
	return crc32(sid) % 100 < rollout_percent ? 'postgres' : 'redis';
}

// Knows the phase as session_store.routing last told it; what it told stays true while PostgreSQL is away.
export class Routing {
	// learned: called after each change that it learns of.
	constructor(pool, learned) {
		this.pool = pool;
		this.learned = learned;
	}

	async ask() {
		const { rows: [now] } = await this.pool.query('SELECT phase, rollout_percent FROM session_store.routing()');
		if (this.phase === now.phase && this.percent === now.rollout_percent) return;
		this.phase = now.phase;
		this.percent = now.rollout_percent;
		this.learned_at = Date.now();
		this.learned();
	}

	// Asks once, so that there is an answer, and then for ever.
	async start() {
		await this.ask();
		const again = async () => {
			await this.ask().catch(() => {});
			setTimeout(again, kAskEvery);
		};
		setTimeout(again, kAskEvery);
	}

	owner(sid) {
		return owner(sid, this.phase, this.percent);
	}

	get is_dual() {
		return this.phase.startsWith('dual');
	}

	get just_changed() {
		return this.is_dual && Date.now() - this.learned_at < kAfterChange;
	}
}
