// Virtual users over HTTP: each logs in, clicks, and logs out or just leaves, again and again. What a user was told by
// the application is remembered, for the verdict: a logout that was answered with success must have ended the session.

import http from 'node:http';

const kThink = [150, 900];          // between two clicks, milliseconds
const kClicks = [3, 25];            // of one visit
const kChangeShare = 0.4;           // of the clicks; the others only touch
const kLogoutShare = 0.5;           // of the visits; the others end by leaving
const kShortShare = 0.3;            // of the visits whose session lives only kShortLife after the last click
const kShortLife = [2_000, 5_000];
const kRetry = 250;

const between = ([low, high]) => low + Math.floor(Math.random() * (high - low + 1));

export class Users {
	// port: where the application listens; count: how many users.
	constructor(port, count) {
		this.port = port;
		this.count = count;
		this.agent = new http.Agent({ keepAlive: true, maxSockets: count });
		this.stopping = false;
		this.given_up = false;          // set when the demo is interrupted: a logout is then not insisted on
		this.sleepers = new Set();
		this.logged_out = new Set();    // sids whose logout succeeded
		this.left_short = new Map();    // sids abandoned with a short life -> when it ends at the latest, Date.now()
		this.totals = { requests: 0, logins: 0, touches: 0, changes: 0, logouts: 0, left: 0, errors: 0, lost: 0 };
	}

	start() {
		this.loops = Array.from({ length: this.count }, (_, i) => this.live(`user-${i}`));
	}

	// Every request under way is waited for; nobody sends another.
	async stop() {
		this.stopping = true;
		for (const wake of this.sleepers) wake();
		await Promise.all(this.loops ?? []);
		this.agent.destroy();
	}

	async live(name) {
		await this.pause(Math.random() * kThink[1]);
		while (!this.stopping) await this.visit(name);
	}

	async visit(name) {
		const short = Math.random() < kShortShare ? between(kShortLife) : null;
		const session = await this.login(name, short);
		if (!session) return;
		for (let clicks = between(kClicks); clicks > 0; clicks -= 1) {
			await this.pause(short ? between(kThink) / 2 : between(kThink));
			if (this.stopping) return;
			if (!await this.click(session)) return;
		}
		if (Math.random() < kLogoutShare) {
			await this.logout(session);
			return;
		}
		this.totals.left += 1;
		if (short) this.left_short.set(session.sid, Date.now() + short + 1_000);
	}

	async login(name, max_age) {
		while (!this.stopping) {
			const answer = await this.request('POST', '/login', null, { user: name, max_age: max_age ?? undefined });
			if (answer.status === 200) {
				this.totals.logins += 1;
				return { sid: answer.body.sid, cookie: answer.cookie };
			}
			await this.failed();
		}
		return null;
	}

	// False when the session is gone: it ran out while the application could not be reached.
	async click(session) {
		const change = Math.random() < kChangeShare;
		while (!this.stopping) {
			const answer = change
				? await this.request('POST', '/cart', session.cookie, { article: between([1, 1e6]), price: between([1, 9999]) / 100 })
				: await this.request('GET', '/page', session.cookie);
			if (answer.status === 200) {
				this.totals[change ? 'changes' : 'touches'] += 1;
				return true;
			}
			if (answer.status === 401) {
				this.totals.lost += 1;
				return false;
			}
			await this.failed();
		}
		return false;
	}

	// Who asked for a logout asks until it is granted, even when the demo is about to end.
	async logout(session) {
		for (;;) {
			const answer = await this.request('POST', '/logout', session.cookie);
			if (answer.status === 204) {
				this.totals.logouts += 1;
				this.logged_out.add(session.sid);
				return;
			}
			this.totals.errors += 1;
			if (this.given_up) return;
			await new Promise((resolve) => setTimeout(resolve, kRetry));
		}
	}

	async failed() {
		this.totals.errors += 1;
		await this.pause(kRetry);
	}

	pause(milliseconds) {
		if (this.stopping) return Promise.resolve();
		return new Promise((resolve) => {
			const wake = () => {
				clearTimeout(timer);
				this.sleepers.delete(wake);
				resolve();
			};
			const timer = setTimeout(wake, milliseconds);
			this.sleepers.add(wake);
		});
	}

	// { status, body, cookie }; status 0 when no answer came.
	request(method, path, cookie, body) {
		this.totals.requests += 1;
		const text = body === undefined ? '' : JSON.stringify(body);
		const headers = { 'content-length': Buffer.byteLength(text) };
		if (text) headers['content-type'] = 'application/json';
		if (cookie) headers.cookie = cookie;
		return new Promise((resolve) => {
			const request = http.request({ host: '127.0.0.1', port: this.port, method, path, headers, agent: this.agent }, (response) => {
				const parts = [];
				response.on('data', (part) => parts.push(part));
				response.on('error', () => resolve({ status: 0 }));
				response.on('end', () => {
					const got = Buffer.concat(parts).toString();
					const json = response.headers['content-type']?.startsWith('application/json');
					resolve({
						status: response.statusCode,
						body: json && got ? JSON.parse(got) : null,
						cookie: response.headers['set-cookie']?.[0].split(';')[0],
					});
				});
			});
			request.on('error', () => resolve({ status: 0 }));
			request.end(text);
		});
	}
}
