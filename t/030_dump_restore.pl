# A dump brings sessions, stores and settings back, whoever takes it and wherever it is restored; a
# copy of a mirrored store talks to no Redis before set_phase is called there.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Workers;

my $dumps = PostgreSQL::Test::Utils::tempdir();

# What a restored database must have in common with its original.
my $everything = <<'SQL';
SELECT to_jsonb(s) FROM session_store.stores s ORDER BY store;
SELECT to_jsonb(h) FROM session_store.phase_history h ORDER BY changed_at;
SELECT id, store, phase, phase_changed_at, bound_system IS NULL AS bound FROM session_store.registry ORDER BY id;
SELECT last_value, is_called FROM session_store.registry_id;
SELECT to_jsonb(s) FROM public.sessions s ORDER BY sid;
SELECT to_jsonb(s) FROM shop.raw s ORDER BY sid;
SELECT to_jsonb(s) FROM shop."Odd ""name""" s ORDER BY sid;
SELECT to_jsonb(s), tableoid::regclass FROM public.parted s ORDER BY sid;
SELECT t.relid::regclass::text, t.level, pg_get_expr(c.relpartbound, c.oid), array(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1)
	FROM pg_partition_tree('public.parted') t JOIN pg_class c ON c.oid = t.relid ORDER BY 1;
SELECT count(*) FROM public.mirrored;
SELECT c.oid::regclass, r.rolname, c.relacl, c.reloptions, array(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1)
	FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner JOIN session_store.stores s ON s.relation = c.oid ORDER BY s.store;
SELECT pg_get_triggerdef(t.oid), array(SELECT d.deptype FROM pg_depend d WHERE d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass)
	FROM pg_trigger t JOIN session_store.stores s ON s.relation = t.tgrelid ORDER BY 1;
SELECT srvname, srvoptions, srvowner::regrole FROM pg_foreign_server;
SQL
my $mapping = 'SELECT srvname, usename, (SELECT array_agg(o ORDER BY o) FROM unnest(umoptions) o) FROM pg_user_mappings';

sub server { my ($node) = @_; return ('-h', $node->host, '-p', $node->port); }

sub dump_to
{
	my ($node, $database, $file, @options) = @_;
	command_ok([ 'pg_dump', server($node), @options, '-f', "$dumps/$file", $database ], "pg_dump makes $file");
}

# A new database from these files, in that order.
sub restore
{
	my ($node, $database, @files) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE \"$database\" TEMPLATE template0");
	my @arguments = map { ('-f', "$dumps/$_") } @files;
	command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', server($node), '-d', $database, @arguments ],
		"@files is restored as $database");
}

my $source = start_cluster('source', "session_store.databases = 'app, copy'");
my $target = start_cluster('target', "session_store.databases = 'app, schema_only'", 'log_statement = none');
my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;

$source->safe_psql('postgres', 'CREATE DATABASE app');
$source->safe_psql('app', <<'SQL');
CREATE ROLE app_owner LOGIN;
CREATE ROLE app_client LOGIN;
CREATE ROLE reader LOGIN;
GRANT pg_read_all_data TO reader;
CREATE EXTENSION session_store;
SELECT session_store.grant_admin('app_owner');
GRANT CREATE ON DATABASE app TO app_owner;
GRANT CREATE ON SCHEMA public TO app_owner;
SET ROLE app_owner;
CREATE SCHEMA shop;
SELECT session_store.create_store('dropped');
SELECT session_store.drop_store('dropped', keep_table => false);
SELECT session_store.create_store();
SELECT session_store.create_store('raw', 'bytea', table_schema => 'shop');
SELECT session_store.create_store('moved');
SELECT session_store.create_store('mirrored');
SELECT session_store.create_store('parted', partition_interval => '7 days');
ALTER TABLE moved RENAME TO "Odd ""name""";
ALTER TABLE "Odd ""name""" SET SCHEMA shop;
SELECT session_store.grant_app('app_client');
UPDATE session_store.stores SET default_ttl = '2 hours 1 microsecond', user_id_path = '{passport,user}', cleanup_grace = '1 month', on_eviction = 'delete' WHERE store = 'sessions';
UPDATE session_store.stores SET logout_guard = '0', touch_granularity = '0' WHERE store = 'raw';
CREATE SERVER redis FOREIGN DATA WRAPPER session_store_redis OPTIONS (host '127.0.0.1', port '1');
CREATE USER MAPPING FOR app_owner SERVER redis OPTIONS (username 'u', password 'never shown');
UPDATE session_store.stores SET redis_server = 'redis', redis_prefix = 'app:' WHERE store = 'mirrored';
SELECT session_store.set_phase('mirrored', 'dual_redis_primary');
SELECT session_store.upsert('s' || i, jsonb_build_object('n', i, 'passport', jsonb_build_object('user', i % 3))) FROM generate_series(1, 100) i;
SELECT session_store.upsert('s' || i, '{}') FROM generate_series(1, 10) i;
SELECT session_store.upsert('forever', '{}', expire => 'infinity'), session_store.upsert('over', '{}', expire => '2020-01-01');
SELECT session_store.upsert(E'back\\slash, "quote" and ünïcode', '{}');
SELECT session_store.upsert_bytes('s', '\x00ff5c0a', store => 'raw');
SELECT session_store.upsert('s', '{}', store => 'moved');
SELECT session_store.upsert('p' || i, '{}', ttl => i * '1 day'::interval, store => 'parted') FROM generate_series(1, 20) i;
SELECT session_store.upsert('forever', '{}', expire => 'infinity', store => 'parted');
SQL

