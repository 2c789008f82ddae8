# What keeps workers from running is said in words, in status and once in the log.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use Test::More;
use Workers;

# A store in a dual phase that is bound to this cluster and database, without asking any Redis.
my $dual = q{UPDATE session_store.registry SET phase = 'dual_redis_primary',
	bound_system = (SELECT system_identifier FROM pg_control_system()),
	bound_database = (SELECT oid FROM pg_database WHERE datname = current_database())};

sub mirror_says
{
	my ($node, $words, $name) = @_;
	ok(wait_until_true($node, "SELECT mirror LIKE '$words%' FROM session_store.status"), $name)
		or diag($node->safe_psql('postgres', 'SELECT mirror FROM session_store.status'));
}

# Not preloaded: every function works, and what needs the worker says so.
my $node = PostgreSQL::Test::Cluster->new('obstacles');
$node->init;
$node->append_conf('postgresql.conf', "session_store.databases = 'postgres'\nsession_store.naptime = '50ms'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION session_store; SELECT session_store.create_store()');
is($node->safe_psql('postgres', q{
	SELECT session_store.upsert('a', '{"n": 1}') > 0;
	SELECT session_store.get('a');
	SELECT session_store.touch('a'), session_store.expire('a')}), qq(t\n{"n": 1}\nt|t),
	'session functions work without the library preloaded');
$node->safe_psql('postgres', "INSERT INTO sessions (sid, sess, expire) VALUES ('old', '{}', now() - interval '1 day')");
is($node->safe_psql('postgres', 'CALL session_store.cleanup()'), '1', 'and so does cleanup');
is($node->safe_psql('postgres', 'SELECT mirror, cleaned_rows FROM session_store.status'), 'off|1', 'and status');
$node->safe_psql('postgres', $dual);
mirror_says($node, 'not running: session_store is not in shared_preload_libraries; add it', 'status says what is missing for a mirror');
$node->safe_psql('postgres', 'DROP EXTENSION session_store; CREATE EXTENSION session_store; DROP TABLE sessions; SELECT session_store.create_store()');

# Preloaded, but no room: PostgreSQL's own launcher for logical replication takes a place, ours another.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'session_store'\nmax_worker_processes = 2\n");
$node->restart;
$node->safe_psql('postgres', $dual);
wait_for_worker($node, 'launcher');
mirror_says($node, 'not running: no free worker slot; raise max_worker_processes', 'status says that the supervisor has no slot');
is(log_matches($node, 'no free worker slot for the session_store supervisor'), 1, 'the log says it once');

$node->adjust_conf('postgresql.conf', 'max_worker_processes', '3');
$node->restart;
wait_for_worker($node, 'supervisor', 'postgres');
mirror_says($node, 'failing: no free worker slot; raise max_worker_processes', 'status says that the mirror has no slot');
is(log_matches($node, 'no free worker slot for the mirror of store "sessions"'), 1, 'the log says it once');

$node->adjust_conf('postgresql.conf', 'max_worker_processes', '8');
$node->restart;
my $supervisor = wait_for_worker($node, 'supervisor', 'postgres');

# Not listed.
set_conf($node, 'session_store.databases', 'elsewhere');
mirror_says($node, 'not running: database "postgres" is not in session_store.databases; add it', 'status says that the database is not listed');
ok(wait_for_no_worker($node, 'postgres'), 'and nothing runs there');
set_conf($node, 'session_store.databases', 'postgres');
wait_for_worker($node, 'supervisor', 'postgres');

# Bound elsewhere.
$node->safe_psql('postgres', 'UPDATE session_store.registry SET bound_system = 1');
mirror_says($node, 'paused: this store was bound to another cluster or database; call session_store.set_phase()', 'status says that the store is bound elsewhere');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'session_store mirror'"),
	'and no mirror runs');
$node->safe_psql('postgres', "CREATE DATABASE copy TEMPLATE postgres");
is($node->safe_psql('copy', 'SELECT mirror FROM session_store.status'),
	'paused: this store was bound to another cluster or database; call session_store.set_phase() here to start it', 'so says a copy of the database');
$node->safe_psql('postgres', "UPDATE session_store.registry SET phase = 'pg_only'");
mirror_says($node, 'off', 'and off after the dual phase');

$node->stop;
done_testing();
