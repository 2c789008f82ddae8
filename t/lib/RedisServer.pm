# A Redis of a test's own, on a unix socket in a temporary directory, and a client for it.
package RedisServer;

use strict;
use warnings;
use Errno;
use File::Temp;
use IO::Socket::UNIX;
use IPC::Run;
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(sleep time);

my $kTimeout = 30;
my @started;

# Starts a server; further arguments are of redis-server. It keeps nothing on disk unless told to.
sub new
{
	my ($class, @arguments) = @_;
	# Socket paths are short: not below the tree of the test.
	my $directory = File::Temp->newdir('redis-XXXXXX', TMPDIR => 1);
	chmod 0755, "$directory";
	my $self = bless { directory => $directory, arguments => [@arguments] }, $class;
	push @started, $self;
	$self->start;
	return $self;
}

sub socket_path { return $_[0]{directory} . '/redis.sock' }
sub pid { return $_[0]{pid} }

sub start
{
	my ($self, @arguments) = @_;
	my @command = ('redis-server', '--port', 0, '--unixsocket', $self->socket_path, '--dir',
		"$self->{directory}", '--save', '', '--appendonly', 'no', '--logfile', 'redis.log',
		@{ $self->{arguments} }, @arguments);
	$self->{handle} = IPC::Run::start(\@command, '<', \undef, '>', \my $out, '2>', \my $err);
	$self->{pid} = $self->{handle}{KIDS}[0]{PID};
	my $deadline = time + $kTimeout;
	until ($self->answers)
	{
		die "redis-server does not start: $out$err" if time > $deadline || !$self->{handle}->pumpable;
		sleep 0.02;
	}
}

# Whether it takes connections, be it with an error.
sub answers
{
	my ($self) = @_;
	delete $self->{client};
	return eval { $self->connect_client; 1 } || 0;
}

sub signal { my ($self, $signal) = @_; return kill $signal, $self->{pid} }

# Ends it at once, or by SHUTDOWN when it is to save its data.
sub kill_now { my ($self) = @_; $self->signal('KILL'); $self->reap }
sub stop { my ($self) = @_; $self->signal('TERM'); $self->reap }

sub reap
{
	my ($self) = @_;
	delete $self->{client};
	eval { $self->{handle}->finish };
	delete $self->{pid};
}

sub connect_client
{
	my ($self) = @_;
	my $client = IO::Socket::UNIX->new(Peer => $self->socket_path) or die "no connection to Redis: $!";
	$self->{client} = { socket => $client, buffer => '' };
	$self->command('AUTH', $self->{password}) if defined $self->{password};
	return;
}

# One command, binary safe: its reply, lists as array references; dies on an error reply.
sub command
{
	my ($self, @arguments) = @_;
	$self->send_commands([@arguments]);
	return $self->read_reply;
}

# Many commands at once; dies on the first error reply.
sub commands
{
	my ($self, @commands) = @_;
	while (my @some = splice @commands, 0, 500)
	{
		$self->send_commands(@some);
		$self->read_reply for @some;
	}
}

sub send_commands
{
	my ($self, @commands) = @_;
	$self->connect_client unless $self->{client};
	my $bytes = '';
	for my $command (@commands)
	{
		my @arguments = map { my $bytes = $_; utf8::encode($bytes) if utf8::is_utf8($bytes); $bytes } @$command;
		$bytes .= '*' . @arguments . "\r\n" . join '', map { '$' . length($_) . "\r\n$_\r\n" } @arguments;
	}
	my $socket = $self->{client}{socket};
	for (my $sent = 0; $sent < length $bytes;)
	{
		my $more = syswrite $socket, $bytes, 1 << 20, $sent;
		die "sending to Redis: $!" unless defined $more || $!{EINTR};
		$sent += $more // 0;
	}
}

# Waits for more of a reply. A Redis that is stopped or goes on is a child of ours that says so: that interrupts a read.
sub receive
{
	my ($self) = @_;
	my $client = $self->{client};
	my $more;
	do { $more = sysread $client->{socket}, $client->{buffer}, 1 << 20, length $client->{buffer} } while (!defined $more && $!{EINTR});
	return if $more;
	my $why = defined $more ? 'it closed the connection' : $!;
	delete $self->{client};
	die "reading from Redis: $why";
}

sub read_line
{
	my ($self) = @_;
	my $client = $self->{client};
	$self->receive while $client->{buffer} !~ /\r\n/;
	$client->{buffer} =~ s/^(.*?)\r\n//s;
	return $1;
}

sub read_bytes
{
	my ($self, $length) = @_;
	my $client = $self->{client};
	$self->receive while length $client->{buffer} < $length + 2;
	my $bytes = substr $client->{buffer}, 0, $length + 2, '';
	return substr $bytes, 0, $length;
}

sub read_reply
{
	my ($self) = @_;
	my ($type, $rest) = $self->read_line =~ /^(.)(.*)$/s;
	die "Redis: $rest" if $type eq '-';
	return $rest if $type eq '+' || $type eq ':';
	return $rest < 0 ? undef : $self->read_bytes($rest) if $type eq '$';
	return undef if $rest < 0;
	return [ map { $self->read_reply } 1 .. $rest ];
}

# Every key under the prefix.
sub keys_under
{
	my ($self, $prefix) = @_;
	return grep { index($_, $prefix) == 0 } @{ $self->command('KEYS', '*') };
}

END
{
	my $status = $?;
	for my $server (grep { defined $_->{pid} } @started)
	{
		$server->signal('CONT');
		$server->kill_now;
	}
	$? = $status;
}

1;