command_ok([ 'pg_dumpall', server($source), '--roles-only', '-f', "$dumps/roles.sql" ], 'roles are dumped');
# The role of the cluster's own superuser exists already.
for my $node ($target, $plain)
{
	command_ok([ 'psql', '-X', '-q', server($node), '-d', 'postgres', '-f', "$dumps/roles.sql" ], 'roles are restored');
}

my $expected = $source->safe_psql('app', $everything);
like($expected, qr/dual_redis_primary/, 'a store is in a dual phase');
dump_to($source, 'app', 'app.sql');
restore($target, 'app', 'app.sql');
is($target->safe_psql('app', $everything), $expected, 'rows, stores, settings, rights and triggers are the same');
is($target->safe_psql('app', $mapping), $source->safe_psql('app', $mapping), 'and the user mapping');

# It works, for the same roles.
is($target->safe_psql('app', <<'SQL', extra_params => [ '-U', 'app_client' ]), "40|1\nt\nt\nt\n0\nt", 'sessions go on');
SELECT session_store.get('s40') ->> 'n', (SELECT user_id FROM sessions WHERE sid = 's40');
SELECT session_store.upsert('s50', '{"passport": {"user": "x"}}') = (SELECT version + 1 FROM sessions WHERE sid = 's50');
SELECT user_id = 'x' AND expire BETWEEN now() + '119 minutes' AND now() + '121 minutes' FROM sessions WHERE sid = 's50';
SELECT session_store.expire('s60');
WITH late AS (INSERT INTO sessions (sid, sess, expire) VALUES ('s60', '{}', 'infinity') RETURNING 1) SELECT count(*) FROM late;
SELECT session_store.upsert('s60', '{}') IS NULL;
SQL
is($target->safe_psql('app', <<'SQL', extra_params => [ '-U', 'app_owner' ]), "1\nnew|t", 'their owner makes another store');
SELECT session_store.create_store('new') \g /dev/null
UPDATE session_store.stores SET touch_granularity = '5 s' WHERE store = 'new' RETURNING 1;
SELECT store, default_ttl = '1 day' FROM session_store.stores WHERE store = 'new';
SQL

# A partitioned store goes on as well: one row a sid, and moves.
is($target->safe_psql('app', <<'SQL', extra_params => [ '-U', 'app_owner' ]), "t|t\nt\nt", 'a partitioned store goes on');
SELECT session_store.touch('p1', ttl => '20 days', store => 'parted'), session_store.get('p1', 'parted') IS NOT NULL;
UPDATE parted SET expire = now() + '2 days' WHERE sid = 'forever' RETURNING session_store.upsert('p3', '{}', store => 'parted') > 0;
SELECT count(*) = count(DISTINCT sid) FROM parted;
SQL
$target->psql('app', "INSERT INTO parted (sid, sess, expire) VALUES ('p2', '{}', now() + '30 days')", stderr => \my $refused);
like($refused, qr/has a session of that sid already/, 'and refuses a second row');

