// Two stores of express-session and one that routes between them: Redis through connect-redis as it comes from npm,
// PostgreSQL through the session functions, and each session at the side that owns it.

import session from 'express-session';
import { RedisStore } from 'connect-redis';

const kHour = 3_600_000;
const ends_at = (data) => new Date(data.cookie?.expires ?? Date.now() + kHour);

export class PostgresStore {
	constructor(pool) {
		this.pool = pool;
	}

	async call(name, text, values) {
		const { rows: [row] } = await this.pool.query({ name, text, values });
		return row.result;
	}

	get(sid) {
		return this.call('get', 'SELECT session_store.get($1) AS result', [sid]);
	}

	set(sid, data) {
		return this.call('set', 'SELECT session_store.upsert($1, $2, expire => $3) AS result', [sid, JSON.stringify(data), ends_at(data)]);
	}

	touch(sid, data) {
		return this.call('touch', 'SELECT session_store.touch($1, ttl => $2 - clock_timestamp()) AS result', [sid, ends_at(data)]);
	}

	destroy(sid) {
		return this.call('destroy', 'SELECT session_store.expire($1) AS result', [sid]);
	}
}

// express-session takes a store with callbacks; get and the others of connect-redis give promises as well.
export class RoutedStore extends session.Store {
	constructor(client, pool, routing) {
		super();
		this.routing = routing;
		this.sides = { redis: new RedisStore({ client, prefix: 'sess:' }), postgres: new PostgresStore(pool) };
		this.not_there_yet = new Set();     // sids that were found on the other side only
	}

	answer(callback, work) {
		work().then((result) => callback?.(null, result), (error) => callback?.(error));
	}

	get(sid, callback) {
		this.answer(callback, () => this.read(sid));
	}

	set(sid, data, callback) {
		this.answer(callback, () => this.write(sid, data));
	}

	touch(sid, data, callback) {
		this.answer(callback, () => (this.not_there_yet.has(sid) ? this.write(sid, data) : this.sides[this.routing.owner(sid)].touch(sid, data)));
	}

	destroy(sid, callback) {
		this.answer(callback, () => this.end(sid));
	}

	other(side) {
		return side === 'redis' ? 'postgres' : 'redis';
	}

	// At the owner; on a miss just after a change, once at the other side.
	async read(sid) {
		const side = this.routing.owner(sid);
		const found = await this.sides[side].get(sid);
		if (found || !this.routing.just_changed) return found;
		const elsewhere = await this.sides[this.other(side)].get(sid).catch(() => null);
		if (elsewhere) this.not_there_yet.add(sid);
		return elsewhere;
	}

	async write(sid, data) {
		await this.sides[this.routing.owner(sid)].set(sid, data);
		this.not_there_yet.delete(sid);
	}

	// In a dual phase on both sides: what only one of them did not hear of comes by the mirror.
	async end(sid) {
		const side = this.routing.owner(sid);
		await this.sides[side].destroy(sid);
		this.not_there_yet.delete(sid);
		if (this.routing.is_dual) await this.sides[this.other(side)].destroy(sid).catch(() => {});
	}
}
