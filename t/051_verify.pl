# verify finds exactly what differs between the two sides, by all of them and by samples.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('verify');

# A difference in a line of its own: kind and sid.
sub verified
{
	my ($arguments, $store) = @_;
	$store //= 'sessions';
	my ($result, $out, $error) = $node->psql('postgres',
		"SELECT difference, sid FROM session_store.verify('$store'$arguments) ORDER BY 1, 2");
	diag($error) if $result != 0;
	return wantarray ? ($out, $error) : $out;
}

# In a single phase both sides can be written as one likes.
my $path = $redis->socket_path;
$node->safe_psql('postgres', qq{
	CREATE SERVER r FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '$path');
	SELECT session_store.create_store();
	UPDATE session_store.stores SET redis_server = 'r', touch_granularity = '0';
	INSERT INTO sessions (sid, sess, expire)
		SELECT 's' || i, jsonb_build_object('n', i, 'text', repeat('x', i % 300)), date_trunc('milliseconds', now()) + i * interval '1 minute' + interval '1 hour'
		FROM generate_series(1, 3000) i;
	INSERT INTO sessions (sid, sess, expire) VALUES ('forever', '{"a": 1.0, "b": [1, 2]}', 'infinity'), ('zażółć', '"ok"', now() + interval '1 day');
	INSERT INTO sessions (sid, sess, expire) VALUES ('gone', '{}', now() - interval '1 day');
});

sub copy_to_redis
{
	my ($where) = @_;
	my $rows = $node->safe_psql('postgres', qq{
		SELECT sid || E'\\t' || sess || E'\\t' || CASE WHEN expire = 'infinity' THEN 0 ELSE (extract(epoch FROM expire) * 1000)::bigint END
		FROM sessions WHERE expire > now() AND ($where)});
	$redis->commands(map {
		my ($sid, $sess, $expire) = split /\t/;
		[ 'SET', "sess:$sid", $sess, $expire ? ('PXAT', $expire) : () ]
	} split /\n/, $rows);
}
copy_to_redis('true');
is(verified(''), '', 'no difference between equal sides');
is(verified(', sample_size => 100'), '', 'nor in a sample');
is($node->safe_psql('postgres', 'SELECT compared BETWEEN 101 AND 200 AND differences = 0 FROM session_store.verifications'), 't', 'the sample is that of both sides');

# By value: another writing of the same jsonb; a tolerance of a second.
$redis->command('SET', 'sess:forever', '{"b":[1,2],"a":1.00}');
$redis->command('PEXPIREAT', 'sess:s7', $redis->command('PEXPIRETIME', 'sess:s7') + 900);
is(verified(''), '', 'jsonb is compared by value, expiry with a tolerance');
is(verified(", tolerance => '100 ms'"), 'expire|s7', 'of less, when asked');
copy_to_redis("sid = 's7'");

# Planted differences, one of each kind.
$redis->command('SET', 'sess:extra', '1', 'EX', 1000);
$redis->command('DEL', 'sess:s10');
$redis->command('SET', 'sess:s20', '{"n": 20}', 'KEEPTTL');
$redis->command('PEXPIREAT', 'sess:s30', $redis->command('PEXPIRETIME', 'sess:s30') + 1500);
$redis->command('PERSIST', 'sess:s40');
$redis->command('SET', 'sess:gone', '{}', 'EX', 1000);
my $planted = join "\n", qw(expire|s30 expire|s40 missing_in_postgres|extra missing_in_postgres|gone missing_in_redis|s10 payload|s20);
is(verified(''), $planted, 'exactly what was planted is found');
is(verified(', sample_size => 10000'), $planted, 'also by a sample of all');
is($node->safe_psql('postgres', "SELECT redis_expire IS NULL, postgres_expire IS NOT NULL FROM session_store.verify('sessions') WHERE sid = 's10'"),
	't|t', 'with the expiry where there is one');
is($node->safe_psql('postgres', "SELECT redis_expire FROM session_store.verify('sessions') WHERE sid = 's40'"), 'infinity', 'or none');

# Rejects are counted apart, odd keys and sids too.
$redis->command('HSET', 'sess:hash', 'a', 1);
$redis->command('SET', 'sess:s50', '{broken', 'EX', 1000);
$redis->command('SET', 'sess:number', '1e999999', 'EX', 1000);
$redis->command('SET', "sess:\xff", '1', 'EX', 1000);
$redis->command('SET', 'sess:', '1', 'EX', 1000);
$redis->command('SET', 'other:key', '1');
my ($out, $error) = verified('');
is($out, $planted, 'rejects are no differences');
like($error, qr/not compared: 5 rejected keys/, 'but counted');

