# A repartition that is interrupted by crashes of the server, at every phase and amid copying, with writes
# in between: the store is whole each time, and in the end has the layout that was asked for.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = 20000;
my $node = PostgreSQL::Test::Cluster->new('crash');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'session_store'
log_statement = none
CONF
$node->start;
$node->safe_psql('postgres', <<SQL);
CREATE EXTENSION session_store;
SELECT session_store.create_store();
SELECT count(session_store.upsert('s' || i, jsonb_build_object('i', i), ttl => (2 + i % 90) * '1 hour'::interval))
	FROM generate_series(1, $rows) i;
SELECT session_store.upsert('forever', '{"i": 0}', expire => 'infinity');
CREATE TABLE written (sid text PRIMARY KEY, n int);
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pg_advisory_xact_lock(1);
	RETURN coalesce(NEW, OLD);
END \$\$;
SQL

# What must be there whatever happened: every session, and every write that was acknowledged.
sub whole
{
	my ($name) = @_;
	is($node->safe_psql('postgres', <<SQL), "1|0|0|0", $name);
SELECT count(*) FILTER (WHERE sid = 'forever'), count(*) FILTER (WHERE sid LIKE 's%') - $rows, count(*) - count(DISTINCT sid),
	(SELECT count(*) FROM written w LEFT JOIN sessions s USING (sid) WHERE (s.sess ->> 'n')::int IS DISTINCT FROM w.n) FROM sessions
SQL
}

my $round = 0;
sub write_some
{
	$round++;
	# Sessions that are there, and new ones that sort before them: what is copied has passed these.
	$node->psql('postgres', <<SQL);
SELECT session_store.upsert(sid, jsonb_build_object('n', $round), ttl => (1 + (i + $round) % 90) * '1 hour'::interval)
	FROM generate_series(1, $rows, 997) i, unnest(ARRAY['s' || i, 'new' || $round || '-' || i]) sid;
INSERT INTO written SELECT sid, $round FROM generate_series(1, $rows, 997) i, unnest(ARRAY['s' || i, 'new' || $round || '-' || i]) sid
	ON CONFLICT (sid) DO UPDATE SET n = excluded.n
SQL
}

sub crash
{
	$node->stop('immediate');
	$node->start;
}

# Begins or goes on with a repartition, holds it when it is to leave the state that this says, and crashes the server.
sub interrupt
{
	my ($interval, $condition) = @_;
	$node->safe_psql('postgres', <<SQL);
CREATE OR REPLACE TRIGGER hold BEFORE UPDATE OR DELETE ON session_store.repartitions
	FOR EACH ROW WHEN ($condition) EXECUTE FUNCTION hold();
SQL
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	my ($out, $err) = ('', '');
	my $call = IPC::Run::start([ 'psql', '-X', '-h', $node->host, '-p', $node->port, '-c', "CALL session_store.repartition('sessions', $interval)", 'postgres' ],
		'>', \$out, '2>', \$err);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
		"held for $interval where $condition");
	crash();
	$call->finish;
	$holder->quit;
}

for my $interval ("'1 day'", "'6 hours'", 'NULL')
{
	interrupt($interval, "OLD.phase = 'made'");
	whole("the table is made, for $interval");
	write_some();
	for my $part (1, 4, 8)
	{
		interrupt($interval, "OLD.phase = 'copying' AND OLD.copied >= $rows * $part / 10");
		write_some();
		whole("some is copied, for $interval");
	}
	interrupt($interval, 'OLD.copied_all');
	whole("all is copied, for $interval");
	write_some();
	interrupt($interval, "OLD.phase = 'swapped'");
	whole("the new table is in its place, for $interval");
	write_some();
	$node->safe_psql('postgres', "CALL session_store.repartition('sessions', $interval)");
	whole("and the end, for $interval");
	is($node->safe_psql('postgres', "SELECT partition_interval IS NOT DISTINCT FROM $interval\::interval FROM session_store.stores"), 't', 'the layout is the one asked for');
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_class WHERE (relname LIKE 'sessions\\_new%' OR relname LIKE 'sessions\\_old%') AND relkind IN ('r', 'p')"), 0, 'no table is left over');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM session_store.tombstones'), 0, 'nobody was logged out');
}

# While somebody reads the table all is copied, and waits.
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT 1 FROM sessions LIMIT 1');
my ($out, $err) = ('', '');
my $call = IPC::Run::start([ 'psql', '-X', '-h', $node->host, '-p', $node->port, '-c', "CALL session_store.repartition('sessions', '1 day')", 'postgres' ],
	'>', \$out, '2>', \$err);
ok($node->poll_query_until('postgres', 'SELECT store, operation, done >= ' . ($rows + 1) . ', total >= done, rate > 0 FROM session_store.progress', 'sessions|repartition|t|t|t'),
	'progress says how far it is');
$reader->query_safe('COMMIT');
$reader->quit;
ok($call->finish, 'it ends when the reader has gone') or diag($err);
is($node->safe_psql('postgres', 'SELECT count(*) FROM session_store.progress'), 0, 'and so does its progress');
whole('nothing is lost by it');

$node->stop;
done_testing();
