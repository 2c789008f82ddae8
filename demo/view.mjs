// What a person watches: on a terminal a block that is drawn again and again, otherwise a line every two seconds.

const kPlainEvery = 2_000;          // milliseconds
const kEventsShown = 8;

const clock = (seconds) => `${String(Math.floor(seconds / 60)).padStart(2, '0')}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
const number = (value) => (value === null || value === undefined ? '-' : String(value));
const phase = (s) => (s.percent > 0 ? `${s.phase} at ${s.percent} %` : s.phase);
const plural = (count, word) => `${count} ${word}${Number(count) === 1 ? '' : 's'}`;

export class View {
	constructor(stream = process.stdout) {
		this.stream = stream;
		this.live = Boolean(stream.isTTY);
		this.events = [];
		this.drawn = 0;
		this.last_plain = 0;
		this.started = Date.now();
	}

	// Something worth telling, kept on the screen.
	event(text) {
		const line = `${clock((Date.now() - this.started) / 1_000)}  ${text}`;
		this.events.push(line);
		if (!this.live) this.stream.write(`${line}\n`);
	}

	// sample: what main.mjs gathered; see there.
	show(sample) {
		if (this.live) this.draw(this.block(sample));
		else if (Date.now() - this.last_plain >= kPlainEvery) {
			this.last_plain = Date.now();
			this.stream.write(`${this.line(sample)}\n`);
		}
	}

	line(s) {
		return `${clock(s.elapsed)}  ${phase(s)}  redis ${number(s.redis)}  postgres ${number(s.postgres)}  lag ${plural(number(s.lag_keys), 'key')} ${number(s.lag_milliseconds)} ms`
			+ `  copied ${s.applied}/s  requests ${s.requests}/s  logouts ${s.users.logouts}  lost ${s.users.lost}  stale ${s.users.stale}  cleaned up ${s.cleaned}`
			+ `  rejects ${number(s.rejects)}  mirror: ${number(s.mirror)}`;
	}

	block(s) {
		const u = s.users;
		return [
			`session_store   ${clock(s.elapsed)} of ${clock(s.seconds)}   ${plural(s.user_count, 'user')}, ${s.requests} requests/s, ${plural(u.errors, 'error')}`,
			'',
			`  phase           ${phase(s)}`,
			`  live sessions   Redis ${number(s.redis).padStart(7)}   PostgreSQL ${number(s.postgres).padStart(7)}`,
			`  mirror          ${number(s.mirror)}`,
			`  lag             ${plural(number(s.lag_keys), 'key')}, ${number(s.lag_milliseconds)} ms`,
			`  copied          ${s.applied}/s   rejects ${number(s.rejects)}`,
			`  cleaned up      ${plural(s.cleaned, 'expired row')} in ${plural(s.cleanups, 'run')}`,
			`  users           ${u.logins} logins, ${u.touches} touches, ${u.changes} changes, ${u.logouts} logouts, ${u.left} left`,
			`  found wrong     ${u.lost} unexpected logouts, ${plural(u.stale, 'stale read')}`,
			s.last_error ? `  last error      ${s.last_error}` : '',
			'',
			...this.events.slice(-kEventsShown).map((line) => `  ${line}`),
		];
	}

	draw(lines) {
		const width = (this.stream.columns ?? 80) - 1;
		const up = this.drawn > 0 ? `\x1b[${this.drawn}A\r` : '';
		this.stream.write(`${up}\x1b[J${lines.map((line) => [...line].slice(0, width).join('')).join('\n')}\n`);
		this.drawn = lines.length;
	}
}
