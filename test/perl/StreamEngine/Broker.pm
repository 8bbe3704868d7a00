
# Broker.pm
#	A real Kafka broker for a test, by test/broker/kafka.sh.
#
# NOTES
#	Starting a broker takes seconds, so test files share one: the first that
#	wants it starts it in SE_BROKER_DIR under a lock, check.sh stops it.  A file
#	that is run by hand, or that stops, kills or configures the broker, has its
#	own, which ends with the file.  Files that share must not share topics: take
#	names from topic_name().

package StreamEngine::Broker;

use strict;
use warnings FATAL => 'all';

use Carp;
use Fcntl qw(:flock);
use File::Basename;
use File::Path qw(mkpath);
use IPC::Run;
use PostgreSQL::Test::Utils ();

my $script = dirname(__FILE__) . '/../../broker/kafka.sh';
my @own_brokers;

# new(private => 1, security => [MECHANISM, USER, PASSWORD]): a broker that
# answers.  One with a security argument is private; ["proxied", PORT] is one whose
# clients are told to come through a proxy on that port, ["tls", USER, PASSWORD,
# FOLDER] one with certificates, see kafka.sh.
sub new
{
	my ($class, %options) = @_;
	my $shared = $ENV{SE_BROKER_DIR};
	my $self = bless {}, $class;

	if ($shared && !$options{private} && !$options{security})
	{
		open(my $lock, '>>', "$shared.lock") or croak "$shared.lock: $!";
		flock($lock, LOCK_EX) or croak "$shared.lock: $!";
		$self->{dir} = $shared;
		# A file that could not start it leaves no "started" behind.
		$self->_start unless -e "$shared/started";
		$self->_read_info($self->_run('info', $shared));
		PostgreSQL::Test::Utils::append_to_file("$shared/started", "$$\n");
		close($lock);
	}
	else
	{
		$self->{dir} = PostgreSQL::Test::Utils::tempdir('kafka');
		$self->{private} = 1;
		push @own_brokers, $self;
		$self->_start(@{ $options{security} // [] });
	}
	return $self;
}

# Where clients connect, HOST:PORT.  The second is for administration; it needs
# no login.
sub bootstrap
{
	my ($self) = @_;
	return $self->{bootstrap};
}

sub admin
{
	my ($self) = @_;
	return $self->{admin} // $self->{bootstrap};
}

# Where a broker with certificates wants its clients to have one, too.
sub mutual
{
	my ($self) = @_;
	return $self->{mutual};
}

# topic_name(WORD): a topic's name that no other test file uses.
sub topic_name
{
	my ($self, $word) = @_;
	my $file = basename($0, '.pl');
	$file =~ s/[^A-Za-z0-9_]/_/g;
	return "${file}_$$" . "_$word";
}

# topic(NAME, PARTITIONS, CONFIG=VALUE...) and its relatives: see kafka.sh.
sub topic
{
	my ($self, @arguments) = @_;
	$self->_run('topic', $self->admin, @arguments);
	return;
}

sub alter_topic
{
	my ($self, @arguments) = @_;
	$self->_run('alter-topic', $self->admin, @arguments);
	return;
}

sub delete_topic
{
	my ($self, @arguments) = @_;
	$self->_run('delete-topic', $self->admin, @arguments);
	return;
}

sub add_partitions
{
	my ($self, @arguments) = @_;
	$self->_run('add-partitions', $self->admin, @arguments);
	return;
}

sub delete_records
{
	my ($self, @arguments) = @_;
	$self->_run('delete-records', $self->admin, @arguments);
	return;
}

# offsets(TOPIC): a reference to [low, high] by partition.
sub offsets
{
	my ($self, $topic) = @_;
	my @offsets;

	foreach my $line (split /\n/, $self->_run('offsets', $self->admin, $topic))
	{
		my ($partition, $low, $high) = $line =~ /(-?\d+)/g;
		$offsets[$partition] = [ $low, $high ];
	}
	return \@offsets;
}

# produce(TOPIC, PARTITION, VALUES...): one record per value, in order, without
# keys; undef is a NULL payload.  Returns when all are acknowledged.
sub produce
{
	my ($self, $topic, $partition, @values) = @_;
	# kcat passes over empty lines; an empty key before the value makes none.
	my $input = join("\x1e", map { "\x1f" . ($_ // '') } @values);
	my ($out, $err) = ('', '');

	return unless @values;
	croak 'the producer of the tests cannot send an empty payload'
	  if grep { defined $_ && $_ eq '' } @values;
	IPC::Run::run(
		[
			'kcat', '-P', '-Z', '-q', '-b', $self->admin, '-t', $topic,
			'-p', $partition, '-D', "\x1e", '-K', "\x1f", '-X', 'acks=all',
			'-X', 'message.max.bytes=10000000'
		],
		'<', \$input, '>', \$out, '2>', \$err)
	  or croak "kcat cannot produce into $topic: $err";
	return;
}

# stop, kill (-9) and restart: of a private broker only.
sub stop
{
	my ($self) = @_;
	$self->_own('stop');
	return;
}

sub kill
{
	my ($self) = @_;
	$self->_own('kill');
	return;
}

sub restart
{
	my ($self) = @_;
	$self->_own('restart');
	return;
}

sub _own
{
	my ($self, $what) = @_;
	croak "other tests use this broker: take broker(private => 1) to $what one"
	  unless $self->{private};
	$self->_run($what, $self->{dir});
	return;
}

sub _start
{
	my ($self, @security) = @_;
	$self->_read_info($self->_run('start', $self->{dir}, 0, @security));
	return;
}

sub _read_info
{
	my ($self, $info) = @_;

	($self->{bootstrap}) = $info =~ /^bootstrap=(\S+)$/m
	  or croak "kafka.sh does not say where the broker listens: $info";
	($self->{admin}) = $info =~ /^admin=(\S+)$/m;
	($self->{mutual}) = $info =~ /^mutual=(\S+)$/m;
	return;
}

sub _run
{
	my ($self, @arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ $script, @arguments ], '<', \undef, '>', \$out, '2>', \$err)
	  or croak "kafka.sh @arguments: $out$err";
	return $out;
}

END
{
	# Keep the test's exit status.
	local ($?, $@);
	foreach my $broker (@own_brokers)
	{
		eval { $broker->_run('kill', $broker->{dir}); };
	}
}

1;
