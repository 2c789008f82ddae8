// The verdict: is every live session equal in Redis and in PostgreSQL? A reader of its own, independent of the
// extension: Redis by SCAN, GET and PEXPIRETIME, PostgreSQL by a SELECT from the table.
//
// A session may end between the two readings, so a difference counts only if it is still there when both sides are
// looked at again: `looks` times at most, and only what was different is read again.

import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

const kBatch = 500;
const kTolerance = 1_000;           // of expiry, milliseconds
const kLookAgainAfter = 500;        // milliseconds

// What a person may see of a sid, which is a bearer token.
export const shown = (sid) => `${sid.slice(0, 4)}…`;

async function redis_sids(redis, prefix) {
	const pattern = `${prefix.replace(/[\\*?[\]]/g, '\\$&')}*`;
	const found = new Set();
	for await (const keys of redis.scanIterator({ MATCH: pattern, COUNT: 1_000 })) {
		for (const key of keys) found.add(key.slice(prefix.length));
	}
	return found;
}

// Map sid -> { payload, expire } of those that exist; value and expiry of one session are read at one moment.
async function read_redis(redis, prefix, sids) {
	const all = [...sids];
	const found = new Map();
	for (let start = 0; start < all.length; start += kBatch) {
		const part = all.slice(start, start + kBatch);
		const multi = redis.multi();
		for (const sid of part) multi.get(prefix + sid).pExpireTime(prefix + sid);
		const replies = await multi.exec();
		part.forEach((sid, i) => {
			const [payload, expire] = [replies[2 * i], Number(replies[2 * i + 1])];
			if (payload !== null) found.set(sid, { payload: JSON.parse(payload), expire: expire < 0 ? Infinity : expire });
		});
	}
	return found;
}

// Map sid -> { payload, expire } of the live rows; all of them when sids is null.
async function read_postgres(pg, table, sids) {
	const { rows } = await pg.query({
		text: `SELECT sid, sess::text AS payload, (extract(epoch FROM expire) * 1000)::text AS expire FROM ${table}
			WHERE expire > now() AND ($1::text[] IS NULL OR sid = ANY ($1))`,
		values: [sids && [...sids]],
	});
	return new Map(rows.map((row) => [row.sid, { payload: JSON.parse(row.payload), expire: Number(row.expire) }]));
}

// 'missing_in_postgres', 'missing_in_redis', 'payload', 'expire', or null when equal; undefined when on neither side.
export function difference(redis, postgres, tolerance = kTolerance) {
	if (!redis && !postgres) return undefined;
	if (!postgres) return 'missing_in_postgres';
	if (!redis) return 'missing_in_redis';
	if (!isDeepStrictEqual(redis.payload, postgres.payload)) return 'payload';
	if (redis.expire !== postgres.expire && !(Math.abs(redis.expire - postgres.expire) <= tolerance)) return 'expire';
	return null;
}

// redis: a connected client of node-redis; pg: a client or pool of pg; table: its quoted name; logged_out: sids that
// must exist nowhere, not even as a dead row.
// Gives { compared, equal, differences: [{ sid, difference }], resurrected: [{ sid, where }] }.
export async function compare({ redis, pg, table, prefix = 'sess:', logged_out = new Set(), looks = 10 }) {
	const postgres_live = await read_postgres(pg, table, null);
	let open = new Set([...await redis_sids(redis, prefix), ...postgres_live.keys()]);
	const in_redis = new Set(open);
	let equal = 0;
	let differences = [];
	for (let look = 0; look < looks && open.size > 0; look += 1) {
		if (look > 0) await delay(kLookAgainAfter);
		const redis_side = await read_redis(redis, prefix, open);
		const postgres_side = await read_postgres(pg, table, open);
		differences = [];
		for (const sid of open) {
			const found = difference(redis_side.get(sid), postgres_side.get(sid));
			if (found === null) equal += 1;
			else if (found) differences.push({ sid, difference: found });
		}
		open = new Set(differences.map((entry) => entry.sid));
	}
	const resurrected = [];
	const rows = await pg.query({ text: `SELECT sid FROM ${table} WHERE sid = ANY ($1)`, values: [[...logged_out]] });
	for (const row of rows.rows) resurrected.push({ sid: row.sid, where: 'postgres' });
	for (const sid of in_redis) {
		if (logged_out.has(sid) && await redis.exists(prefix + sid)) resurrected.push({ sid, where: 'redis' });
	}
	return { compared: equal + differences.length, equal, differences, resurrected };
}
