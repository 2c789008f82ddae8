# What somebody put on the table never runs with more than the rights of the table's owner.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('rights', 'log_statement = none');
my $path = $redis->socket_path;
$node->safe_psql('postgres', qq{
	CREATE ROLE mallory;
	SELECT session_store.grant_admin('mallory');
	CREATE SERVER r FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '$path');
	GRANT USAGE ON FOREIGN SERVER r TO mallory;
	CREATE SCHEMA evil AUTHORIZATION mallory;
});
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 50);

# Each of these tries to make its owner a superuser, and notes as whom it ran.
$node->safe_psql('postgres', q{
	SET ROLE mallory;
	SET search_path = evil;
	SELECT session_store.create_store();
	CREATE TABLE seen (place text, who name, path text);
	CREATE FUNCTION try(place text) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE mallory SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN EXECUTE 'SET SESSION AUTHORIZATION DEFAULT'; EXECUTE 'ALTER ROLE mallory SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
			BEGIN EXECUTE 'CREATE TEMP TABLE pg_temp_trap (a int)'; INSERT INTO evil.seen VALUES ('temporary table', current_user); EXCEPTION WHEN OTHERS THEN NULL; END;
			INSERT INTO evil.seen VALUES (place, current_user, current_setting('search_path'));
			RETURN true;
		END $$;
	CREATE FUNCTION in_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM evil.try(TG_OP || ' trigger'); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
	CREATE TRIGGER a_trap BEFORE INSERT OR UPDATE OR DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION in_trigger();
	CREATE FUNCTION in_index(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN PERFORM evil.try('index'); RETURN $1; END $$;
	CREATE INDEX trap ON sessions (evil.in_index(user_id));
	ALTER TABLE sessions ADD COLUMN trap boolean DEFAULT evil.try('default');
	ALTER TABLE sessions ADD CHECK (evil.try('check'));
	TRUNCATE seen;
	-- Names that a careless search path would find first.
	CREATE FUNCTION unnest(text[], jsonb[], timestamptz[]) RETURNS SETOF record LANGUAGE sql AS 'SELECT 1, 2, 3 FROM (SELECT evil.try(''unnest'')) x';
	CREATE FUNCTION sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1 FROM (SELECT evil.try(''sha256'')) x';
	ALTER ROLE mallory SET search_path = evil;
	UPDATE session_store.stores SET redis_server = 'r';
	SELECT session_store.set_phase('sessions', 'dual_redis_primary');
});
ok(wait_in_sync($node), 'the mirror gets in sync');
$redis->command('SET', 'sess:1', '{"n": "changed"}', 'EX', 1000);
$redis->command('EXPIRE', 'sess:2', 2000);
$redis->command('DEL', 'sess:3');
$redis->command('SET', 'sess:bad', '{', 'EX', 1000);
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM session_store.rejects'), 'a reject is written');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 49 FROM evil.sessions}), 'sessions are mirrored');
ok($node->poll_query_until('postgres', q{SELECT count(DISTINCT place) >= 6 FROM evil.seen}), 'every trap was sprung');
note($node->safe_psql('postgres', 'SELECT DISTINCT place, who, path FROM evil.seen ORDER BY 1'));
is($node->safe_psql('postgres', q{SELECT count(*) FROM evil.seen WHERE place IN ('unnest', 'sha256', 'temporary table')}), 0,
	'but for those that a fixed search path and a restricted operation rule out');
is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT who, ',') FROM evil.seen"), 'mallory', 'all as the owner of the table');
is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT path, ',') FROM evil.seen"), 'pg_catalog, pg_temp', 'with a fixed search path');

# A deferred trigger would run at the commit, when the owner's rights are put down.
$node->safe_psql('postgres', q{
	SET ROLE mallory;
	CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON evil.sessions
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.in_trigger();
});
$redis->command('SET', 'sess:deferred', '{}', 'EX', 1000);
ok(wait_for_status($node, '^failing: .*deferred trigger'), 'a deferred trigger is refused');
$node->safe_psql('postgres', 'DROP TRIGGER deferred ON evil.sessions');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM evil.sessions WHERE sid = 'deferred'}), 'until it is gone');

# Row-level security that is forced on the owner hides no row from the mirror.
$node->safe_psql('postgres', q{
	SET ROLE mallory;
	ALTER TABLE evil.sessions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY trap ON evil.sessions USING (evil.try('policy') AND false);
});
$redis->command('SET', 'sess:1', '{"n": "changed under a policy"}', 'EX', 1000);
$redis->command('DEL', 'sess:deferred');
ok($node->poll_query_until('postgres', q{SELECT sess->>'n' = 'changed under a policy' FROM evil.sessions WHERE sid = '1'}),
	'forced row-level security does not keep the mirror out');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM evil.sessions WHERE sid = 'deferred'}), 'nor from deleting');

# A server that the owner may use no longer.
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER r FROM mallory');
ok(wait_for_status($node, '^failing: permission denied for foreign server'), 'a revoked server is used no longer');
$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER r TO mallory');
ok(wait_in_sync($node), 'and again once it is granted');
is($node->safe_psql('postgres', 'SELECT rolsuper FROM pg_roles WHERE rolname = $$mallory$$'), 'f', 'nobody became a superuser');

$node->stop;
done_testing();
