# Whatever ends or stalls the connections to Redis, what changed meanwhile is found: no loss of a hint is silent.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisProxy;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $proxy = RedisProxy->new($redis);
my $node = start_mirrored_cluster('lost_connections');
create_mirrored_store($node, $redis, server => $proxy->server);
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 100);
wait_equal($node, $redis, 'equal before');

# Changes of every kind, each time others.
my $round = 0;
sub changes
{
	$round++;
	return (
		['SET', "sess:new$round", qq({"new": $round}), 'EX', 1000],
		['SET', "sess:$round", qq({"changed": $round}), 'EX', 2000],
		['EXPIRE', 'sess:' . (20 + $round), 3000 + $round],
		['PERSIST', 'sess:' . (40 + $round)],
		['DEL', 'sess:' . (60 + $round)],
		['RENAME', 'sess:' . (80 + $round), "sess:renamed$round"]);
}

# Passes when both sides get equal after a loss of the connection, which is counted as a gap.
sub heals
{
	my ($name, $gaps) = @_;
	ok($node->poll_query_until('postgres', "SELECT gaps > $gaps FROM session_store.stat_mirror"), "$name: the gap is noticed");
	wait_equal($node, $redis, "$name: equal");
}

sub gaps { return stat_mirror($node, 'gaps') }

# In one transaction with what kills the connection, so that no hint of the changes can arrive.
for my $case (
	['the subscriber is killed', ['CLIENT', 'KILL', 'TYPE', 'pubsub']],
	['the reader is killed', ['CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes']])
{
	my ($name, @kill) = @$case;
	my $gaps = gaps();
	$redis->commands(['MULTI'], @kill, changes(), ['EXEC']);
	heals($name, $gaps);
}

# Hints of one turn of the server that are more than the output buffer may hold.
my $gaps = gaps();
$redis->command('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 10kb 0 0');
$redis->commands(['MULTI'], (map { ['SET', "sess:burst$_", '{}', 'EX', 1000] } 1 .. 3000), changes(), ['EXEC']);
heals('the output buffer is overrun', $gaps);
$redis->command('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 32mb 8mb 60');

# Or more than all clients together may hold: Redis evicts the largest.
$gaps = gaps();
my $evicted = sub { my ($count) = $redis->command('INFO', 'stats') =~ /evicted_clients:(\d+)/; $count };
$redis->command('CONFIG', 'SET', 'maxmemory-clients', '400kb');
$redis->commands(['MULTI'], ['EVAL', "for i = 1, 20000 do redis.call('SET', KEYS[1] .. i, '{}') redis.call('DEL', KEYS[1] .. i) end", 1, 'sess:crowd'], changes(), ['EXEC']);
heals('the connection is evicted', $gaps);
cmp_ok($evicted->(), '>', 0, 'by Redis');
$redis->command('CONFIG', 'SET', 'maxmemory-clients', '0');

# Nothing says that these connections are dead but the missing answer.
$gaps = gaps();
$proxy->tell('half-open');
$redis->commands(changes());
heals('a half-open connection', $gaps);

$gaps = gaps();
$proxy->tell('stall');
$redis->commands(changes());
ok(wait_for_status($node, '^failing: .*in time'), 'a stalled connection is said');
$proxy->tell('pass');
heals('a stalled connection', $gaps);

$gaps = gaps();
$redis->commands(changes());
$redis->signal('STOP');
ok(wait_for_status($node, '^failing: .*in time'), 'a frozen server is said');
$redis->signal('CONT');
$redis->commands(changes());
heals('a frozen server', $gaps);

$gaps = gaps();
$proxy->tell('refuse');
$proxy->tell('cut');
$redis->commands(changes());
ok(wait_for_status($node, '^failing: '), 'a refused connection is said');
$proxy->tell('pass');
heals('a refused connection', $gaps);

for (1 .. 5)
{
	my $reconnects = stat_mirror($node, 'reconnects');
	$redis->commands(changes());
	$proxy->tell('cut');
	$redis->commands(changes());
	ok($node->poll_query_until('postgres', "SELECT reconnects > $reconnects FROM session_store.stat_mirror"), "cut $_ is noticed");
}
wait_equal($node, $redis, 'equal after five cuts');

# A change that arrives in drips, as does the comparison before it.
$gaps = gaps();
$proxy->tell('slow 200000');
$proxy->tell('cut');
$redis->commands(changes());
heals('a slow connection', $gaps);
$proxy->tell('pass');

# Behind one name there may be two servers: a hint of one and the values of the other go together never.
my $other = RedisServer->new;
$other->command('SET', 'sess:of the other', '{}', 'EX', 1000);
$proxy->tell('target ' . join ' ', $redis->socket_path, $other->socket_path);
$proxy->tell('cut');
ok(wait_for_status($node, '^(failing|waiting): .*(another|differ|same|server)'), 'two servers behind one name are said');
is($node->safe_psql('postgres', "SELECT count(*) FROM sessions WHERE sid = 'of the other'"), 0, 'and nothing is read');
$proxy->tell('target ' . $redis->socket_path);
wait_equal($node, $redis, 'equal once it is one server');

# The database is selected again with every connection.
$node->safe_psql('postgres', "ALTER SERVER sessions_redis OPTIONS (ADD database '2')");
$redis->commands(['SELECT', 2], (map { ['SET', "sess:$_", qq({"second": $_}), 'EX', 1000] } 1 .. 100));
$node->safe_psql('postgres', 'UPDATE session_store.stores SET max_delete_percent = 100');
wait_equal($node, $redis, 'another database');
$gaps = gaps();
$redis->commands(['MULTI'], ['CLIENT', 'KILL', 'TYPE', 'pubsub'], ['SET', 'sess:1', '{"second": "changed"}', 'EX', 1000], ['EXEC']);
heals('another database after a reconnection', $gaps);

$node->stop;
done_testing();