# Expired sessions are missing nowhere, and large ones are compared.
$redis->command('DEL', map { "sess:$_" } qw(extra gone hash number s50), "\xff", '');
copy_to_redis('true');
is(verified(''), '', 'equal again');
$redis->command('SET', 'sess:brief', '1', 'PX', 60);
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM session_store.verify('sessions')"), 'what expires is missing nowhere');
my $large = '"' . 'x' x 9_000_000 . '"';
$redis->command('SET', "sess:large$_", $large, 'PXAT', 4_000_000_000_123) for 1 .. 3;
$node->safe_psql('postgres', q{
	INSERT INTO sessions (sid, sess, expire) SELECT 'large' || i, to_jsonb(repeat('x', 9000000)), '2096-10-02 07:06:40.123+00' FROM generate_series(1, 3) i});
is(verified(''), '', 'values of 9 MB');
$redis->command('SETRANGE', 'sess:large2', 8_000_000, 'y');
is(verified(''), 'payload|large2', 'of which one byte differs');
$redis->command('DEL', map { "sess:large$_" } 1 .. 3);
$node->safe_psql('postgres', "DELETE FROM sessions WHERE sid LIKE 'large%'");

# More differences than memory may hold.
my $many = $node->safe_psql('postgres', 'SELECT count(*) + 1 FROM sessions WHERE expire > now()');
$redis->command('SWAPDB', 0, 1);
$redis->command('SET', 'sess:other', '1');
is($node->safe_psql('postgres', "SET work_mem = '64kB'; SELECT count(*) FROM session_store.verify('sessions')"), $many, 'all of them are found');
$redis->command('SWAPDB', 0, 1);

# Who may, and when.
my $result;
($result, $out, $error) = $node->psql('postgres', "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM session_store.verify('sessions')");
like($error, qr/needs to see what is committed.*READ COMMITTED/s, 'not in REPEATABLE READ');
($result, $out, $error) = $node->psql('postgres', q{
	CREATE ROLE somebody; SELECT session_store.grant_admin('somebody'); SET ROLE somebody; SELECT * FROM session_store.verify('sessions')});
like($error, qr/must be owner/, 'only the owner');
($result, $out, $error) = $node->psql('postgres', "SELECT * FROM session_store.verify('sessions', sample_size => 0)");
like($error, qr/sample_size must be between/, 'a sample of nothing');
($result, $out, $error) = $node->psql('postgres', "SELECT * FROM session_store.verify('sessions', tolerance => '-1 s')");
like($error, qr/tolerance must be/, 'a negative tolerance');
$redis->signal('STOP');
($result, $out, $error) = $node->psql('postgres', "SET statement_timeout = '300ms'; SELECT * FROM session_store.verify('sessions')");
like($error, qr/canceling statement due to statement timeout/, 'statement_timeout ends it');
$redis->signal('CONT');

# bytea, by bytes; an empty prefix does not see leases.
$node->safe_psql('postgres', qq{
	CREATE SERVER r5 FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '$path', database '5');
	SELECT session_store.create_store('raw', 'bytea');
	UPDATE session_store.stores SET redis_server = 'r5', redis_prefix = '' WHERE store = 'raw';
	INSERT INTO raw (sid, sess, expire) SELECT 'b' || i, decode(repeat('00ff', i), 'hex'), 'infinity' FROM generate_series(1, 100) i;
});
$redis->command('SELECT', 5);
$redis->commands(map { [ 'SET', "b$_", "\0\xff" x $_ ] } 1 .. 100);
$redis->command('SET', 'session_store:lease:5:', 'somebody');
is(verified('', 'raw'), '', 'bytea is compared by bytes');
$redis->command('APPEND', 'b9', "\0");
is(verified('', 'raw'), 'payload|b9', 'every one');
$redis->command('SELECT', 0);

$redis->stop;
($result, $out, $error) = $node->psql('postgres', "SELECT * FROM session_store.verify('sessions')");
like($error, qr/could not connect to Redis.*check_redis/s, 'no Redis');

$node->stop;
done_testing();
