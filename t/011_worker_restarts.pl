# Workers that are stopped or die come back by themselves, and take over what still runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Workers;

my $node = start_cluster('restarts', "session_store.databases = 'postgres'", 'restart_after_crash = on');
$node->safe_psql('postgres', 'CREATE EXTENSION session_store');
my $launcher = wait_for_worker($node, 'launcher');
my $supervisor = wait_for_worker($node, 'supervisor', 'postgres');

kill 'TERM', $supervisor;
my $second = wait_for_worker($node, 'supervisor', 'postgres', $supervisor);
ok($second, 'a supervisor that was stopped is started again');
is(worker_pid($node, 'launcher'), $launcher, 'by the same launcher');

kill 'TERM', $launcher;
my $launcher2 = wait_for_worker($node, 'launcher', undef, $launcher);
ok($launcher2, 'a launcher that was stopped is started again');
is(worker_pid($node, 'supervisor', 'postgres'), $second, 'and leaves the running supervisor alone');
kill 'TERM', $second;
my $third = wait_for_worker($node, 'supervisor', 'postgres', $second);
ok($third, 'and starts it again when it ends');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($third)");
$third = wait_for_worker($node, 'supervisor', 'postgres', $third);
ok($third, 'whoever ended it');

# kill -9 makes PostgreSQL restart all backends.
kill 'KILL', $third;
my $dead = $third;
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'session_store supervisor' AND pid <> $dead"),
	'after kill -9 the supervisor comes back with the server');
ok(wait_for_worker($node, 'launcher', undef, $launcher2), 'and the launcher');

$node->stop('immediate');
$node->start;
ok(wait_for_worker($node, 'supervisor', 'postgres'), 'and after an immediate shutdown');

# The extension comes and goes under a running supervisor.
$supervisor = worker_pid($node, 'supervisor', 'postgres');
for (1 .. 3)
{
	$node->safe_psql('postgres', 'DROP EXTENSION session_store; CREATE EXTENSION session_store');
	$node->safe_psql('postgres', "SELECT session_store.create_store('s$_')");
}
$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_interval = '100 ms'");
ok(wait_until_true($node, 'SELECT last_cleanup IS NOT NULL FROM session_store.status'), 'it works for the extension that is there now');
is(worker_pid($node, 'supervisor', 'postgres'), $supervisor, 'and has not been restarted for it');

# A lookalike of the registry without the extension.
$node->safe_psql('postgres', q{
	DROP EXTENSION session_store;
	CREATE SCHEMA IF NOT EXISTS session_store;
	CREATE TABLE session_store.registry (id int, store int, relation int, payload int);
	INSERT INTO session_store.registry VALUES (1, 1, 1, 1)});
my $turn = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
ok(wait_until_true($node, "SELECT state_change > '$turn' AND state = 'idle' FROM pg_stat_activity WHERE pid = $supervisor"),
	'a registry that is not the extension\'s is not read');
$node->safe_psql('postgres', 'DROP SCHEMA session_store CASCADE; CREATE EXTENSION session_store');

# A standby has no workers, until it is promoted.
set_conf($node, 'session_store.databases', 'postgres');
$node->safe_psql('postgres', "SELECT session_store.create_store()");
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 0, has_restoring => 0);
$standby->set_standby_mode;
$standby->start;
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'session_store%'"), '0', 'no worker on a standby');
is($standby->safe_psql('postgres', 'SELECT mirror, postgres_sessions FROM session_store.status'), 'off|0', 'status works there');
$standby->promote;
ok(wait_for_worker($standby, 'supervisor', 'postgres'), 'workers start after promotion');
$standby->stop;

my $before = time;
$node->stop('fast');
cmp_ok(time - $before, '<', 10, 'a fast shutdown does not wait for workers');
done_testing();
