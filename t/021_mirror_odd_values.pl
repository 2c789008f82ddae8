# Values and keys out of the ordinary: mirrored exactly, or in rejects with the reason.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('odd_values');
create_mirrored_store($node, $redis);
create_mirrored_store($node, $redis, store => 'bytes', payload => 'bytea', prefix => 'bin:');
ok(wait_in_sync($node), 'the mirror of jsonb runs');
ok(wait_in_sync($node, 'bytes'), 'the mirror of bytea runs');

sub hex_of { return unpack 'H*', $_[0] }

sub becomes
{
	my ($query, $expected, $name) = @_;
	return ok($node->poll_query_until('postgres', $query, $expected), $name);
}

# The reason why a key is rejected, waited for.
sub rejected
{
	my ($key, $reason, $name) = @_;
	my $hex = hex_of($key);
	becomes("SELECT reason ~ '$reason' FROM session_store.rejects WHERE redis_key = '\\x$hex'", 't', "$name is rejected");
}

my $long_sid = 'x' x 300;
my $limit_sid = "\xc3\xa9" x 255;
my %bad_values = (
	'a NUL in a string' => ['nul', '{"a": "x\u0000y"}', 'u0000'],
	'half a surrogate pair' => ['surrogate', '{"a": "\ud83d"}', 'surrogate'],
	'invalid UTF-8' => ['utf8', qq({"a": "\xff\xfe"}), 'not valid UTF-8'],
	'a NUL byte' => ['nulbyte', qq({"a": "x\0y"}), 'not valid UTF-8'],
	'half a document' => ['half', '{"a": ', 'not valid jsonb'],
	'no value' => ['empty', '', 'not valid jsonb'],
	'a number out of range' => ['number', '{"a": 1e999999}', 'overflow'],
	'nesting too deep' => ['deep', '[' x 500_000, 'stack depth'],
	'a serialization of another language' => ['php', 'a:1:{s:1:"a";i:1;}', 'not valid jsonb'],
);
for my $name (sort keys %bad_values)
{
	my ($sid, $value, $reason) = @{ $bad_values{$name} };
	$redis->command('SET', "sess:$sid", $value, 'EX', 1000);
	rejected("sess:$sid", $reason, $name);
	next if length $value > 1000;
	is($node->safe_psql('postgres',
			"SELECT encode(payload, 'hex') FROM session_store.rejects WHERE redis_key = '\\x" . hex_of("sess:$sid") . "'"),
		hex_of($value), '... with its bytes');
}

my %bad_sids = ($long_sid => 'longer than 255', '' => 'empty', "a\0b" => 'NUL|zero', "a\xff" => 'UTF-8');
for my $sid (sort keys %bad_sids)
{
	$redis->command('SET', "sess:$sid", '{}');
	rejected("sess:$sid", $bad_sids{$sid}, "a sid ($bad_sids{$sid})");
}
$redis->command('HSET', 'sess:hash', 'field', 'value');
rejected('sess:hash', 'key type hash cannot be mirrored', 'a hash');
$redis->command('RPUSH', 'sess:list', 'value');
rejected('sess:list', 'key type list cannot be mirrored', 'a list');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 0, 'none of them has a row');
is($node->safe_psql('postgres', "SELECT rejects FROM session_store.status WHERE store = 'sessions'"),
	keys(%bad_values) + keys(%bad_sids) + 2, 'status counts them');

# All of it in one batch with good ones, at a restart of the mirror.
$redis->commands(map { ['SET', "sess:good$_", qq({"n": $_})] } 1 .. 100);
becomes('SELECT count(*) FROM sessions', '100', 'the mirror goes on beside them');
my $pid = mirror_pid($node);
my $seen = $node->safe_psql('postgres', 'SELECT max(last_seen) FROM session_store.rejects');
kill 'TERM', $pid;
becomes("SELECT pid <> $pid FROM session_store.stat_mirror WHERE store = 'sessions'", 't', 'a new mirror comes');
becomes("SELECT bool_and(last_seen > '$seen') AND bool_and(first_seen <= '$seen') FROM session_store.rejects", 't',
	'and sees the same rejects again');
is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.rejects"),
	keys(%bad_values) + keys(%bad_sids) + 2, 'each once');

