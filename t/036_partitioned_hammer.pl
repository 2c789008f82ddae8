# Sixteen clients on a hundred sids of a partitioned store, through the functions and by plain
# statements, at every isolation level, while partitions are made, cleaned and repartitioned: no sid
# has two rows, nothing that was committed is lost, and nobody fails but by serialization.
# SESSION_STORE_HAMMER_SECONDS says how long.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{SESSION_STORE_HAMMER_SECONDS} || 20;
my $clients = 16;

my $node = PostgreSQL::Test::Cluster->new('hammer');
$node->init;
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'session_store'
session_store.naptime = '100ms'
log_statement = none
max_connections = 40
CONF
$node->start;

# Sids 1 to 90 come and go; 91 to 100 stay, and count what was committed to them.
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION session_store;
CREATE EXTENSION amcheck;
SELECT session_store.create_store(partition_interval => '1 hour');
UPDATE session_store.stores SET logout_guard = '200 ms', cleanup_interval = '500 ms', default_ttl = '4 hours';
CREATE TABLE increments (sid text, by text);
SELECT session_store.upsert('s' || i, '{"n": 0}') FROM generate_series(91, 100) i;
-- A plain INSERT, which may find the sid taken.
CREATE FUNCTION login(sid text, expire timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO sessions (sid, sess, expire) VALUES (sid, '{"n": 0}', expire);
	RETURN true;
EXCEPTION WHEN unique_violation THEN
	RETURN false;
END $$;
SQL

my $any = "\\set i random(1, 90)\n\\set m random(-20, 400)\n";
my $count = "\\set i random(91, 100)\n\\set m random(1, 400)\n";
my $sid = q{'s' || :i::int};
my $when = q{now() + :m::int * interval '1 minute'};
my %transactions = (
	upsert => [ 8, "${any}SELECT session_store.upsert($sid, jsonb_build_object('m', :m::int), expire => $when);" ],
	claim => [ 3, "${any}SELECT session_store.upsert($sid, '{}', expire => $when, expected_version => 0);" ],
	touch => [ 6, "${any}SELECT session_store.touch($sid, expire => $when), session_store.get_and_touch($sid);" ],
	merge => [ 3, "${any}SELECT session_store.merge($sid, jsonb_build_object('m', :m::int), expire => $when);" ],
	expire => [ 3, "${any}SELECT session_store.expire($sid);" ],
	destroy => [ 3, "${any}SELECT session_store.destroy($sid);" ],
	user => [ 2, "${any}SELECT session_store.upsert($sid, '{}', user_id => 'u' || :m::int % 5, expire => $when);\nSELECT session_store.expire_user('u' || :m::int % 5);" ],
	read => [ 4, "${any}SELECT session_store.get($sid), (SELECT count(*) FROM session_store.get_many(ARRAY[$sid, 's91', 's7'])), (SELECT count(*) FROM session_store.user_sessions('u1'));" ],
	login => [ 5, "${any}SELECT login($sid, $when);" ],
	direct_update => [ 4, "${any}UPDATE sessions SET expire = $when WHERE sid = $sid;" ],
	direct_delete => [ 2, "${any}DELETE FROM sessions WHERE sid = $sid;" ],
	rolled_back => [ 2, "${any}BEGIN;\nSELECT session_store.upsert($sid, '{}', expire => $when);\nUPDATE sessions SET expire = 'infinity' WHERE sid = $sid;\nROLLBACK;" ],
	several => [ 2, "\\set a random(1, 30)\n\\set b random(31, 60)\n\\set c random(61, 90)\nBEGIN;\nSELECT session_store.upsert('s' || :a::int, '{}');\nSELECT session_store.touch('s' || :b::int, ttl => '3 hours');\nSELECT session_store.upsert('s' || :c::int, '{}', ttl => '2 hours');\nCOMMIT;" ],
	count_direct => [ 3, "${count}WITH done AS (UPDATE sessions SET sess = jsonb_set(sess, '{n}', to_jsonb((sess ->> 'n')::int + 1)), expire = $when WHERE sid = $sid RETURNING sid)\n\tINSERT INTO increments SELECT sid, 'direct' FROM done;" ],
	count_version => [ 4, "${count}WITH old AS MATERIALIZED (SELECT * FROM session_store.get_versioned($sid)),\n"
		. "\tnew AS MATERIALIZED (SELECT session_store.upsert($sid, jsonb_build_object('n', (sess ->> 'n')::int + 1), expire => $when, expected_version => version) AS v FROM old WHERE version IS NOT NULL)\n"
		. "\tINSERT INTO increments SELECT $sid, 'version' FROM new WHERE v IS NOT NULL;" ],
	count_repeatable => [ 3, "${count}BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT session_store.upsert($sid, jsonb_build_object('n', (sess ->> 'n')::int + 1), expire => $when) FROM session_store.get_versioned($sid);\nINSERT INTO increments SELECT $sid, 'repeatable';\nCOMMIT;" ],
	# s7 first: who takes two sids in another order than the rest is in a deadlock by his own doing.
	serializable => [ 2, "${any}BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT session_store.touch('s7', ttl => '3 hours');\nSELECT session_store.upsert($sid, '{}', expire => $when, expected_version => 0);\nCOMMIT;" ],
);

my $scripts = PostgreSQL::Test::Utils::tempdir();
my @files;
for my $name (sort keys %transactions)
{
	my ($weight, $text) = @{ $transactions{$name} };
	append_to_file("$scripts/$name", "$text\n");
	push @files, '-f', "$scripts/$name\@$weight";
}
# Into files: a pipe that nobody reads would stop it, with its locks.
my $bench = IPC::Run::start(
	[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', $clients, '-j', 2, '-T', $seconds,
		'--max-tries=1000', '--verbose-errors', @files, 'postgres' ], '>', "$scripts/out", '2>', "$scripts/err");

# What goes on beside them.
my @layouts = ("'2 hours'", 'NULL', "'1 hour'", "'1 day'");
my $until = time + $seconds - 2;
my $rounds = 0;
my $trouble = '';
while (time < $until)
{
	my ($stdout, $stderr) = ('', '');
	my $layout = $layouts[ $rounds++ % @layouts ];
	for my $call ("repartition('sessions', $layout)", 'maintain_partitions()', 'cleanup()')
	{
		next if $layout eq 'NULL' && $call =~ /maintain/;
		$node->psql('postgres', "CALL session_store.$call", stderr => \$stderr);
		$trouble .= $stderr if $stderr =~ /ERROR/;
	}
}
my $went_well = $bench->finish;
my ($out, $err) = (slurp_file("$scripts/out"), slurp_file("$scripts/err"));
ok($went_well, 'nobody failed') or diag(substr($err, -3000));
is($trouble, '', 'maintenance had no trouble');
cmp_ok($rounds, '>', 0, 'the layout changed under way');
my ($processed) = $out =~ /number of transactions actually processed: (\d+)/;
cmp_ok($processed, '>', 100, 'there was traffic') and diag("$processed transactions, $rounds layouts");
unlike($err, qr/deadlock detected/, 'nobody was in a deadlock');

is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT sid) FROM sessions'), 0, 'no sid has two rows');
is($node->safe_psql('postgres', <<'SQL'), '', 'nothing that was committed is lost');
SELECT sid, n, counted FROM (SELECT sid, (sess ->> 'n')::int AS n FROM sessions WHERE sid IN (SELECT 's' || i FROM generate_series(91, 100) i)) s
	JOIN (SELECT sid, count(*) AS counted FROM increments GROUP BY sid) c USING (sid) WHERE n <> counted
SQL
is($node->safe_psql('postgres', "SELECT count(*) FROM sessions WHERE sid IN (SELECT 's' || i FROM generate_series(91, 100) i)"), 10, 'and nobody was logged out');
is($node->safe_psql('postgres', <<'SQL'), '0', 'functions find what is there');
SELECT count(*) FROM sessions WHERE expire > clock_timestamp() + interval '10 seconds' AND session_store.get(sid) IS DISTINCT FROM sess
SQL
# An unsound index is an error.
$node->safe_psql('postgres', <<'SQL');
SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
	JOIN pg_class t ON t.oid = i.indrelid WHERE c.relkind = 'i' AND t.relname LIKE 'sessions%'
SQL
is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.repartitions"), 0, 'no repartition is left');
is($node->safe_psql('postgres', "SELECT relname FROM pg_class WHERE relname LIKE '%\\_new%' AND relkind IN ('r', 'p') OR relname LIKE '%\\_old%'"), '', 'nor a table of one');

$node->stop;
done_testing();
