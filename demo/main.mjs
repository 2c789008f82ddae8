// The demo: Redis, the store and the application are started, users come, the sessions are moved from Redis to
// PostgreSQL and back and forth (story.mjs), users go, and what they met on the way is counted. Called by scripts/demo,
// which has built the extension and started PostgreSQL, as: main.mjs --work DIR --seconds N --users N. Exit status 0
// only when nobody was logged out, nothing stale was read, and no session came back after its logout.

import { fork } from 'node:child_process';
import { openSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Redis, connect_postgres, create_mirrored_store, delay, forget_pid, last_lines, poll, remember_pid } from './servers.mjs';
import { Story } from './story.mjs';
import { Users } from './users.mjs';
import { View } from './view.mjs';
import { shown } from './verdict.mjs';

const kSampleEvery = 250;           // milliseconds
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
		env: { ...process.env, NODE_ENV: 'production', REDIS_SOCKET: redis.socket, REDIS_PASSWORD: redis.password, PG_SOCKETS: work, PG_DATABASE: 'demo', PG_USER: 'demo_app' },
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
	const listening = new Promise((resolve) => {
		app.on('message', ({ port, owner_changed }) => {
			if (port) resolve(port);
			if (owner_changed) users?.owner_changes();
		});
	});
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
			SELECT s.phase, s.rollout_percent, s.mirror, s.lag_keys, s.lag_milliseconds, s.rejects, s.last_error, s.last_cleanup::text, s.cleaned_rows,
				(SELECT count(*) FROM sessions WHERE expire > now()) AS live,
				(SELECT m.applied + m.pushed FROM session_store.stat_mirror m WHERE m.store = s.store) AS applied
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
			phase: status.phase, percent: status.rollout_percent,
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

// Abandoned sessions whose time is over and that are live on neither side.
async function count_expired(client) {
	const over = [...users.left_short].filter(([, end]) => end < Date.now()).map(([sid]) => sid);
	const { rows } = await client.query('SELECT count(*) AS live FROM sessions WHERE sid = ANY ($1) AND expire > now()', [over]);
	return over.length - Number(rows[0].live);
}

function report(story, facts) {
	const result = story.result ?? { compared: 0, equal: 0, differences: [], resurrected: [] };
	const count = (kind) => result.differences.filter((entry) => entry.difference === kind).length;
	const t = users.totals;
	const ghosts = new Set([...users.ghosts, ...result.resurrected.map((entry) => entry.sid), ...facts.left_behind]);
	const lines = [
		'',
		`Users      ${t.requests} requests: ${t.logins} logins, ${t.touches} touches, ${t.changes} changes, ${t.logouts} logouts, ${t.left} left; ${t.errors} refused, of which ${story.errors_without_redis ?? '-'} while Redis was away`,
		`Expired    ${facts.expired} abandoned sessions ended by themselves; ${facts.cleaned} expired rows cleaned up`,
		`Compared   ${result.compared} live sessions in both: ${result.equal} equal, ${count('missing_in_postgres')} missing in PostgreSQL, ${count('missing_in_redis')} missing in Redis, ${count('payload')} with another payload, ${count('expire')} with another expiry`,
		`Logged out ${users.logged_out.size} sessions, of which ${ghosts.size} were found again`,
		`Read       ${t.stale} pages older than acknowledged, and ${t.settling} within a second after a change of the owner`,
	];
	if (t.errors > 0) lines.push(`Refused by the application, at last:${last_lines(`${work}/app.log`, 5)}`);
	for (const { sid, difference } of result.differences.slice(0, kDifferencesShown)) lines.push(`  ${shown(sid)} ${difference}`);
	for (const sid of [...ghosts].slice(0, kDifferencesShown)) lines.push(`  ${shown(sid)} found after its logout`);
	const wrong = [
		[t.lost > 0, `${t.lost} unexpected logouts`],
		[t.stale > 0, `${t.stale} stale reads`],
		[ghosts.size > 0, `${ghosts.size} resurrected sessions`],
		[result.differences.length > 0, `${result.differences.length} sessions differ`],
		[result.compared === 0, 'there was no live session to compare'],
		[users.logged_out.size === 0, 'nobody logged out'],
		[facts.expired === 0, 'no session expired'],
		[facts.cleaned === 0, 'nothing was cleaned up'],
		[!facts.told, 'the way was not gone to its end'],
	].filter(([is]) => is).map(([, text]) => text);
	lines.push(wrong.length === 0
		? `VERDICT: EQUAL (0 unexpected logouts, 0 stale reads, 0 resurrected sessions; ${result.equal} live sessions the same in Redis and in PostgreSQL)`
		: `VERDICT: DIFFERENT (${wrong.join('; ')})`);
	process.stdout.write(`${lines.join('\n')}\n`);
	return wrong.length === 0;
}

// Sids whose logout was granted and that are still in the table.
async function left_behind(client) {
	const { rows } = await client.query('SELECT sid FROM sessions WHERE sid = ANY ($1)', [[...users.logged_out]]);
	return rows.map((row) => row.sid);
}

async function main() {
	await redis.start();
	const settings = { cleanup_interval: '5 s', cleanup_batch_size: 50, touch_granularity: '1 s' };
	const superuser = await create_mirrored_store(work, redis, 'demo', settings, 'redis_only');
	const { listening, ended } = start_app();
	const port = await Promise.race([listening, ended]);
	const redis_client = redis.client();
	await redis_client.connect();
	users = new Users(port, user_count);
	const watcher = new Watcher(await connect_postgres(work, 'demo'), redis_client);
	const watching = watcher.run();
	view.event(`${user_count} users arrive; their sessions are in Redis alone`);
	users.start();
	const story = new Story({ client: superuser, redis, redis_client, users, view, seconds });
	const told = await Promise.race([story.tell().catch((error) => view.event(`Stuck: ${error.message}`)), ended]);
	await Promise.race([users.stop(), ended]);
	view.event('All users are gone');
	await poll(() => watcher.cleaned > 0, 10_000);
	watcher.done = true;
	await watching;
	const good = report(story, { told, left_behind: await left_behind(superuser), expired: await count_expired(superuser), cleaned: watcher.cleaned });
	await stop_all();
	process.exit(good ? 0 : 1);
}

main().catch(async (error) => {
	process.stdout.write(`${error.message}\nVERDICT: DIFFERENT (the demo could not run to its end)\n`);
	await stop_all();
	process.exit(1);
});
