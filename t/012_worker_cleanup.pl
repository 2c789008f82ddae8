# Scheduled cleanup: on the store's schedule, by settings as they are now, and in nobody's way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use Workers;

my $node = start_cluster('cleanup', "session_store.databases = 'postgres'");
$node->safe_psql('postgres', q{
	CREATE EXTENSION session_store;
	SELECT session_store.create_store('a'), session_store.create_store('b', 'bytea');
	CREATE FUNCTION fill(store text, rows int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN EXECUTE format('INSERT INTO %I (sid, sess, expire) SELECT gen_random_uuid(), %L, now() - interval ''1 minute'' * i FROM generate_series(1, %s) i',
		store, CASE store WHEN 'a' THEN '{}' ELSE '' END, rows); END $$;
	SELECT fill('a', 100), fill('b', 100)});
wait_for_worker($node, 'supervisor', 'postgres');

# The next one reads all settings before it does anything; the one before may just be about to do what they said.
sub another_supervisor
{
	my $supervisor = worker_pid($node, 'supervisor', 'postgres');
	kill 'TERM', $supervisor;
	return wait_for_worker($node, 'supervisor', 'postgres', $supervisor);
}

# Sets a store's cleanup going, and waits until nothing is left of the expired.
sub cleaned
{
	my ($store, $rows) = @_;
	return wait_until_true($node, "SELECT count(*) = " . ($rows // 0) . " FROM $store WHERE expire < now()");
}

is($node->safe_psql('postgres', 'SELECT count(*) FROM a'), '100', 'a new store is cleaned an interval after it was made');
$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_interval = '200 ms' WHERE store = 'a'");
ok(cleaned('a'), 'a changed interval holds at once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM b'), '100', 'each store has its own');
ok(wait_until_true($node, "SELECT last_cleanup IS NOT NULL FROM session_store.status WHERE store = 'a'"), 'status shows when');
my $last = $node->safe_psql('postgres', "SELECT last_cleanup FROM session_store.status WHERE store = 'a'");
ok(wait_until_true($node, "SELECT last_cleanup > '$last' FROM session_store.status WHERE store = 'a'"), 'it runs again after the interval');
$node->safe_psql('postgres', "SELECT fill('a', 10)");
ok(cleaned('a'), 'and finds what has expired since');
$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_interval = '1 day' WHERE store = 'a'");
another_supervisor();

# A restart neither repeats nor forgets what was done.
$last = $node->safe_psql('postgres', "SELECT last_cleanup FROM session_store.status WHERE store = 'a'");
$node->restart;
wait_for_worker($node, 'supervisor', 'postgres');
$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_interval = '100 ms' WHERE store = 'b'");
ok(cleaned('b'), 'cleanup goes on after a restart');
is($node->safe_psql('postgres', "SELECT last_cleanup = '$last' FROM session_store.status WHERE store = 'a'"), 't', 'and is not repeated for it');

# Batches with a pause, in which no transaction is open; the settings of now hold within a run.
$node->safe_psql('postgres', q{
	UPDATE session_store.stores SET cleanup_batch_size = 10, cleanup_delay = '1 day', cleanup_max_duration = '2 days' WHERE store = 'b';
	SELECT fill('b', 50)});
ok(cleaned('b', 40), 'a run stops for its delay after a batch');
my $supervisor = worker_pid($node, 'supervisor', 'postgres');
ok(wait_until_true($node, "SELECT xact_start IS NULL AND backend_xmin IS NULL AND state = 'idle' FROM pg_stat_activity WHERE pid = $supervisor"),
	'and holds no transaction while it waits');
$node->safe_psql('postgres', q{
	SELECT fill('a', 5);
	UPDATE session_store.stores SET cleanup_interval = '100 ms' WHERE store = 'a'});
ok(cleaned('a'), 'another store is cleaned meanwhile');
my $before = time;
$node->restart;
cmp_ok(time - $before, '<', 10, 'a shutdown does not wait for the run');
wait_for_worker($node, 'supervisor', 'postgres');
$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_delay = '0' WHERE store = 'b'");
ok(cleaned('b'), 'the run goes on with a shorter delay');

# Rows and tables that others have locked.
$node->safe_psql('postgres', "SELECT fill('b', 3)") ;
my $holder = $node->background_psql('postgres');
$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_interval = '1 day'");
another_supervisor();
$node->safe_psql('postgres', "INSERT INTO b (sid, sess, expire) VALUES ('held', '', now() - interval '1 hour')");
$holder->query_safe("BEGIN; SELECT 1 FROM b WHERE sid = 'held' FOR UPDATE");
$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_interval = '100 ms'");
ok(cleaned('b', 1), 'a locked row is passed over');
$holder->query_safe('COMMIT');
ok(cleaned('b'), 'and taken by a later run');
$holder->query_safe('BEGIN; LOCK TABLE b IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', "SELECT fill('a', 5)");
ok(cleaned('a'), 'a locked table keeps no other store waiting');
$holder->query_safe('COMMIT');
$holder->quit;
is(log_matches($node, 'cleanup of store'), 0, 'and is not worth a word');

# What database and role say does not matter to the supervisor.
$node->safe_psql('postgres', q{
	ALTER DATABASE postgres SET default_transaction_read_only = on;
	ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
	ALTER DATABASE postgres SET statement_timeout = '1ms';
	ALTER DATABASE postgres SET idle_in_transaction_session_timeout = '1ms';
	ALTER DATABASE postgres SET enable_indexscan = off;
	ALTER DATABASE postgres SET search_path = nowhere;
	ALTER ROLE ALL SET "TimeZone" = 'Pacific/Chatham';
	CREATE ROLE weak;
	ALTER DATABASE postgres SET role = weak});
my $restarted = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_store supervisor'";
$supervisor = $node->safe_psql('template1', $restarted);
kill 'TERM', $supervisor;
$node->poll_query_until('template1', "SELECT EXISTS ($restarted AND pid <> $supervisor)");
{
	local $ENV{PGOPTIONS} = '-c role=none -c default_transaction_read_only=off -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c search_path=public';
	$node->safe_psql('postgres', "SELECT fill('a', 20), fill('b', 20)");
	ok(cleaned('a') && cleaned('b'), 'settings of database and role do not hold for the supervisor');
	$node->safe_psql('template1', "ALTER DATABASE postgres RESET ALL; ALTER ROLE ALL RESET ALL");
}

# Old tombstones go by themselves.
$node->safe_psql('postgres', q{
	UPDATE session_store.stores SET logout_guard = '1 ms';
	SELECT session_store.upsert('out', '{}', store => 'a'), session_store.expire('out', store => 'a');});
kill 'TERM', worker_pid($node, 'supervisor', 'postgres');
ok(wait_until_true($node, 'SELECT count(*) = 0 FROM session_store.tombstones'), 'tombstones older than logout_guard go');

$node->stop;
done_testing();
