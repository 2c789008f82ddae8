// An Express application whose sessions connect-pg-simple keeps, as it comes from npm, in the table "session" of the
// database that libpq's variables name. It listens on the unix socket of its one argument and ends with its input.

import express from 'express';
import session from 'express-session';
import connectPgSimple from 'connect-pg-simple';
import pg from 'pg';

const kHour = 3_600_000;

const errors = [];
const note = (...words) => errors.push(words.map(String).join(' '));
const pool = new pg.Pool({ max: 4 });
pool.on('error', (error) => note('pool:', error));
const store = new (connectPgSimple(session))({ pool, pruneSessionInterval: false, errorLog: note });
const promised = (call) => new Promise((resolve, reject) => call((error) => (error ? reject(error) : resolve())));

// A request that has read its session and waits to be let go on.
let held = null;

const app = express();
app.get('/errors', (_req, res) => res.json(errors));
app.get('/held', (_req, res) => res.json(held !== null));
app.get('/release', (_req, res) => {
	held();
	held = null;
	res.json(true);
});
app.get('/prune', async (_req, res) => {
	await promised((done) => store.pruneSessions(done));
	res.json(true);
});

app.use(session({ store, secret: 'only for the tests', resave: false, saveUninitialized: false, cookie: { maxAge: kHour } }));
app.get('/visit', (req, res) => {
	req.session.visits = (req.session.visits ?? 0) + 1;
	res.json(req.session.visits);
});
app.get('/read', (req, res) => res.json({ visits: req.session.visits ?? null, user: req.session.passport?.user ?? null }));
app.get('/login/:user', async (req, res) => {
	await promised((done) => req.session.regenerate(done));
	req.session.passport = { user: req.params.user };
	res.json(req.sessionID);
});
app.get('/hold', async (req, res) => {
	await new Promise((release) => { held = release; });
	req.session.visits = 'late';
	res.json(true);
});
app.get('/logout', async (req, res) => {
	await promised((done) => req.session.destroy(done));
	res.json(true);
});
app.use((error, _req, res, _next) => {
	note(error);
	if (!res.headersSent) res.status(500);
	res.end();
});
// What fails after the answer, such as a save.
process.on('unhandledRejection', note);

app.listen(process.argv[2]);
process.stdin.on('end', () => process.exit(0)).resume();