# The copy of the mirrored store waits. A cleanup shows that the supervisor has looked at the stores.
my $soon = "UPDATE session_store.stores SET cleanup_interval = '10 ms' WHERE store = 'raw'";
my $cleaned = "SELECT last_cleanup IS NOT NULL FROM session_store.status WHERE store = 'raw'";
my $words = "SELECT mirror FROM session_store.status WHERE store = 'mirrored'";
my $mirrors = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'session_store mirror' AND datname = current_database()";
wait_for_worker($source, 'mirror', 'app');
$target->safe_psql('app', $soon);
ok(wait_until_true($target, $cleaned, 'app'), 'the workers of the copy run');
like($target->safe_psql('app', $words), qr/^paused: .*set_phase/, 'its mirror is paused, and says what to call');
is($target->safe_psql('app', $mirrors), 0, 'and is not there');
$source->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app');
$source->safe_psql('copy', $soon);
ok(wait_until_true($source, $cleaned, 'copy'), 'the workers of a copy in the same cluster run');
like($source->safe_psql('copy', $words), qr/^paused: .*set_phase/, 'its mirror is paused as well');
is($source->safe_psql('copy', $mirrors), 0, 'and is not there either');
$target->safe_psql('app', "SELECT session_store.set_phase('mirrored', 'dual_redis_primary')", extra_params => [ '-U', 'app_owner' ]);
ok(wait_until_true($target, "SELECT mirror NOT LIKE 'paused%' AND last_error IS NOT NULL FROM session_store.status WHERE store = 'mirrored'", 'app'),
	'set_phase starts it');
unlike(slurp_file($target->logfile), qr/never shown/, 'no password in the log');

# By a role that may read everything and own nothing, without the library preloaded, in sections.
dump_to($source, 'app', "reader_$_.sql", '-U', 'reader', "--section=$_") for qw(pre-data data post-data);
restore($plain, 'by reader', map { "reader_$_.sql" } qw(pre-data data post-data));
is($plain->safe_psql('by reader', $everything), $expected, 'a dump of pg_read_all_data has everything');
is($plain->safe_psql('by reader', $mapping), 'redis|app_owner|', 'but for the password');
like($plain->safe_psql('by reader', $words), qr/shared_preload_libraries/, 'without the library preloaded status says so');
is($plain->safe_psql('by reader', "SELECT session_store.upsert('new', '{}') > 0, session_store.get('s4') IS NOT NULL"), 't|t', 'and sessions work');

# In parallel.
dump_to($source, 'app', 'directory', '-Fd', '-j', 2);
$plain->safe_psql('postgres', 'CREATE DATABASE parallel TEMPLATE template0');
command_ok([ 'pg_restore', server($plain), '-e', '-j', 2, '-d', 'parallel', "$dumps/directory" ], 'pg_restore in parallel');
is($plain->safe_psql('parallel', $everything), $expected, 'gives the same');

# The schema alone has no stores: what its tables hold has to come with them.
dump_to($source, 'app', 'schema.sql', '--schema-only');
restore($target, 'schema_only', 'schema.sql');
is($target->safe_psql('schema_only', 'SELECT (SELECT count(*) FROM session_store.stores), (SELECT count(*) FROM sessions)'), '0|0',
	'a schema-only dump brings empty tables');
my ($stdout, $stderr);
$target->psql('schema_only', "INSERT INTO sessions (sid, sess, expire) VALUES ('a', '{}', 'infinity')", stderr => \$stderr);
like($stderr, qr/does not belong to a store.*HINT:  Drop its trigger/s, 'whose writers are told what is wrong');
dump_to($source, 'app', 'data.sql', '--data-only', '--disable-triggers');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', server($target), '-d', 'schema_only', '-f', "$dumps/data.sql" ],
	'the data alone is restored into it');
is($target->safe_psql('schema_only', $everything), $expected, 'and it is complete');

# Without the extension.
$source->psql('copy', 'DROP EXTENSION session_store', stderr => \$stderr);
like($stderr, qr/server redis depends on foreign-data wrapper.*CASCADE/s, 'a server keeps the extension');
my $rows = 'SELECT to_jsonb(s) FROM public.sessions s ORDER BY sid; SELECT to_jsonb(s) FROM shop.raw s ORDER BY sid';
$expected = $source->safe_psql('copy', $rows);
$source->safe_psql('copy', 'SET client_min_messages = warning; DROP EXTENSION session_store CASCADE');
is($source->safe_psql('copy', $rows), $expected, 'DROP EXTENSION CASCADE leaves the tables and their rows');
dump_to($source, 'copy', 'without.sql');
unlike(slurp_file("$dumps/without.sql"), qr/EXTENSION|EXECUTE FUNCTION|session_store\./, 'their dump needs no extension');
restore($plain, 'without', 'without.sql');
is($plain->safe_psql('without', $rows), $expected, 'and restores');
is($plain->safe_psql('without', "INSERT INTO sessions (sid, sess, expire) VALUES ('new', '{}', 'infinity') ON CONFLICT (sid) DO NOTHING RETURNING version > 0", extra_params => [ '-U', 'app_owner' ]),
	't', 'as ordinary tables');

$_->stop for $source, $target, $plain;
done_testing();
