// A load on Redis for the latency figure, as a process of its own: sessions are written and touched at a given rate.
// Called as load.mjs --socket PATH --rate N --sessions N, the password in REDIS_PASSWORD; sends how many changes it has
// made and their count per second to its parent, and ends with it.

import { parseArgs } from 'node:util';
import { createClient } from 'redis';

const kTick = 5;                    // milliseconds
const kTouchShare = 0.3;
const kLife = 3_600;                // seconds
const kReportEvery = 1_000;

const { values: options } = parseArgs({
	options: { socket: { type: 'string' }, rate: { type: 'string' }, sessions: { type: 'string' }, prefix: { type: 'string' } },
});
const rate = Number(options.rate);
const sessions = Number(options.sessions);
const client = createClient({ password: process.env.REDIS_PASSWORD || undefined, socket: { path: options.socket } });
client.on('error', () => process.exit(1));
await client.connect();

const payload = (n) => JSON.stringify({
	cookie: { originalMaxAge: kLife * 1_000, expires: new Date(Date.now() + kLife * 1_000).toISOString(), httpOnly: true, path: '/' },
	user: { id: `user-${n % sessions}`, name: 'Load' }, n, cart: Array.from({ length: 6 }, (_, i) => ({ article: n + i, price: 9.95 })),
});

let done = 0;
let asked = 0;
const started = performance.now();

async function tick() {
	const due = Math.floor((performance.now() - started) * rate / 1_000) - asked;
	asked += due;
	await Promise.all(Array.from({ length: due }, async (_, i) => {
		const key = `${options.prefix}load-${Math.floor(Math.random() * sessions)}`;
		const touched = Math.random() < kTouchShare && await client.expire(key, kLife + (asked + i) % 600);
		if (!touched) await client.set(key, payload(asked + i), { EX: kLife });
		done += 1;
	}));
	setTimeout(tick, kTick);
}

setInterval(() => process.send({ done, per_second: done * 1_000 / (performance.now() - started) }), kReportEvery);
process.on('disconnect', () => process.exit(0));
tick();
