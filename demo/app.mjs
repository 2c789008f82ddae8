// The web application of the demo: Express and express-session as they come from npm, with a store that routes each
// session to the side that owns it (stores.mjs). Run as a process of its own by main.mjs, which gives REDIS_SOCKET,
// REDIS_PASSWORD, PG_SOCKETS, PG_DATABASE and PG_USER and is told over the IPC channel the port, and that the routing has
// changed. It outlives its Redis: a request that needs it while it is away is answered with 503.

import express from 'express';
import session from 'express-session';
import pg from 'pg';
import { createClient } from 'redis';
import { Routing } from './routing.mjs';
import { RoutedStore } from './stores.mjs';

const kHour = 3_600_000;
const kConnections = 10;

const client = createClient({
	password: process.env.REDIS_PASSWORD,
	socket: { path: process.env.REDIS_SOCKET, reconnectStrategy: () => 100 },
	// A web request must not wait for a Redis that is away.
	disableOfflineQueue: true,
});
client.on('error', () => {});
await client.connect();
const pool = new pg.Pool({ host: process.env.PG_SOCKETS, database: process.env.PG_DATABASE, user: process.env.PG_USER, max: kConnections });
pool.on('error', () => {});
const routing = new Routing(pool, () => process.send({ owner_changed: true }));
await routing.start();

const app = express();
app.disable('x-powered-by');
app.use(express.json());
app.use(session({
	store: new RoutedStore(client, pool, routing),
	secret: 'only for the demo',
	resave: false,
	saveUninitialized: false,
	cookie: { maxAge: kHour },
}));

const promised = (call) => new Promise((resolve, reject) => call((error) => (error ? reject(error) : resolve())));

// Answer only when the store has what the request did, so that the user knows; express-session itself would answer
// and lose the error of a save. touch first: save would give the session what was left of its life at the last save.
async function answer(req, res, body) {
	req.session.touch();
	await promised((done) => req.session.save(done));
	res.json(body);
}

function logged_in(req, res, next) {
	if (req.session.user) next();
	else res.status(401).json({ error: 'not logged in' });
}

app.post('/login', async (req, res) => {
	await promised((done) => req.session.regenerate(done));
	req.session.cookie.maxAge = req.body.max_age ?? kHour;
	req.session.user = { id: req.body.user, name: `Zoë “${req.body.user}” 🦊`, roles: ['customer', null, {}] };
	req.session.cart = [];
	req.session.views = 0;
	await answer(req, res, { sid: req.sessionID });
});

// Reads only: express-session then merely touches the session.
app.get('/page', logged_in, (req, res) => res.json({ views: req.session.views, items: req.session.cart.length }));

app.post('/cart', logged_in, async (req, res) => {
	req.session.views += 1;
	req.session.cart.push({ article: req.body.article, price: req.body.price, note: 'a\\b"c\n\u2028é' });
	if (req.session.cart.length > 12) req.session.cart.splice(0, 6);
	await answer(req, res, { views: req.session.views, items: req.session.cart.length });
});

app.post('/logout', async (req, res) => {
	await promised((done) => req.session.destroy(done));
	res.status(204).end();
});

// eslint-disable-next-line no-unused-vars -- Express knows an error handler by its four arguments
app.use((error, req, res, next) => {
	console.error(`${req.method} ${req.path}: ${error.message}`);
	if (!res.headersSent) res.status(503).json({ error: 'session store away' });
});

const server = app.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }));
// A connection closed for idleness just as a user asks over it would look like a refusal.
server.keepAliveTimeout = 0;

// The parent's end, however it came, is ours.
process.on('disconnect', () => process.exit(0));
process.on('SIGINT', () => {});
