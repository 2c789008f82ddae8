// How long a change made in Redis takes to be visible through session_store.get, while other changes go on: a probe key
// is SET, then asked for in PostgreSQL in a tight loop on one connection until its value is there. The time counts from
// before the SET is sent. Called by scripts/latency; prints the figures, and exits 0 only when they are within limits.
//
// Without --pg it makes its own store in the PostgreSQL of --work; with --pg, --redis and so on it measures a store that
// is there and mirrored.

import { fork } from 'node:child_process';
import { parseArgs } from 'node:util';
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { createClient } from 'redis';
import { Redis, connect_postgres, create_mirrored_store, delay, poll, wait_in_sync } from './servers.mjs';

const kSessions = 5_000;            // that the load works on
const kWarmUp = 3_000;              // milliseconds
const kPause = 40;                  // longest between two probes
const kGiveUp = 10_000;             // for one probe
const kRateTolerance = 0.95;        // of the asked rate that the load must have reached

const { values: options } = parseArgs({
	options: {
		work: { type: 'string' }, seconds: { type: 'string', default: '30' }, rate: { type: 'string', default: '1000' },
		'max-median': { type: 'string', default: '50' }, 'max-p99': { type: 'string', default: '250' },
		pg: { type: 'string' }, redis: { type: 'string' }, store: { type: 'string', default: 'sessions' },
		prefix: { type: 'string', default: 'sess:' }, json: { type: 'boolean', default: false },
	},
});

let own_redis;
let load;

async function stop_all() {
	load?.kill('SIGTERM');
	await own_redis?.kill('SIGKILL');
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
	process.on(signal, async () => {
		await stop_all();
		process.exit(130);
	});
}

// { postgres, redis: client, socket, password } of what is to be measured.
async function servers() {
	if (options.pg) {
		const postgres = new pg.Client({ connectionString: options.pg });
		await postgres.connect();
		const password = process.env.REDIS_PASSWORD;
		const redis = createClient({ password: password || undefined, socket: { path: options.redis } });
		redis.on('error', () => {});
		await redis.connect();
		return { postgres, redis, socket: options.redis, password };
	}
	own_redis = new Redis(options.work);
	await own_redis.start();
	await (await create_mirrored_store(options.work, own_redis, 'demo')).end();
	const postgres = await connect_postgres(options.work, 'demo');
	if (!await wait_in_sync(postgres, 30_000)) throw new Error('The mirror does not come in sync.');
	const redis = own_redis.client();
	await redis.connect();
	return { postgres, redis, socket: own_redis.socket, password: own_redis.password };
}

// Milliseconds until the value was visible, or throws.
async function probe({ postgres, redis }, value) {
	const sid = `probe-${value % 20}`;
	const query = { name: 'probe', text: "SELECT session_store.get($1, store => $2)->>'probe' AS probe", values: [sid, options.store] };
	const started = performance.now();
	await redis.set(options.prefix + sid, JSON.stringify({ probe: String(value) }), { EX: 600 });
	for (;;) {
		const { rows } = await postgres.query(query);
		const took = performance.now() - started;
		if (rows[0].probe === String(value)) return took;
		if (took > kGiveUp) throw new Error(`A change was not visible within ${kGiveUp / 1_000} s.`);
	}
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)];

function report(times, rate) {
	const sorted = times.toSorted((a, b) => a - b);
	const figures = {
		probes: sorted.length, median_ms: quantile(sorted, 0.5), p90_ms: quantile(sorted, 0.9), p99_ms: quantile(sorted, 0.99),
		max_ms: sorted.at(-1), changes_per_second: rate,
	};
	for (const name of Object.keys(figures)) figures[name] = Number(figures[name].toFixed(1));
	const ok = figures.median_ms <= Number(options['max-median']) && figures.p99_ms <= Number(options['max-p99'])
		&& rate >= Number(options.rate) * kRateTolerance;
	if (options.json) process.stdout.write(`${JSON.stringify({ ...figures, ok })}\n`);
	else {
		process.stdout.write(`From SET in Redis to session_store.get, beside ${figures.changes_per_second} changes/s: `
			+ `median ${figures.median_ms} ms, p90 ${figures.p90_ms} ms, p99 ${figures.p99_ms} ms, max ${figures.max_ms} ms (${figures.probes} probes)\n`
			+ `${ok ? 'within' : 'NOT within'} the limits: median ${options['max-median']} ms, p99 ${options['max-p99']} ms, at ${options.rate} changes/s\n`);
	}
	return ok;
}

async function main() {
	const there = await servers();
	let rate = { done: 0, per_second: 0 };
	load = fork(new URL('./load.mjs', import.meta.url),
		['--socket', there.socket, '--rate', options.rate, '--sessions', String(kSessions), '--prefix', options.prefix],
		{ env: { ...process.env, REDIS_PASSWORD: there.password ?? '' } });
	let load_ended = false;
	load.on('exit', () => { load_ended = true; });
	load.on('message', (message) => { rate = message; });
	if (!await poll(() => rate.done > 0, 10_000)) throw new Error('The load does not start.');
	await delay(kWarmUp);
	const [first_done, first_at] = [rate.done, performance.now()];
	const start = randomBytes(4).readUInt32LE();
	const times = [];
	while (performance.now() - first_at < Number(options.seconds) * 1_000) {
		times.push(await probe(there, start + times.length));
		if (load_ended) throw new Error('The load has ended by itself.');
		await delay(Math.random() * kPause);
	}
	const seen = rate.done;
	await poll(() => rate.done > seen, 3_000);
	const ok = report(times, (rate.done - first_done) * 1_000 / (performance.now() - first_at));
	await stop_all();
	process.exit(ok ? 0 : 1);
}

main().catch(async (error) => {
	process.stderr.write(`${error.message}\n`);
	await stop_all();
	process.exit(2);
});
