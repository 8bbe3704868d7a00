
# Mockd.pm
#	librdkafka's mock cluster as a child of a test: test/tools/mockd driven over
#	its standard input.
#
# NOTES
#	The commands and what the mock cannot do are described in
#	test/tools/README.md.  Each command is answered when it has taken effect; an
#	"error: ..." dies here.  The cluster ends with the object or the test.
#
#	Commands are methods: $mock->create('orders', 3), $mock->down(1),
#	$mock->error(1, -195).

package StreamEngine::Mockd;

use strict;
use warnings FATAL => 'all';

use Carp;
use IPC::Run;
use PostgreSQL::Test::Utils qw(pump_until);

our $AUTOLOAD;

# new(PROGRAM, ARGUMENTS...): starts the cluster, returns when it listens.
sub new
{
	my ($class, $program, @arguments) = @_;

	croak "$program is not built: make -C test/tools" unless -x $program;

	my $self = bless { stdin => '', stdout => '', stderr => '' }, $class;
	$self->{timeout} =
	  IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$self->{run} = IPC::Run::start(
		[ $program, @arguments ],
		'<',  \$self->{stdin},
		'>',  \$self->{stdout},
		'2>', \$self->{stderr},
		$self->{timeout});
	my $line = $self->_read_line;
	$line =~ /^bootstrap=(\S+)$/
	  or croak "mockd says \"$line\" and not where it listens";
	$self->{bootstrap} = $1;
	return $self;
}

# Where the brokers listen: HOST:PORT,...
sub bootstrap
{
	my ($self) = @_;
	return $self->{bootstrap};
}

# command(WORDS...): runs a command and returns what follows "ok" in its answer.
sub command
{
	my ($self, @words) = @_;
	my $line = join(' ', @words);

	croak "a command of mockd is one line: $line" if $line =~ /\n/;
	$self->{stdin} .= "$line\n";
	my $answer = $self->_read_line;
	$answer =~ /^ok ?(.*)$/ or croak "mockd: $line: $answer";
	return $1;
}

# produce(TOPIC, PARTITION, VALUES...): one record per value, without keys; undef
# is a NULL payload.
sub produce
{
	my ($self, $topic, $partition, @values) = @_;

	$self->command('produce', $topic, $partition, '-', $_ // '\N')
	  foreach @values;
	return;
}

# end(): stops the cluster and waits for its end.  The end of its input would
# not do: servers that were started meanwhile hold the pipe open as well.
sub end
{
	my ($self) = @_;
	my $run = delete $self->{run};

	return unless defined $run;
	$self->{stdin} .= "quit\n";
	$self->{timeout}->start(10);
	eval { $run->finish; } or eval { $run->kill_kill(grace => 1); };
	return;
}

sub _read_line
{
	my ($self) = @_;

	$self->{timeout}->start($PostgreSQL::Test::Utils::timeout_default);
	pump_until($self->{run}, $self->{timeout}, \$self->{stdout}, qr/\n/)
	  or croak "mockd has ended or does not answer: $self->{stderr}";
	$self->{timeout}->reset;
	$self->{stdout} =~ s/^([^\n]*)\n//;
	return $1;
}

sub AUTOLOAD
{
	my ($self, @arguments) = @_;
	my ($name) = $AUTOLOAD =~ /([^:]+)$/;

	croak "StreamEngine::Mockd has no method $name" unless ref $self;
	return $self->command($name, @arguments);
}

sub DESTROY
{
	my ($self) = @_;

	local ($@, $?);
	$self->end;
	return;
}

1;
