# The space of large partitions that are over: given back by the worker in slices, across crashes at any
# point of it, on a standby, in nobody's way; and what is no leftover of ours is left alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Workers;

my $node = start_cluster('large', "session_store.databases = 'postgres'");
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('large_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

# A partition of expired sessions, a third of which is TOAST, is attached by its caller. What keeps it from
# being dropped is made by event triggers, when the worker has just detached it or drops what is left.
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION session_store;
SELECT session_store.create_store('s', 'bytea', '1 day');
CREATE FUNCTION make_large(name text, day date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (LIKE s INCLUDING ALL, PRIMARY KEY (sid))', name);
	EXECUTE format('ALTER TABLE %I ALTER sess SET STORAGE EXTERNAL', name);
	EXECUTE format('INSERT INTO %I (sid, sess, expire, expire_bucket) SELECT %L || i, decode(repeat(md5(i::text), CASE WHEN i %% 10 = 0 THEN 600 ELSE 100 END), ''hex''), %L, %2$L
		FROM generate_series(1, 20000) i', name, day::timestamp AT TIME ZONE 'UTC', day::timestamp AT TIME ZONE 'UTC');
END $$;
CREATE FUNCTION attach(name text, day date) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE format('ALTER TABLE s ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, day || ' 00:00+00', day + 1 || ' 00:00+00'); END $$;
CREATE FUNCTION make_dependent() RETURNS event_trigger LANGUAGE plpgsql AS
	$$ BEGIN IF current_setting('search_path') = 'pg_catalog, pg_temp' THEN EXECUTE 'CREATE VIEW public.dependent AS SELECT sid FROM public.old'; END IF; END $$;
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
SQL

my $touched = 0;
# Makes the worker look at the partitions now, whatever it waited for.
sub wake
{
	$touched++;
	$node->safe_psql('postgres', "UPDATE session_store.stores SET cleanup_grace = ($touched % 2) * interval '1 hour'");
}

sub make
{
	my ($name, $day) = @_;
	$node->safe_psql('postgres', "SELECT make_large('$name', '$day')");
	my $paths = $node->safe_psql('postgres', <<SQL);
SELECT pg_relation_filepath(c.oid) FROM pg_class t, pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
	WHERE t.oid = '$name'::regclass AND (c.oid IN (t.oid, t.reltoastrelid) OR i.indrelid IN (t.oid, t.reltoastrelid))
SQL
	return split /\n/, $paths;
}

sub attach
{
	my ($name, $day) = @_;
	$node->safe_psql('postgres', "SELECT attach('$name', '$day')");
	wake();
}

sub files_left
{
	my ($server, @paths) = @_;
	return scalar grep { -e } map { glob($server->data_dir . "/$_ " . $server->data_dir . "/$_*") } @paths;
}

sub is_true { my ($query, $what) = @_; ok(wait_until_true($node, $query), $what) }
my $rows = "SELECT count(*) FROM s WHERE expire < '2022-01-01'";

# Just detached, with the rest held up.
my @paths = make('old', '2020-01-01');
is(scalar @paths, 6, 'a partition of six relations');
$node->safe_psql('postgres', "CREATE EVENT TRIGGER make_dependent ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION make_dependent()");
attach('old', '2020-01-01');
is_true("SELECT ($rows) = 0", 'the sessions of what is over are gone');
is_true("SELECT last_error LIKE '%cannot drop table public.old because other objects depend on it' FROM session_store.status", 'and what keeps it is said');
# The worker commits without waiting for the disk: what a later commit waits for holds its own.
$node->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'test', '')");
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', 'DROP EVENT TRIGGER make_dependent');
is($node->safe_psql('postgres', $rows), 0, 'they are gone after a crash');
is($node->safe_psql('postgres', 'SELECT count(*), sum(length(sess)) FROM old'), '20000|48000000', 'nothing of it is destroyed while something depends on it');
is($node->safe_psql('postgres', "SELECT last_action, bytes > 40000000 FROM session_store.partitions('s') WHERE partition = 'old'::regclass"),
	'dropped, its space is given back in slices|t', 'and it is listed');

# Between two slices.
$node->safe_psql('postgres', "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION refuse(); DROP VIEW dependent");
wake();
is_true("SELECT bytes < 17000000 FROM session_store.partitions('s') WHERE partition = 'old'::regclass", 'then its space is given back');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) < 20000, count(sess) = count(*) FROM old'), 't|t', 'after a crash what is left is a smaller table');
$node->safe_psql('postgres', 'DROP EVENT TRIGGER refuse');
wake();
is_true("SELECT to_regclass('old') IS NULL", 'and goes in the end');
is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.partition_actions WHERE partition NOT IN (SELECT oid FROM pg_class)"), 0, 'with its note');
is_true('SELECT last_error IS NULL FROM session_store.status', 'and its error');
$node->safe_psql('postgres', 'CHECKPOINT');
is(files_left($node, @paths), 0, 'nothing is left on disk');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT to_regclass('old') IS NULL, ($rows)"), 't|0', 'a standby follows');
$standby->safe_psql('postgres', 'CHECKPOINT');
is(files_left($standby, @paths), 0, 'and gives the space back too');

# A call leaves it to the worker; who reads what is left is in nobody's way.
make('old', '2020-01-01');
make('older', '2020-01-02');
$node->safe_psql('postgres', "CREATE EVENT TRIGGER make_dependent ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION make_dependent()");
attach('old', '2020-01-01');
is_true("SELECT EXISTS (SELECT FROM pg_views WHERE viewname = 'dependent')", 'detached once more');
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT count(*) FROM old');
$node->safe_psql('postgres', "DROP EVENT TRIGGER make_dependent; SELECT attach('older', '2020-01-02')");
$node->safe_psql('postgres', "CALL session_store.maintain_partitions('s')");
is($node->safe_psql('postgres', $rows), 0, 'another partition goes meanwhile');
is($node->safe_psql('postgres', 'SELECT count(*) FROM old'), 20000, 'and the one that is read stays');
$reader->query_safe('COMMIT');
$reader->quit;
$node->safe_psql('postgres', 'DROP VIEW dependent');
wake();
is_true("SELECT to_regclass('old') IS NULL AND to_regclass('older') IS NULL", 'both give their space back');

# What is left goes with the store's table, and is a table by itself without the extension.
for my $how ("SELECT session_store.drop_store('s', keep_table => false)", "SELECT session_store.drop_store('s')", 'DROP TABLE s', 'DROP EXTENSION session_store')
{
	make('old', '2020-01-01');
	$node->safe_psql('postgres', "CREATE EVENT TRIGGER make_dependent ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION make_dependent()");
	attach('old', '2020-01-01');
	is_true("SELECT EXISTS (SELECT FROM pg_views WHERE viewname = 'dependent')", 'a leftover');
	$node->safe_psql('postgres', "DROP EVENT TRIGGER make_dependent; BEGIN; DROP VIEW dependent; $how; COMMIT");
	my $stays = $how =~ /EXTENSION/;
	is($node->safe_psql('postgres', "SELECT to_regclass('old') IS NOT NULL"), $stays ? 't' : 'f', $how);
	next if $stays;
	$node->safe_psql('postgres', "DROP TABLE IF EXISTS s; SELECT session_store.create_store('s', 'bytea', '1 day')");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM old'), 20000, 'whole');

$standby->stop;
$node->stop;
done_testing();
