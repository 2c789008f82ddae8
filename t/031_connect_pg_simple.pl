# connect-pg-simple itself, under express-session and Express as they come from npm, on a store named
# "session": at the server and behind pgbouncer in transaction mode.
use strict;
use warnings;
use File::Copy;
use FindBin;
use IO::Socket::UNIX;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $json = JSON::PP->new->allow_nonref;
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
my $kPoll = 10_000;    # microseconds between two looks

# The folder of the application with its packages, installed where we may write when nobody has.
sub application_folder
{
	my $folder = "$FindBin::RealBin/node";
	return $folder if -d "$folder/node_modules/connect-pg-simple";
	my $copy = PostgreSQL::Test::Utils::tempdir();
	copy("$folder/$_", $copy) or die "$_: $!" for qw(app.mjs package.json package-lock.json);
	local $ENV{npm_config_cache} = "$copy/cache";
	my ($output, $error);
	IPC::Run::run([ 'npm', 'ci', '--no-audit', '--no-fund', '--prefix', $copy ], '>', \$output, '2>', \$error) or die "npm ci: $error";
	return $copy;
}

# Asks again and again until the condition holds; dies when it does not in time.
sub wait_until
{
	my ($condition, $failure) = @_;
	for (1 .. $PostgreSQL::Test::Utils::timeout_default * 1_000_000 / $kPoll)
	{
		return if $condition->();
		usleep($kPoll);
	}
	die $failure;
}

sub wait_for_socket
{
	my ($path, $process) = @_;
	wait_until(sub { $process->pump_nb; return IO::Socket::UNIX->new($path) }, "nobody listens at $path");
}

# Sends a request; its answer is read by receive().
sub send_request
{
	my ($path, $cookie, $socket) = @_;
	my $connection = IO::Socket::UNIX->new($socket) or die "$socket: $!";
	print $connection "GET $path HTTP/1.1\r\nHost: test\r\nConnection: close\r\n" . ($cookie ? "Cookie: $cookie\r\n" : '') . "\r\n";
	$connection->flush;
	return $connection;
}

# (status, decoded body, cookie that was set)
sub receive
{
	my ($connection) = @_;
	local $/;
	my ($head, $body) = split(/\r\n\r\n/, <$connection>, 2);
	my ($status) = $head =~ m{^HTTP/1.1 (\d+)};
	my ($cookie) = $head =~ /^set-cookie: (connect\.sid=[^;]+)/mi;
	return ($status, length $body ? $json->decode($body) : undef, $cookie);
}

sub sid_of
{
	my ($cookie) = @_;
	my ($sid) = $cookie =~ /s%3A([^.]+)\./ or die "no sid in $cookie";
	return $sid;
}

