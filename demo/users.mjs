// Virtual users over HTTP: each logs in, clicks, and logs out or just leaves, again and again. What a user was told by
// the application is remembered, and every answer is held against it:
//   lost          a session that should still live was not found
//   stale         a page showed less than an earlier answer had acknowledged
//   resurrected   a session was found after its logout had been granted

import http from 'node:http';

const kThink = [150, 900];          // between two clicks, milliseconds
const kClicks = [3, 25];            // of one visit
const kChangeShare = 0.4;           // of the clicks; the others only touch
const kLogoutShare = 0.5;           // of the visits; the others end by leaving
const kShortShare = 0.3;            // of the visits whose session lives only kShortLife after the last click
const kShortLife = [2_000, 5_000];
const kGranularity = 3_000;         // how much longer a session may live than it was asked to
const kRetry = 250;
const kSettling = 1_000;            // after a change of the owner, in which an old value may still be read
const kClockMargin = 100;
const kLookAgain = [500, 6_000];    // after a logout

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
		this.looks = [];
		this.logged_out = new Set();    // sids whose logout succeeded
		this.left_short = new Map();    // sids abandoned with a short life -> when it ends at the latest, Date.now()
		this.owner_changed_at = -Infinity;
		this.ghosts = new Set();        // sids that were found after their logout
		this.totals = { requests: 0, logins: 0, touches: 0, changes: 0, logouts: 0, left: 0, errors: 0, expired: 0, lost: 0, stale: 0, settling: 0 };
	}

	// To be called before and after what moves sessions to another owner, and when the application has learned of it.
	owner_changes() {
		this.owner_changed_at = Date.now();
	}

	start() {
		this.loops = Array.from({ length: this.count }, (_, i) => this.live(`user-${i}`));
	}

	// Every request under way is waited for; nobody sends another.
	async stop() {
		this.stopping = true;
		for (const wake of this.sleepers) wake();
		await Promise.all(this.loops ?? []);
		await Promise.all(this.looks);
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
		if (short) this.left_short.set(session.sid, Date.now() + short + kGranularity);
	}

	async login(name, max_age) {
		while (!this.stopping) {
			const answer = await this.request('POST', '/login', null, { user: name, max_age: max_age ?? undefined });
			if (answer.status === 200) {
				this.totals.logins += 1;
				return { sid: answer.body.sid, cookie: answer.cookie, life: max_age ?? Infinity, views: 0, used: answer.sent };
			}
			await this.failed();
		}
		return null;
	}

	// False when the session is gone.
	async click(session) {
		const change = Math.random() < kChangeShare;
		while (!this.stopping) {
			const answer = change
				? await this.request('POST', '/cart', session.cookie, { article: between([1, 1e6]), price: between([1, 9999]) / 100 })
				: await this.request('GET', '/page', session.cookie);
			if (answer.status === 200) {
				this.totals[change ? 'changes' : 'touches'] += 1;
				this.judge(session, answer, change);
				return true;
			}
			if (answer.status === 401) {
				// A short session runs out where the answer took longer than it lives.
				this.totals[Date.now() - session.used + kClockMargin >= session.life ? 'expired' : 'lost'] += 1;
				return false;
			}
			await this.failed();
		}
		return false;
	}

	// What was acknowledged once must be seen from then on.
	judge(session, answer, change) {
		const seen = answer.body.views - (change ? 1 : 0);
		if (seen < session.views) this.totals[Date.now() - this.owner_changed_at < kSettling ? 'settling' : 'stale'] += 1;
		session.views = answer.body.views;
		session.used = answer.sent;
	}

	// Who asked for a logout asks until it is granted, even when the demo is about to end.
	async logout(session) {
		for (;;) {
			const answer = await this.request('POST', '/logout', session.cookie);
			if (answer.status === 204) {
				this.totals.logouts += 1;
				this.logged_out.add(session.sid);
				await this.look_for_ghost(session);
				this.looks.push(this.pause(between(kLookAgain)).then(() => this.look_for_ghost(session)));
				return;
			}
			this.totals.errors += 1;
			if (this.given_up) return;
			await new Promise((resolve) => setTimeout(resolve, kRetry));
		}
	}

	async look_for_ghost(session) {
		const answer = await this.request('GET', '/page', session.cookie);
		if (answer.status === 200) this.ghosts.add(session.sid);
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

	// { status, body, cookie, sent }; status 0 when no answer came, sent is when it was asked.
	request(method, path, cookie, body) {
		this.totals.requests += 1;
		const sent = Date.now();
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
						sent,
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
