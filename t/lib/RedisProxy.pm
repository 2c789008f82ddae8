# The TCP proxy of the soak (soak/proxy.py) before a Redis: it can stall, cut, refuse and half-open connections.
package RedisProxy;

use strict;
use warnings;
use FindBin;
use IPC::Open2;

my @started;

# Starts one before a RedisServer.
sub new
{
	my ($class, $redis) = @_;
	my $self = bless {}, $class;
	$self->{pid} = open2($self->{out}, $self->{in}, 'python3', "$FindBin::RealBin/../soak/proxy.py");
	chomp($self->{port} = readline $self->{out});
	push @started, $self;
	$self->tell('target ' . $redis->socket_path);
	return $self;
}

sub port { return $_[0]{port} }

# Options of a foreign server that reach Redis through it, with short timeouts.
sub server { return "host '127.0.0.1', port '$_[0]{port}', connect_timeout '1s', command_timeout '1s'" }

# One of the commands of soak/proxy.py.
sub tell
{
	my ($self, $command) = @_;
	syswrite $self->{in}, "$command\n";
	my $answer = readline $self->{out};
	die "the proxy has ended" if !defined $answer || $answer ne "ok\n";
}

END
{
	my $status = $?;
	for my $proxy (@started)
	{
		close $proxy->{in};
		waitpid $proxy->{pid}, 0;
	}
	$? = $status;
}

1;
