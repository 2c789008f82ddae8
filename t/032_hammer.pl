# Sixteen clients on fifty sids, through the functions and with connect-pg-simple's statements: nobody
# fails, nobody deadlocks, nothing that was committed is lost, and the table is sound afterwards.
# A minute; SESSION_STORE_HAMMER_SECONDS says another time.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{SESSION_STORE_HAMMER_SECONDS} || 60;
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

# Which sids do what: of 101 to 130 transactions take several, in their order, which is that of
# expire_user; 131 to 140 expire soon; 141 to 150 are never ended, and count.
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION session_store;
CREATE EXTENSION amcheck;
SELECT session_store.create_store('session');
UPDATE session_store.stores SET logout_guard = '300 ms', cleanup_interval = '500 ms', user_id_path = '{user}' WHERE store = 'session';
CREATE TABLE versions (sid text, version bigint, PRIMARY KEY (sid, version));
CREATE TABLE increments (sid text);
CREATE TABLE merges (sid text, client int, k int);
CREATE SEQUENCE writes;
SELECT session_store.upsert('s' || i, '{"n": 0, "user": "counter"}', store => 'session') FROM generate_series(141, 150) i;
SQL

my $any = '\set i random(101, 140)';
my $user = '\set u random(0, 9)';
my $several = "\\set a random(101, 110)\n\\set b random(111, 120)\n\\set c random(121, 130)\n$user";
my $counting = '\set i random(141, 150)';
# Every payload is another, so that every write is a new version; one that comes twice violates the log's key.
my $upsert = 'INSERT INTO versions SELECT %1$s, v FROM (SELECT session_store.upsert(%1$s, %2$s, store => \'session\') AS v) u WHERE v IS NOT NULL;';
my $i = q{'s' || :i::int};
my $payload = q{jsonb_build_object('user', 'u' || :u::int, 'write', nextval('writes'), 'pad', repeat('x', 20 * :u::int))};

# Weight and text of each kind of transaction.
my %transactions = (
	upsert => [ 8, "$any\n$user\n" . sprintf($upsert, $i, "$payload, ttl => '1 hour'") ],
	upsert_user => [ 2, "$any\n$user\n" . sprintf($upsert, $i, "jsonb_build_object('write', nextval('writes')), user_id => 'u' || :u::int") ],
	upsert_short => [ 4, "\\set i random(131, 140)\n$user\n" . sprintf($upsert, $i, "$payload, ttl => '400 ms'") ],
	claim => [ 3, "$any\n$user\n" . sprintf($upsert, $i, "$payload, expected_version => 0") ],
	replace => [ 3, "$any\n$user\nSELECT coalesce(version, 1) AS version FROM session_store.get_versioned($i, 'session') \\gset\n"
			. sprintf($upsert, $i, "$payload, expected_version => :version::bigint") ],
	merge => [ 3, "$any\n$user\nSELECT session_store.merge($i, $payload, store => 'session');" ],
	touch => [ 5, "$any\n\\set m random(10, 100)\nSELECT session_store.touch($i, ttl => :m::int * interval '1 minute', store => 'session');" ],
	get_and_touch => [ 5, "\\set i random(101, 150)\nSELECT session_store.get_and_touch($i, store => 'session');" ],
	read => [ 3, "$any\n$user\nSELECT session_store.get($i, 'session'), (SELECT count(*) FROM session_store.get_many(ARRAY[$i, 's141', 's101'], 'session')), (SELECT count(*) FROM session_store.user_sessions('u' || :u::int, 'session'));" ],
	expire => [ 2, "$any\nSELECT session_store.expire($i, 'session');" ],
	destroy => [ 2, "$any\nSELECT session_store.destroy($i, 'session');" ],
	expire_user => [ 1, "$any\n$user\nSELECT session_store.expire_user('u' || :u::int, $i, 'session');" ],
	several => [ 4, "$several\nBEGIN;\n"
			. sprintf($upsert, q{'s' || :a::int}, $payload) . "\n"
			. "SELECT session_store.expire('s' || :b::int, 'session');\n"
			. "SELECT session_store.merge('s' || :c::int, $payload, store => 'session');\nCOMMIT;" ],
	several_direct => [ 3, "$several\nBEGIN;\nDELETE FROM session WHERE sid = 's' || :a::int;\n"
			. sprintf($upsert, q{'s' || :b::int}, $payload) . "\n"
			. "SELECT session_store.get_and_touch('s' || :c::int, ttl => '3 hours', store => 'session');\nCOMMIT;" ],
	rolled_back => [ 2, "$several\nBEGIN;\nSELECT session_store.expire('s' || :a::int, 'session');\n"
			. "SELECT session_store.upsert('s' || :b::int, $payload, store => 'session');\n"
			. "SELECT session_store.destroy('s' || :c::int, 'session');\nROLLBACK;" ],
	direct_save => [ 6, "$any\n$user\n\\set e random(3000, 9000)\nINSERT INTO session (sess, expire, sid) SELECT $payload, to_timestamp(extract(epoch FROM now())::int + :e::int), $i "
			. "ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire RETURNING sid;" ],
	direct_touch => [ 6, "\\set i random(101, 150)\n\\set e random(3000, 9000)\nUPDATE session SET expire = to_timestamp(extract(epoch FROM now())::int + :e::int) WHERE sid = $i RETURNING sid;" ],
	direct_read => [ 3, "$any\nSELECT sess FROM session WHERE sid = $i AND expire >= now();" ],
	direct_destroy => [ 2, "$any\nDELETE FROM session WHERE sid = $i;" ],
	direct_prune => [ 1, 'DELETE FROM session WHERE expire < now();' ],
	cleanup => [ 1, q{CALL session_store.cleanup('session');} ],
	setting => [ 1, "\\set g random(0, 60)\nUPDATE session_store.stores SET touch_granularity = :g::int * interval '1 second' WHERE store = 'session';" ],
	# What counts: written only when nobody else has written since it was read.
	increment => [ 6, "$counting\nSELECT version, sess AS current FROM session_store.get_versioned($i, 'session') \\gset\nBEGIN;\n"
			. "SELECT session_store.upsert($i, (SELECT sess || jsonb_build_object('n', (sess ->> 'n')::int + 1) FROM session_store.get_versioned($i, 'session')), expected_version => :version::bigint, store => 'session') IS NOT NULL AS won \\gset\n"
			. "\\if :won\nINSERT INTO increments VALUES ($i);\n\\endif\nCOMMIT;" ],
	note => [ 4, "$counting\n\\set k :k + 1\nBEGIN;\nSELECT session_store.merge($i, jsonb_build_object('c' || :client_id::int, :k::int), store => 'session');\n"
			. "INSERT INTO merges VALUES ($i, :client_id, :k);\nCOMMIT;" ],
);

