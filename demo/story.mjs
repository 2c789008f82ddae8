// The story that the demo tells: the way from Redis to PostgreSQL and back, a step at a time. Each step is what an
// operator would do: wait until the mirror is in sync, compare a sample, call set_phase.

import { delay, poll } from './servers.mjs';
import { compare } from './verdict.mjs';

const kStepTimeout = 60_000;        // milliseconds
const kRedisAwayFor = 8_000;        // at most
const kSettled = 3_000;
const kSample = 300;

export class Story {
	// client: of the store's owner or a superuser; tables as verdict.mjs takes them.
	constructor({ client, redis, redis_client, users, view, seconds }) {
		Object.assign(this, { client, redis, redis_client, users, view, seconds });
		this.steps = 0;
	}

	async tell() {
		const started = Date.now();
		const until = (share) => delay(Math.max(0, started + share * this.seconds * 1_000 - Date.now()));
		const course = [
			[0.06, () => this.move('dual_redis_primary', null, 'Mirrored both ways, Redis owns every session')],
			[0.16, () => this.move('dual_redis_primary', 10, '10 % of the sessions belong to PostgreSQL')],
			[0.24, () => this.terminate_mirror()],
			[0.32, () => this.move('dual_redis_primary', 50, '50 % belong to PostgreSQL')],
			[0.42, () => this.move('dual_redis_primary', 100, 'all belong to PostgreSQL')],
			[0.50, () => this.lose_redis()],
			[0.64, () => this.move('dual_redis_primary', 0, 'the whole way back to Redis, in one call')],
			[0.74, () => this.move('dual_redis_primary', 100, 'forward again')],
			[0.82, () => this.move('dual_pg_primary', null, 'PostgreSQL is the primary')],
			[0.88, () => this.compare_sides()],
			[0.90, () => this.leave_redis()],
		];
		for (const [share, step] of course) {
			await until(share);
			await step();
			this.steps += 1;
		}
		await until(1);
		return this.steps === course.length;
	}

	// set_phase refuses while the evidence is missing, and says what: so ask, and try again.
	async move(phase, percent, words) {
		let refused;
		const moved = await poll(async () => {
			try {
				await this.evidence();
				this.users.owner_changes();
				await this.client.query('SELECT session_store.set_phase($1, $2, $3)', ['sessions', phase, percent]);
				return true;
			} catch (error) {
				refused = error.message;
				return false;
			}
		}, kStepTimeout, 200);
		this.users.owner_changes();
		this.moved_at = Date.now();
		if (!moved) throw new Error(`set_phase does not go to ${phase}: ${refused}`);
		this.view.event(`set_phase('${phase}'${percent === null ? '' : `, ${percent}`}): ${words}`);
	}

	async evidence() {
		const { rows: [{ phase }] } = await this.client.query("SELECT phase FROM session_store.routing('sessions')");
		if (!phase.startsWith('dual')) return;
		await this.in_sync();
		const { rows } = await this.client.query("SELECT * FROM session_store.verify('sessions', $1)", [kSample]);
		if (rows.length > 0) throw new Error(`verify finds ${rows.length} differences (${rows[0].difference})`);
	}

	async in_sync() {
		const synced = await poll(async () => {
			const { rows: [status] } = await this.client.query("SELECT mirror FROM session_store.status WHERE store = 'sessions'");
			return status.mirror.startsWith('in sync');
		}, kStepTimeout);
		if (!synced) throw new Error('the mirror does not come in sync');
	}

	async mirror_pid() {
		const { rows } = await this.client.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_store mirror'");
		return rows[0]?.pid;
	}

	async terminate_mirror() {
		const pid = await poll(() => this.mirror_pid(), kStepTimeout);
		if (!pid) throw new Error('there is no mirror worker to terminate');
		process.kill(pid, 'SIGTERM');
		this.view.event(`Mirror worker terminated (SIGTERM, pid ${pid})`);
		const next = await poll(async () => {
			const now = await this.mirror_pid();
			return now !== pid && now;
		}, kStepTimeout);
		if (!next) throw new Error('the mirror worker did not come back');
		this.view.event(`Mirror worker is back (pid ${next})`);
	}

	// The sessions belong to PostgreSQL, and the application has long stopped to ask Redis: nobody notices.
	async lose_redis() {
		await delay(Math.max(0, this.moved_at + kSettled - Date.now()));
		const errors = this.users.totals.errors;
		await this.redis.kill('SIGKILL');
		this.view.event('Redis killed (SIGKILL)');
		await delay(Math.min(kRedisAwayFor, this.seconds * 60));
		this.errors_without_redis = this.users.totals.errors - errors;
		await this.redis.start();
		this.view.event(`Redis started again; ${this.errors_without_redis} requests failed meanwhile`);
	}

	// By a reader of its own, independent of the extension.
	async compare_sides() {
		this.result = await compare({ redis: this.redis_client, pg: this.client, table: 'sessions', logged_out: new Set(this.users.logged_out) });
		this.view.event(`Both sides compared: ${this.result.equal} sessions are equal, ${this.result.differences.length} differ`);
	}

	async leave_redis() {
		await this.move('pg_only', null, 'Redis is no longer needed');
		await this.redis.kill('SIGKILL');
		this.view.event('Redis switched off for good');
	}
}
