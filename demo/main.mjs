// The demo's course: Redis, the store and the application are started, users come, Redis and the mirror are killed on
// the way, users go, and the two sides are compared. Called by scripts/demo, which has built the extension and started
// PostgreSQL, as: main.mjs --work DIR --seconds N --users N. Exit status 0 only with the verdict EQUAL.

import { fork } from 'node:child_process';
import { openSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Redis, connect_postgres, create_mirrored_store, delay, forget_pid, last_lines, poll, remember_pid, wait_in_sync } from './servers.mjs';
import { Users } from './users.mjs';
import { View } from './view.mjs';
import { compare, shown } from './verdict.mjs';

const kRedisKilledAt = 0.35;        // of the run
const kMirrorKilledAt = 0.65;
const kRedisAwayFor = 2_000;        // milliseconds
const kSampleEvery = 250;
const kSettleTimeout = 60_000;
const kDifferencesShown = 10;
const kInterrupted = 130;

const { values: options } = parseArgs({
	options: { work: { type: 'string' }, seconds: { type: 'string' }, users: { type: 'string' } },
});
const seconds = Number(options.seconds);
const user_count = Number(options.users);
const work = options.work;

const view = new View();
const redis = new Redis(work);
let app;
let users;

// Everything this process started; PostgreSQL is the calling script's.
async function stop_all() {
	app?.kill('SIGTERM');
	await redis.kill('SIGKILL');
}

async function interrupted() {
	if (users) users.given_up = true;
	await stop_all();
	process.exit(kInterrupted);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, interrupted);
process.stdout.on('error', interrupted);

// listening gives the port; ended never comes but as an error.
function start_app() {
	app = fork(new URL('./app.mjs', import.meta.url), [`--work=${work}`], {
		env: { ...process.env, NODE_ENV: 'production', REDIS_SOCKET: redis.socket, REDIS_PASSWORD: redis.password },
		detached: true,
		// What Express has to say of a Redis that is away would tear the view.
		stdio: ['ignore', 'ignore', openSync(`${work}/app.log`, 'w'), 'ipc'],
	});
	remember_pid(work, 'app', app.pid);
	const ended = new Promise((_, reject) => {
		app.once('exit', (code) => {
			forget_pid(work, 'app');
			reject(new Error(`The application ended by itself (${code}).${last_lines(`${work}/app.log`)}`));
		});
	});
	ended.catch(() => {});
	const listening = new Promise((resolve) => { app.once('message', ({ port }) => resolve(port)); });
	return { listening, ended };
}

// Looks at both sides every now and then; what it gathered is this.sample.
class Watcher {
	constructor(client, redis_client) {
		this.client = client;
		this.redis_client = redis_client;
		this.cleaned = 0;
		this.cleanups = 0;
		this.seen_cleanup = null;
		this.rates = [];
	}

	async look() {
		const { rows: [status] } = await this.client.query(`
			SELECT s.mirror, s.lag_keys, s.lag_milliseconds, s.rejects, s.last_error, s.last_cleanup::text, s.cleaned_rows,
				(SELECT count(*) FROM sessions WHERE expire > now()) AS live,
				(SELECT m.applied FROM session_store.stat_mirror m WHERE m.store = s.store) AS applied
			FROM session_store.status s WHERE s.store = 'sessions'`);
		if (status.last_cleanup !== this.seen_cleanup) {
			this.seen_cleanup = status.last_cleanup;
			this.cleanups += 1;
			this.cleaned += Number(status.cleaned_rows ?? 0);
		}
		const keys = await this.redis_client.dbSize().catch(() => null);
		return this.gather(status, keys);
	}

	gather(status, keys) {
		// applied counts since the mirror started: after a restart the rate is nil for a moment, never negative.
		this.rates.push({ at: Date.now(), applied: Number(status.applied ?? 0), requests: users.totals.requests });
		if (this.rates.length > 12) this.rates.shift();
		const [first, last] = [this.rates[0], this.rates.at(-1)];
		const rate = (name) => Math.max(0, Math.round((last[name] - first[name]) * 1_000 / Math.max(1, last.at - first.at)));
		return {
			elapsed: (Date.now() - view.started) / 1_000, seconds, user_count, users: users.totals,
			redis: keys, postgres: status.live, mirror: status.mirror, lag_keys: status.lag_keys, lag_milliseconds: status.lag_milliseconds,
			rejects: status.rejects, last_error: status.last_error, applied: rate('applied'), requests: rate('requests'),
			cleaned: this.cleaned, cleanups: this.cleanups,
		};
	}

	async run() {
		while (!this.done) {
			try {
				view.show(await this.look());
				this.trouble = null;
			} catch (error) {
				if (this.trouble !== error.message) view.event(`PostgreSQL: ${error.message}`);
				this.trouble = error.message;
			}
			await delay(kSampleEvery);
		}
	}
}

async function kill_redis() {
	await redis.kill('SIGKILL');
	view.event('Redis killed (SIGKILL)');
	await delay(Math.min(kRedisAwayFor, seconds * 100));
	await redis.start();
	view.event('Redis started again');
}