# What becomes good is mirrored; what goes goes.
$redis->command('SET', "sess:$bad_values{$_}[0]", '{"fixed": true}') for keys %bad_values;
$redis->command('DEL', 'sess:hash', 'sess:list', map { "sess:$_" } keys %bad_sids);
becomes('SELECT count(*) FROM session_store.rejects', '0', 'no reject is left');
wait_equal($node, $redis, 'fixed keys are mirrored');

# A good session that becomes bad has no row.
$redis->command('SET', 'sess:good1', '{"a": ');
becomes("SELECT count(*) FROM sessions WHERE sid = 'good1'", '0', 'a session that becomes bad loses its row');
rejected('sess:good1', 'not valid jsonb', 'it');
# A rejected key that goes while no mirror looks.
$node->stop;
$redis->command('DEL', 'sess:good1');
$node->start;
becomes('SELECT count(*) FROM session_store.rejects', '0', 'a reject that went meanwhile goes too');

# Without TTL, at the longest sid, with odd but valid text.
$redis->command('SET', "sess:$limit_sid", '{"longest": true}');
$redis->command('SET', "sess:odd \n\t\"'\\ %s", '{"emoji": "\ud83d\ude00", "quote": "\""}', 'EX', 1000);
$redis->command('SET', 'sess:far', '1', 'PXAT', '9224318015999000');
$redis->command('SET', 'sess:too far', '1', 'PXAT', '9224318016000000');
wait_equal($node, $redis, 'odd sids are mirrored');
is($node->safe_psql('postgres', "SELECT expire FROM sessions WHERE sid LIKE repeat(E'\\u00e9', 255)"),
	'infinity', 'a key without TTL never expires');
rejected('sess:too far', 'expiry', 'an expiry that PostgreSQL cannot hold');

# Any bytes fit a bytea store.
my $all_bytes = join '', map { chr } 0 .. 255;
$redis->command('SET', 'bin:all', $all_bytes, 'EX', 1000);
becomes("SELECT encode(sess, 'hex') FROM bytes WHERE sid = 'all'", hex_of($all_bytes), 'any bytes are mirrored as bytea');
$redis->command('SET', 'bin:empty', '', 'EX', 1000);
becomes("SELECT length(sess) FROM bytes WHERE sid = 'empty'", '0', 'no bytes too');

# An empty prefix takes every key of its database.
create_mirrored_store($node, $redis, store => 'everything', prefix => '',
	server => sprintf "path '%s', database '1'", $redis->socket_path);
$redis->command('SELECT', 1);
$redis->command('SET', 'plain', '{"n": 1}');
$redis->command('SET', 'sess:x', '{"n": 2}');
$redis->command('SELECT', 0);
becomes("SELECT string_agg(sid || sess, ',' ORDER BY sid) FROM everything", 'plain{"n": 1},sess:x{"n": 2}',
	'an empty prefix mirrors every key of its database');
is($node->safe_psql('postgres', "SELECT count(*) FROM sessions WHERE sid = 'x'"), 0, 'and of no other');

# Large ones. Each is 5 MB, so that all at once would be more than a gigabyte.
sub peak_kilobytes
{
	my ($of) = slurp_file("/proc/$_[0]/status") =~ /^VmHWM:\s+(\d+)/m;
	return $of;
}
my $mirror = mirror_pid($node);
for my $n (1 .. 250)
{
	$redis->command('SET', "sess:large$n", qq({"n": $n, "text": ") . chr(97 + $n % 26) x 5_000_000 . '"}', 'EX', 100_000);
}
becomes("SELECT count(*), min(length(sess->>'text')), max(length(sess->>'text')) FROM sessions WHERE sid LIKE 'large%'",
	'250|5000000|5000000', '250 sessions of 5 MB are mirrored');
my $peak = peak_kilobytes($mirror);
note("copying needed $peak kB at most");
cmp_ok($peak, '<', 600 * 1024, 'the mirror never needed more than 600 MB');
kill 'TERM', $mirror;
becomes("SELECT pid <> $mirror FROM session_store.stat_mirror WHERE store = 'sessions'", 't', 'the mirror starts again');
ok(wait_in_sync($node), 'and compares them');
is(stat_mirror($node, 'applied'), 0, 'which writes nothing');
$peak = peak_kilobytes(mirror_pid($node));
note("comparing needed $peak kB at most");
cmp_ok($peak, '<', 600 * 1024, 'nor to compare');
$redis->command('FLUSHDB');

$node->stop;
done_testing();
