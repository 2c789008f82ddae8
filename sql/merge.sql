-- merge: RFC 7396 merge patches, applied to live sessions.
SELECT session_store.create_store();
-- The examples of the RFC's appendix A.
CREATE TABLE examples (n int GENERATED ALWAYS AS IDENTITY, original jsonb, patch jsonb, result jsonb);
INSERT INTO examples (original, patch, result) VALUES
	('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
	('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
	('{"a":"b"}', '{"a":null}', '{}'),
	('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
	('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
	('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
	('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
	('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
	('["a","b"]', '["c","d"]', '["c","d"]'),
	('{"a":"b"}', '["c"]', '["c"]'),
	('{"a":"foo"}', 'null', 'null'),
	('{"a":"foo"}', '"bar"', '"bar"'),
	('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
	('[1,2]', '{"a":"b","c":null}', '{"a":"b"}'),
	('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}');
SELECT count(session_store.upsert('rfc' || n, original)) FROM examples;
SELECT n, result, merged FROM examples, session_store.merge('rfc' || n, patch) AS merged WHERE merged IS DISTINCT FROM result;
SELECT n FROM examples WHERE session_store.get('rfc' || n) IS DISTINCT FROM result;
DROP TABLE examples;
-- Nested values that the patch does not name are kept whole, and a patch twice is no change.
SELECT session_store.upsert('m', '{"cart": {"items": [1, {"x": [2]}], "n": 1}, "user": {"id": 7, "roles": ["a"]}}', user_id => 'anna') AS v \gset
SELECT session_store.merge('m', '{"cart": {"n": 2}, "user": {"id": null}, "flash": {"a": {"b": null, "c": 1}}}');
SELECT session_store.merge('m', '{"cart": {"n": 2}}', ttl => '2 hours') IS NOT NULL;
SELECT version - :v AS grown, user_id, expire - now() BETWEEN '1:59' AND '2:01' AS expire FROM sessions WHERE sid = 'm';
-- Not live.
SELECT session_store.merge('nobody', '{}');
UPDATE sessions SET expire = '2000-01-01' WHERE sid = 'm';
SELECT session_store.merge('m', '{"a": 1}');
-- The user's id follows the payload.
UPDATE session_store.stores SET user_id_path = '{user}' WHERE store = 'sessions';
SELECT session_store.upsert('u', '{"user": "anna"}') > 0;
SELECT session_store.merge('u', '{"user": "berta"}');
SELECT user_id FROM sessions WHERE sid = 'u';
-- Deep patches stop at the stack, not in it.
SELECT session_store.merge('u', (repeat('{"a":', 3000) || '1' || repeat('}', 3000))::jsonb) IS NOT NULL AS deep;
SELECT session_store.drop_store('sessions', false);
