// The servers behind the demo and the latency figure: a Redis of our own, and a store in the PostgreSQL that the
// calling script has started, mirrored from it.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createClient } from 'redis';
import pg from 'pg';

const kStartTimeout = 10_000;       // milliseconds

export const delay = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// What the calling script stops by its pid, should we not come to it.
export function remember_pid(work, name, pid) {
	writeFileSync(`${work}/pids/${name}`, `${pid}\n`);
}

export function forget_pid(work, name) {
	rmSync(`${work}/pids/${name}`, { force: true });
}

// The end of a log, to be added to a message; the file is gone when a person could look for it.
export function last_lines(file, count = 10) {
	try {
		return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).map((line) => `\n  ${line}`).join('');
	} catch {
		return '';
	}
}

// Poll until check() gives something true, which is returned; false when the time is over. What check throws is no.
export async function poll(check, timeout, every = 50) {
	const end = Date.now() + timeout;
	for (;;) {
		const got = await Promise.resolve().then(check).catch(() => false);
		if (got) return got;
		if (Date.now() > end) return false;
		await delay(every);
	}
}

// A Redis on a unix socket that keeps what it has acknowledged over a kill -9.
export class Redis {
	constructor(work) {
		this.work = work;
		this.dir = `${work}/redis`;
		this.socket = `${this.dir}/redis.sock`;
		this.password = randomBytes(18).toString('base64url');
		mkdirSync(this.dir, { recursive: true });
		// A file, since a password on a command line is everybody's.
		writeFileSync(`${this.dir}/redis.conf`, [
			'port 0', `unixsocket ${this.socket}`, 'unixsocketperm 777', `dir ${this.dir}`, 'logfile redis.log',
			'daemonize no', 'appendonly yes', 'appendfsync always', 'save ""',
			`requirepass ${this.password}`, `user mirror on >${this.password} ~* &* +@all`, '',
		].join('\n'), { mode: 0o600 });
	}

	client(options = {}) {
		const client = createClient({
			password: this.password,
			socket: { path: this.socket, reconnectStrategy: () => 100 },
			disableOfflineQueue: true,
			...options,
		});
		client.on('error', () => {});
		return client;
	}

	async start() {
		rmSync(this.socket, { force: true });
		this.process = spawn('redis-server', [`${this.dir}/redis.conf`], { cwd: this.dir, stdio: 'ignore', detached: true });
		this.ended = new Promise((resolve) => {
			this.process.on('exit', resolve);
			this.process.on('error', resolve);
		});
		if (this.process.pid) remember_pid(this.work, 'redis', this.process.pid);
		const probe = this.client();
		probe.connect().catch(() => {});
		const up = await poll(async () => await probe.ping() === 'PONG', kStartTimeout);
		probe.destroy();
		if (!up) throw new Error(`Redis did not start.${last_lines(`${this.dir}/redis.log`)}`);
	}

	async kill(signal) {
		if (!this.process?.pid) return;
		this.process.kill(signal);
		await this.ended;
		forget_pid(this.work, 'redis');
	}
}

export function connect_postgres(work, database, user = 'postgres') {
	const client = new pg.Client({ host: work, database, user });
	client.on('error', () => {});
	return client.connect().then(() => client);
}

// A database with a store `sessions` in that phase, owned by a role that is no superuser and used by another. Gives the
// superuser's connection. settings: columns of session_store.stores to set.
export async function create_mirrored_store(work, redis, database, settings = {}, phase = 'dual_redis_primary') {
	const owner = 'demo_owner';
	const admin = await connect_postgres(work, 'postgres');
	await admin.query(`CREATE ROLE ${owner} LOGIN`);
	await admin.query('CREATE ROLE demo_app LOGIN');
	await admin.query(`CREATE DATABASE ${database} OWNER ${owner}`);
	await admin.end();
	const superuser = await connect_postgres(work, database);
	await superuser.query('CREATE EXTENSION session_store');
	await superuser.query('SELECT session_store.grant_admin($1)', [owner]);
	// The option path is for privileged roles; using the server then is granted.
	await superuser.query(`CREATE SERVER demo_redis FOREIGN DATA WRAPPER session_store_redis
		OPTIONS (path ${superuser.escapeLiteral(redis.socket)})`);
	await superuser.query(`GRANT USAGE ON FOREIGN SERVER demo_redis TO ${owner}`);
	await superuser.query(`CREATE USER MAPPING FOR ${owner} SERVER demo_redis
		OPTIONS (username 'mirror', password ${superuser.escapeLiteral(redis.password)})`);
	const user = await connect_postgres(work, database, owner);
	await user.query("SELECT session_store.create_store('sessions')");
	const columns = { redis_server: 'demo_redis', redis_prefix: 'sess:', ...settings };
	const names = Object.keys(columns);
	await user.query(`UPDATE session_store.stores SET ${names.map((name, i) => `${name} = $${i + 1}`).join(', ')}
		WHERE store = 'sessions'`, Object.values(columns));
	await user.query("SELECT session_store.grant_app('demo_app')");
	await user.query("SELECT session_store.set_phase('sessions', $1)", [phase]);
	await user.end();
	return superuser;
}

// True once status has said, several times in a row, that the mirror is in sync and nothing lags.
export function wait_in_sync(client, timeout) {
	const kInARow = 3;
	let seen = 0;
	return poll(async () => {
		const { rows: [status] } = await client.query(
			"SELECT mirror, lag_keys, lag_milliseconds FROM session_store.status WHERE store = 'sessions'");
		const calm = status.mirror.startsWith('in sync') && Number(status.lag_keys) === 0 && Number(status.lag_milliseconds) === 0;
		seen = calm ? seen + 1 : 0;
		return seen >= kInARow;
	}, timeout, 150);
}
