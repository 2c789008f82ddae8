# What a store's owner puts on the table never runs with more than the owner's rights when a worker cleans it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use Workers;

my $node = start_cluster('rights', "session_store.databases = 'postgres'");

# The attacker's own session: one of a superuser who has SET ROLE could go back to what he is.
sub as_attacker
{
	my ($statements) = @_;
	return $node->safe_psql('postgres', $statements, extra_params => [ '-U', 'attacker' ]);
}

$node->safe_psql('postgres', q{
	CREATE EXTENSION session_store;
	CREATE ROLE attacker LOGIN;
	CREATE ROLE victim LOGIN;
	GRANT CREATE ON SCHEMA public TO attacker, victim;
	GRANT CREATE ON DATABASE postgres TO attacker;
	SELECT session_store.grant_admin('attacker'), session_store.grant_admin('victim');
	SET ROLE victim;
	SELECT session_store.create_store('mine');
	RESET ROLE;
	ALTER DATABASE postgres SET search_path = public, pg_catalog});
my $supervisor = wait_for_worker($node, 'supervisor', 'postgres');
kill 'TERM', $supervisor;
wait_for_worker($node, 'supervisor', 'postgres', $supervisor);
as_attacker(q{
	SELECT session_store.create_store('trap');
	CREATE TABLE public.who (way text, who name, session name, result text);
	CREATE FUNCTION public.try(way text, statement text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE statement;
		INSERT INTO public.who VALUES (way, current_user, session_user, 'done');
	EXCEPTION WHEN OTHERS THEN
		INSERT INTO public.who VALUES (way, current_user, session_user, SQLERRM);
	END $$;
	-- Everything that would make its owner a superuser, or reach another's sessions.
	CREATE FUNCTION public.attack(way text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM public.try(way || ': alter role', 'ALTER ROLE attacker SUPERUSER');
		PERFORM public.try(way || ': set role', 'SET ROLE postgres');
		PERFORM public.try(way || ': reset role', 'RESET ROLE');
		PERFORM public.try(way || ': session', 'SET SESSION AUTHORIZATION postgres');
		PERFORM public.try(way || ': others', 'SELECT * FROM public.mine');
		PERFORM public.try(way || ': files', 'SELECT pg_read_file(''postgresql.conf'')');
		PERFORM public.try(way || ': temp', 'CREATE TEMP TABLE registry ()');
		PERFORM public.try(way || ': registry', 'UPDATE session_store.registry SET relation = ''public.mine''');
		PERFORM public.try(way || ': cursor', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1');
		PERFORM public.try(way || ': prepare', 'PREPARE p AS SELECT 1');
	END $$;
	GRANT EXECUTE ON FUNCTION public.attack, public.try TO PUBLIC;
	GRANT INSERT ON public.who TO PUBLIC;
	CREATE FUNCTION public.on_delete() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN PERFORM public.attack(TG_NAME); RETURN CASE TG_WHEN WHEN 'BEFORE' THEN OLD END; END $$;
	CREATE TRIGGER a_before_row BEFORE DELETE ON trap FOR EACH ROW EXECUTE FUNCTION public.on_delete();
	CREATE TRIGGER a_after_row AFTER DELETE ON trap FOR EACH ROW EXECUTE FUNCTION public.on_delete();
	CREATE TRIGGER a_after_statement AFTER DELETE ON trap FOR EACH STATEMENT EXECUTE FUNCTION public.on_delete();
	CREATE CONSTRAINT TRIGGER a_deferred AFTER DELETE ON trap DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION public.on_delete();
	-- Lookalikes of what the batch uses, where a careless search_path would find them.
	CREATE SCHEMA attacker;
	CREATE FUNCTION public.date_bin(interval, timestamptz, timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN PERFORM public.attack('date_bin'); RETURN $2; END $$;
	CREATE FUNCTION public.later(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS
		$$ BEGIN PERFORM public.attack('operator'); RETURN true; END $$;
	CREATE OPERATOR public.<= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = public.later);
	CREATE OPERATOR public.>= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = public.later)});

# A policy and an index expression, which a scan of the table evaluates.
as_attacker(q{
	CREATE FUNCTION public.policy() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.attack('policy'); RETURN true; END $$;
	ALTER TABLE trap ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY p ON trap USING (public.policy());
	INSERT INTO trap (sid, sess, expire) VALUES ('a', '{}', now() - interval '1 hour');
	TRUNCATE public.who;
	UPDATE session_store.stores SET cleanup_interval = '100 ms'});
ok(wait_until_true($node, 'SELECT count(*) = 0 FROM trap'), 'the trapped store is cleaned');
my $ways = $node->safe_psql('postgres', "SELECT string_agg(DISTINCT split_part(way, ':', 1), ',' ORDER BY split_part(way, ':', 1)) FROM who");
is($ways, 'a_after_row,a_after_statement,a_before_row,a_deferred', 'every trigger ran, the deferred one too');
is($node->safe_psql('postgres', "SELECT DISTINCT who FROM who"), 'attacker', 'as the owner');
is($node->safe_psql('postgres', "SELECT DISTINCT way FROM who WHERE result = 'done'"), '', 'and reached nothing');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_roles WHERE rolname = 'attacker' AND rolsuper"), '0', 'nobody became a superuser');
is($node->safe_psql('postgres', "SELECT DISTINCT result FROM who WHERE way LIKE '%: set role'"),
	'cannot set parameter "role" within security-definer function', 'no role can be set');

# Putting the trigger off to the commit, where the worker is itself again.
as_attacker(q{
	CREATE FUNCTION public.put_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN OLD; END $$;
	CREATE TRIGGER b_put_off BEFORE DELETE ON trap FOR EACH ROW EXECUTE FUNCTION public.put_off();
	TRUNCATE public.who;
	INSERT INTO trap (sid, sess, expire) VALUES ('a', '{}', now() - interval '1 hour')});
ok(wait_until_true($node, "SELECT last_error LIKE 'cleanup: cannot fire deferred trigger%' FROM session_store.status WHERE store = 'trap'"),
	'a trigger put off again is refused, and status says so');
# A batch before the row was there has left what is called with no row as well.
is($node->safe_psql('postgres', "SELECT count(*) FROM who WHERE way NOT LIKE 'policy%' AND way NOT LIKE 'a_after_statement%'"), '0',
	'nothing of the failed batch stays');

# One store that fails keeps no other one from being cleaned.
$node->safe_psql('postgres', q{
	SET ROLE victim;
	INSERT INTO mine (sid, sess, expire) VALUES ('a', '{}', now() - interval '1 hour');
	UPDATE session_store.stores SET cleanup_interval = '100 ms'});
ok(wait_until_true($node, 'SELECT count(*) = 0 FROM mine'), 'another store is cleaned meanwhile');
my $turn = $node->safe_psql('postgres', "SELECT last_cleanup FROM session_store.status WHERE store = 'mine'");
ok(wait_until_true($node, "SELECT last_cleanup > '$turn' FROM session_store.status WHERE store = 'mine'"), 'again and again');
is(log_matches($node, 'cleanup of store "trap" failed'), 1, 'the failure is logged once');
as_attacker('DROP TRIGGER b_put_off ON trap');
ok(wait_until_true($node, 'SELECT count(*) = 0 FROM trap'), 'it is tried again by itself');
ok(wait_until_true($node, "SELECT last_error IS NULL FROM session_store.status WHERE store = 'trap'"), 'and the error is gone when it works');

# A trigger that never ends is ended by the store's own time limit.
as_attacker(q{
	CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET statement_timeout = 0; PERFORM pg_sleep(1000); RETURN OLD; END $$;
	CREATE TRIGGER b_linger BEFORE DELETE ON trap FOR EACH ROW EXECUTE FUNCTION public.linger();
	UPDATE session_store.stores SET cleanup_max_duration = '1 second';
	INSERT INTO trap (sid, sess, expire) VALUES ('a', '{}', now() - interval '1 hour')});
ok(wait_until_true($node, "SELECT last_error LIKE 'cleanup: canceling statement%' FROM session_store.status WHERE store = 'trap'"),
	'a trigger that does not end is cancelled');

# Rules, a table of another kind under the same name, a table given away.
as_attacker(q{
	DROP TRIGGER b_linger ON trap;
	CREATE RULE r AS ON DELETE TO trap DO ALSO SELECT public.attack('rule')});
ok(wait_until_true($node, "SELECT last_error LIKE 'cleanup: DO ALSO rules are not supported%' OR (SELECT count(*) = 0 FROM trap) FROM session_store.status WHERE store = 'trap'"),
	'a rule is refused or runs as the owner');
is($node->safe_psql('postgres', "SELECT count(*) FROM who WHERE who <> 'attacker'"), '0', 'nothing ran as anybody else');
is($node->safe_psql('postgres', "SELECT rolsuper FROM pg_roles WHERE rolname = 'attacker'"), 'f', 'nobody became a superuser');
$node->safe_psql('postgres', 'DROP RULE r ON trap; ALTER TABLE trap OWNER TO victim; GRANT ALL ON who TO victim');
$node->safe_psql('postgres', q{INSERT INTO trap (sid, sess, expire) VALUES ('b', '{}', now() - interval '1 hour')});
ok(wait_until_true($node, "SELECT EXISTS (SELECT FROM who WHERE who = 'victim')"), 'after a change of owner the new one\'s rights hold');

$node->stop;
done_testing();