my $node = PostgreSQL::Test::Cluster->new('clients');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'session_store'\ntimezone = 'Asia/Kathmandu'");
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN;
CREATE EXTENSION session_store;
SELECT session_store.create_store('session');
SELECT session_store.grant_app('app', 'session');
UPDATE session_store.stores SET user_id_path = '{passport,user}' WHERE store = 'session';
SQL
sub query { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# What an application sees and what the table holds, the same whatever is between them.
sub check_application
{
	my ($way, $socket) = @_;
	my $get = sub { my ($path, $cookie) = @_; return receive(send_request($path, $cookie, $socket)); };
	my $row = sub {
		my ($sid, $columns) = @_;
		return query("SELECT $columns FROM session WHERE sid = '$sid'");
	};

	my ($status, $body, $cookie) = $get->('/visit');
	is("$status $body", '200 1', "$way: a new session");
	my $sid = sid_of($cookie);
	is($row->($sid, "sess ->> 'visits', expire BETWEEN now() + '58 min' AND now() + '62 min', created_at > now() - interval '1 minute', user_id IS NULL"),
		'1|t|t|t', "$way: its row");
	my $version = $row->($sid, 'version');
	cmp_ok($version, '>', 1e15, "$way: its version starts from the clock");
	is(query("SELECT session_store.get('$sid', 'session') ->> 'visits'"), '1', "$way: the functions see it");

	# A read request touches.
	query("UPDATE session SET expire = now() + interval '1 minute' WHERE sid = '$sid'");
	my $updated = $row->($sid, 'updated_at');
	($status, $body) = $get->('/read', $cookie);
	is("$status $body->{visits}", '200 1', "$way: a read");
	is($row->($sid, "expire > now() + '58 min', version = $version, updated_at >= '$updated', sess ->> 'visits'"), 't|t|t|1',
		"$way: extends the session and leaves its version");

	($status, $body) = $get->('/visit', $cookie);
	is("$status $body", '200 2', "$way: a change");
	is($row->($sid, "sess ->> 'visits', version = $version + 1, updated_at > '$updated', created_at < updated_at"), '2|t|t|t',
		"$way: is a new version");

	# What the functions change the client reads, and the other way round.
	query("SELECT session_store.merge('$sid', '{\"visits\": 40}', store => 'session')");
	($status, $body) = $get->('/visit', $cookie);
	is($body, 41, "$way: a merge between two requests is kept");

	# Regenerate.
	($status, $body, my $new_cookie) = $get->('/login/anna', $cookie);
	my $new_sid = sid_of($new_cookie);
	is("$status $body", "200 $new_sid", "$way: a login regenerates the session");
	isnt($new_sid, $sid, "$way: under another sid");
	is($row->($new_sid, 'user_id'), 'anna', "$way: user_id comes from the payload");
	is(query("SELECT count(*) FROM session WHERE sid = '$sid'"), 0, "$way: the old row is gone");
	is(query("SELECT session_store.upsert('$sid', '{}', store => 'session') IS NULL"), 't', "$way: and cannot come back");
	($status, $body) = $get->('/visit', $new_cookie);
	is($row->($new_sid, 'user_id'), 'anna', "$way: user_id stays");
	is(query("SELECT count(*) FROM session_store.user_sessions('anna', 'session')"), 1, "$way: user_sessions finds it");

	# A request that has read the session ends after the logout.
	my $late = send_request('/hold', $new_cookie, $socket);
	wait_until(sub { ($get->('/held'))[1] }, 'the request is not held');
	($status) = $get->('/logout', $new_cookie);
	is($status, 200, "$way: a logout");
	is(query("SELECT count(*) FROM session WHERE sid = '$new_sid'"), 0, "$way: removes the row");
	$get->('/release');
	($status) = receive($late);
	is($status, 200, "$way: a late save does not fail its request");
	is(query("SELECT count(*) FROM session WHERE sid = '$new_sid'"), 0, "$way: and does not bring the session back");
	($status, $body) = $get->('/read', $new_cookie);
	is("$status " . ($body->{user} // 'nobody'), '200 nobody', "$way: the user is logged out");

	# Prune: what is over goes and leaves no tombstone; what lives stays.
	query(qq{INSERT INTO session (sid, sess, expire) SELECT 'old' || i, '{}', now() - interval '2 seconds' FROM generate_series(1, 5) i});
	(undef, undef, $cookie) = $get->('/visit');
	$sid = sid_of($cookie);
	($status) = $get->('/prune');
	is($status, 200, "$way: prune");
	is(query('SELECT count(*) FILTER (WHERE expire < now()), count(*) > 0 FROM session'), '0|t', "$way: removes what is over");
	is(query("SELECT count(*) FROM session_store.tombstones WHERE sid LIKE 'old%'"), 0, "$way: which is no logout");

	# Several at once, more than there are connections. The saves of one session follow each other.
	my @requests = map { send_request('/visit', $_ % 2 ? $cookie : undef, $socket) } 1 .. 16;
	is(join(' ', map { (receive($_))[0] } @requests), join(' ', (200) x 16), "$way: sixteen requests at once");
	cmp_ok($row->($sid, "sess ->> 'visits'"), '>', 1, "$way: have written");
	is_deeply(($get->('/errors'))[1], [], "$way: no error on the way");
}

my $folder = application_folder();
my $node_program = $ENV{NODE} // 'node';

# Runs the application against the server or pooler at that place, as long as the checks take.
sub with_application
{
	my ($way, $host, $port) = @_;
	my $socket = "$sockets/" . ($way =~ s/\W//gr) . '.sock';
	my ($input, $output, $error) = ('', '', '');
	my $application = do
	{
		local %ENV = (%ENV, PGHOST => $host, PGPORT => $port, PGUSER => 'app', PGDATABASE => 'postgres');
		IPC::Run::start([ $node_program, "$folder/app.mjs", $socket ], '<pipe', \*APPLICATION, '>', \$output, '2>', \$error);
	};
	eval { wait_for_socket($socket, $application); check_application($way, $socket); 1 } or fail("$way: $@ $output$error");
	close(APPLICATION);
	ok($application->finish, "$way: the application ends well") or diag($error);
}

with_application('direct', $node->host, $node->port);

append_to_file("$sockets/pgbouncer.ini", <<"INI");
[databases]
postgres = host=${\ $node->host} port=${\ $node->port} user=app
[pgbouncer]
listen_addr =
unix_socket_dir = $sockets
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 2
INI
local $ENV{PATH} = "$ENV{PATH}:/usr/sbin";
my ($input, $output, $error) = ('', '', '');
my $pooler = IPC::Run::start([ 'pgbouncer', '-q', "$sockets/pgbouncer.ini" ], \$input, \$output, '2>', \$error);
eval { wait_for_socket("$sockets/.s.PGSQL.6432", $pooler); 1 } or die "$@ $error";
with_application('pgbouncer', $sockets, 6432);

# The functions behind the pooler: a setting that changes holds on the connections that it keeps.
my @behind = (extra_params => [ '-h', $sockets, '-p', 6432, '-U', 'app' ]);
# An expiry is rounded up to its millisecond, so that it can be later than the next statement's clock tells.
my $ttl = "SELECT session_store.upsert('behind', '{}', store => 'session') > 0;
	SELECT expire BETWEEN now() + interval '23 h' AND now() + interval '24 h 1 s', expire <= now() + interval '10 min 1 s' FROM session WHERE sid = 'behind'";
is($node->safe_psql('postgres', $ttl, @behind), "t\nt|f", 'pgbouncer: the functions');
query("UPDATE session_store.stores SET default_ttl = '10 min' WHERE store = 'session'");
is($node->safe_psql('postgres', $ttl, @behind), "t\nf|t", 'pgbouncer: with a setting that has changed');

$pooler->signal('INT');
$pooler->finish;
$node->stop;
done_testing();
