# Without shared_preload_libraries every SQL function works; what needs the workers says so.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('plain');
$node->init;
# As left behind by whoever took the library out.
$node->append_conf('postgresql.conf', "session_store.databases = 'postgres'\nsession_store.naptime = '2s'");
$node->start;

# The result of a statement of which nothing is to be said.
sub is_quietly
{
	my ($query, $expected, $what) = @_;
	my ($output, $error);
	$node->psql('postgres', $query, stdout => \$output, stderr => \$error, on_error_stop => 1);
	is("$output$error", $expected, $what);
}

is_quietly('CREATE EXTENSION session_store', '', 'CREATE EXTENSION');
is_quietly(q{SELECT session_store.create_store(), session_store.create_store('raw', 'bytea'), session_store.create_store('mirrored')}, 'sessions|raw|mirrored', 'create_store');
is_quietly(q{UPDATE session_store.stores SET user_id_path = '{user}', default_ttl = '2 hours' WHERE store = 'sessions'}, '', 'settings');
is_quietly(q{SELECT session_store.upsert('a', '{"user": "anna"}') > 0; SELECT session_store.get('a')}, qq{t\n{"user": "anna"}}, 'upsert and get');
is_quietly(q{SELECT sess, expire BETWEEN now() + interval '119 min' AND now() + interval '2 hours 1 s' FROM session_store.get_versioned('a')}, '{"user": "anna"}|t', 'get_versioned');
is_quietly(q{SELECT session_store.touch('a', ttl => '3 hours'), session_store.get_and_touch('a')}, 't|{"user": "anna"}', 'touch and get_and_touch');
is_quietly(q{SELECT session_store.merge('a', '{"n": 1}')}, '{"n": 1, "user": "anna"}', 'merge');
is_quietly(q{SELECT sid FROM session_store.get_many(ARRAY['b', 'a'])}, 'a', 'get_many');
is_quietly(q{SELECT sid FROM session_store.user_sessions('anna')}, 'a', 'user_sessions');
is_quietly(q{SELECT session_store.expire_user('anna'), session_store.upsert('a', '{}') IS NULL}, '1|t', 'expire_user and the logout guard');
is_quietly(q{SELECT session_store.destroy('a'), session_store.upsert('a', '{}') IS NULL, session_store.expire('a')}, 'f|f|t', 'destroy and expire');
is_quietly(q{SELECT session_store.upsert_bytes('a', '\x00', store => 'raw') > 0; SELECT session_store.get_bytes('a', 'raw'), session_store.get_bytes_and_touch('a', store => 'raw')},
	"t\n\\x00|\\x00", 'upsert_bytes and its readers');
is_quietly(q{INSERT INTO sessions (sid, sess, expire) VALUES ('a', '{}', 'infinity') ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess RETURNING sid}, '', 'direct writers: the guard');
is_quietly(q{INSERT INTO sessions (sid, sess, expire) VALUES ('b', '{}', '2020-01-01') RETURNING version > 1e15}, 't', 'direct writers: a row');
is_quietly(q{CALL session_store.cleanup()}, 1, 'cleanup');
is_quietly(q{SELECT cleaned_rows, last_cleanup <= now(), mirror FROM session_store.status WHERE store = 'sessions'}, '1|t|off', 'status');
is_quietly(q{SELECT phase, rollout_percent FROM session_store.routing()}, 'pg_only|0', 'routing');
is_quietly(q{CREATE ROLE app; CREATE ROLE owner; SELECT session_store.grant_app('app'), session_store.grant_admin('owner')}, '|', 'grants');
is_quietly(q{SELECT count(*) FROM session_store.stat_mirror}, 0, 'statistics');

# What needs the workers.
my ($output, $error);
$node->psql('postgres', q{
	CREATE SERVER redis FOREIGN DATA WRAPPER session_store_redis OPTIONS (host '127.0.0.1', port '1');
	UPDATE session_store.stores SET redis_server = 'redis' WHERE store = 'mirrored';
	SELECT session_store.set_phase('mirrored', 'dual_redis_primary')}, stderr => \$error);
like($error, qr/WARNING:  no mirror will run.*HINT:  Put session_store into shared_preload_libraries/s, 'a dual phase warns');
is_quietly(q{SELECT mirror FROM session_store.status WHERE store = 'mirrored'},
	'not running: session_store is not in shared_preload_libraries; add it there and restart PostgreSQL', 'status says what is missing, and the remedy');
is_quietly(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'session_store%'}, 0, 'no worker runs');

# Settings: placeholders until the library is loaded.
is_quietly('SHOW session_store.naptime', '2s', 'a setting of the file can be shown');
is_quietly(q{SELECT session_store.get('a') IS NULL; SHOW session_store.naptime; SHOW session_store.track}, "t\n2s\non", 'and is a real one once the library is there');
$node->psql('postgres', q{LOAD 'session_store'; SET session_store.nonsense = 1}, stderr => \$error);
like($error, qr/ERROR:  invalid configuration parameter name "session_store.nonsense"/, 'which knows what there is');
$node->psql('postgres', q{LOAD 'session_store'; SET session_store.naptime = '1s'}, stderr => \$error);
like($error, qr/ERROR:  parameter "session_store.naptime" cannot be changed now/, 'and who may change it');

# Preloaded after all, with what was made before.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'session_store'\nsession_store.naptime = '50ms'");
$node->restart;
ok($node->poll_query_until('postgres', q{SELECT mirror NOT LIKE 'not running%' AND last_error IS NOT NULL FROM session_store.status WHERE store = 'mirrored'}),
	'preloaded, the mirror starts');
is_quietly(q{SELECT session_store.set_phase('mirrored', 'redis_only'), session_store.drop_store('raw', false), session_store.drop_store('sessions')}, '||', 'stores end as usual');

$node->stop;
done_testing();