my $folder = PostgreSQL::Test::Utils::tempdir();
my @scripts;
for my $name (sort keys %transactions)
{
	my ($weight, $text) = @{ $transactions{$name} };
	append_to_file("$folder/$name.sql", "$text\n");
	push @scripts, '-f', "$folder/$name.sql\@$weight";
}
my ($output, $error);
my $ended = run_log([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', $clients, '-j', 2, '-T', $seconds,
		'-M', 'prepared', '-D', 'k=0', @scripts, 'postgres' ], '>', \$output, '2>', \$error);
ok($ended, 'no client fails') or diag($error);
unlike($error, qr/abort|ERROR/, 'no statement fails') or diag($error);
like($output, qr/^number of failed transactions: 0 /m, 'and nobody deadlocks') or diag($output);
note($output);
my $log = slurp_file($node->logfile);
unlike($log, qr/deadlock detected|PANIC|was terminated|ERROR:/, 'nor does the server report any');

sub is_zero { my ($query, $what) = @_; is($node->safe_psql('postgres', "SELECT count(*) FROM ($query) q"), 0, $what) }

my ($wins) = $node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM increments), (SELECT count(*) FROM merges), (SELECT count(*) FROM versions)');
like($wins, qr/^[1-9]\d+\|[1-9]\d+\|[1-9]\d+$/, "work was done: $wins");
is_zero(q{SELECT FROM session s WHERE sid IN (SELECT 's' || i FROM generate_series(141, 150) i)
	AND (sess ->> 'n')::int <> (SELECT count(*) FROM increments i WHERE i.sid = s.sid)}, 'no increment is lost, none is made twice');
is_zero(q{SELECT FROM (SELECT sid, client, max(k) AS k FROM merges GROUP BY 1, 2) m LEFT JOIN session s USING (sid)
	WHERE (s.sess ->> ('c' || m.client))::int IS DISTINCT FROM m.k}, 'no merge is lost');
is($node->safe_psql('postgres', q{SELECT count(*) FROM session_store.user_sessions('counter', 'session')}), 10, 'nobody ended what was not ended');

is_zero('SELECT sid FROM session GROUP BY sid HAVING count(*) > 1', 'no sid is there twice');
is_zero(q{SELECT FROM session s JOIN versions v USING (sid) GROUP BY s.sid, s.version HAVING max(v.version) > s.version}, 'no version went back');
is_zero(q{SELECT FROM session WHERE expire_bucket <> date_bin('1 hour', expire, '2000-01-01 00:00:00+00') OR updated_at < created_at OR version < 1e15},
	'every row is whole');
$node->safe_psql('postgres', q{SELECT bt_index_parent_check(indexrelid, true) FROM pg_index WHERE indrelid IN ('session'::regclass, 'session_store.tombstones'::regclass)});
pass('the indexes hold every row');
is_zero(q{SELECT FROM verify_heapam('session')}, 'the table is sound');
is_zero(q{SELECT FROM verify_heapam('session_store.tombstones')}, 'and that of the tombstones');

# A row beside a tombstone was made after the guard. Some time passes between a default and the trigger.
is_zero(q{SELECT FROM session_store.tombstones t JOIN session s USING (sid) WHERE s.created_at < t.ended_at + interval '100 ms'},
	'no session came back within the guard');
is_zero(q{SELECT FROM session_store.tombstones WHERE ended_at > clock_timestamp() OR sid !~ '^s1([0-3][0-9]|40)$'}, 'tombstones are those of ended sids');
$node->safe_psql('postgres', "UPDATE session_store.stores SET logout_guard = '0' WHERE store = 'session'");
my $cleaned_from = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
$node->safe_psql('postgres', "CALL session_store.cleanup('session')");
is_zero('SELECT FROM session_store.tombstones', 'and go when the guard has passed');
is_zero("SELECT FROM session WHERE expire < '$cleaned_from'", 'as do expired rows');

$node->stop;
done_testing();