async function mirror_pid(client) {
	const { rows } = await client.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_store mirror'");
	return rows[0]?.pid;
}

async function kill_mirror(client) {
	const pid = await poll(() => mirror_pid(client), kSettleTimeout);
	if (!pid) throw new Error('There is no mirror worker to terminate.');
	process.kill(pid, 'SIGTERM');
	view.event(`Mirror worker terminated (SIGTERM, pid ${pid})`);
	const next = await poll(async () => {
		const now = await mirror_pid(client);
		return now !== pid && now;
	}, kSettleTimeout);
	if (!next) throw new Error('The mirror worker did not come back.');
	view.event(`Mirror worker is back (pid ${next})`);
}

// The run itself: at each event's time, what is to happen then. Gives how many of them did.
async function course(client) {
	const started = Date.now();
	const until = (share) => delay(Math.max(0, started + share * seconds * 1_000 - Date.now()));
	let happened = 0;
	await until(kRedisKilledAt);
	await kill_redis();
	happened += 1;
	await until(kMirrorKilledAt);
	await kill_mirror(client);
	happened += 1;
	await until(1);
	return happened;
}

// Abandoned sessions whose time is over and that are live on neither side.
async function count_expired(client) {
	const over = [...users.left_short].filter(([, end]) => end < Date.now()).map(([sid]) => sid);
	const { rows } = await client.query('SELECT count(*) AS live FROM sessions WHERE sid = ANY ($1) AND expire > now()', [over]);
	return over.length - Number(rows[0].live);
}

function report(result, facts) {
	const count = (kind) => result.differences.filter((entry) => entry.difference === kind).length;
	const t = users.totals;
	const lines = [
		'',
		`Users      ${t.requests} requests: ${t.logins} logins, ${t.touches} touches, ${t.changes} changes, ${t.logouts} logouts, ${t.left} left; ${t.errors} refused while Redis was away`,
		`Expired    ${facts.expired} abandoned sessions ended by themselves; ${facts.cleaned} expired rows cleaned up`,
		`Compared   ${result.compared} live sessions: ${result.equal} equal, ${count('missing_in_postgres')} missing in PostgreSQL, ${count('missing_in_redis')} missing in Redis, ${count('payload')} with another payload, ${count('expire')} with another expiry`,
		`Logged out ${users.logged_out.size} sessions, of which ${result.resurrected.length} still exist`,
	];
	for (const { sid, difference } of result.differences.slice(0, kDifferencesShown)) lines.push(`  ${shown(sid)} ${difference}`);
	for (const { sid, where } of result.resurrected.slice(0, kDifferencesShown)) lines.push(`  ${shown(sid)} logged out, and still in ${where}`);
	const wrong = [
		[result.differences.length > 0, `${result.differences.length} sessions differ`],
		[result.resurrected.length > 0, `${result.resurrected.length} logged-out sessions still exist`],
		[!facts.in_sync, `the mirror was not in sync within ${kSettleTimeout / 1_000} s`],
		[result.compared === 0, 'there was no live session to compare'],
		[users.logged_out.size === 0, 'nobody logged out'],
		[facts.expired === 0, 'no session expired'],
		[facts.cleaned === 0, 'nothing was cleaned up'],
		[facts.events < 2, 'Redis and the mirror were not both killed'],
	].filter(([is]) => is).map(([, text]) => text);
	lines.push(wrong.length === 0
		? `VERDICT: EQUAL (${result.equal} live sessions, each the same in Redis and in PostgreSQL)`
		: `VERDICT: DIFFERENT (${wrong.join('; ')})`);
	process.stdout.write(`${lines.join('\n')}\n`);
	return wrong.length === 0;
}

async function main() {
	await redis.start();
	const superuser = await create_mirrored_store(work, redis, 'demo', { cleanup_interval: '5 s', cleanup_batch_size: 50 });
	const { listening, ended } = start_app();
	const port = await Promise.race([listening, ended]);
	const redis_client = redis.client();
	await redis_client.connect();
	users = new Users(port, user_count);
	const watcher = new Watcher(await connect_postgres(work, 'demo'), redis_client);
	const watching = watcher.run();
	view.event(`${user_count} users arrive`);
	users.start();
	const events = await Promise.race([course(superuser), ended]);
	await Promise.race([users.stop(), ended]);
	view.event('All users are gone');
	const in_sync = await wait_in_sync(superuser, kSettleTimeout);
	view.event(in_sync ? 'The mirror is in sync' : 'The mirror is not in sync');
	await poll(() => watcher.cleaned > 0, 10_000);
	watcher.done = true;
	await watching;
	const result = await compare({ redis: redis_client, pg: superuser, table: 'sessions', logged_out: users.logged_out });
	const equal = report(result, { events, in_sync, expired: await count_expired(superuser), cleaned: watcher.cleaned });
	await stop_all();
	process.exit(equal ? 0 : 1);
}

main().catch(async (error) => {
	process.stdout.write(`${error.message}\nVERDICT: DIFFERENT (the demo could not run to its end)\n`);
	await stop_all();
	process.exit(1);
});
