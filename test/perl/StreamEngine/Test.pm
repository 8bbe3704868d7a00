
# Test.pm
#	What the TAP tests of stream_engine share, over PostgreSQL::Test::Cluster.
#
#	use StreamEngine::Test;
#	my $node = new_node('main');                 # runs, with the extension
#	wait_for($node, q(SELECT count(*) > 0 FROM sales_5m));
#	kill9_worker($node);                         # and the server has recovered
#
# NOTES
#	No function here waits for a time, all wait for conditions; one that waits in
#	vain reports what the server was doing and dies, because the rest of the file
#	would test nothing.
#
#	Nodes, brokers and mock clusters end with the test, also by a signal.

package StreamEngine::Test;

use strict;
use warnings FATAL => 'all';

use Carp;
use Exporter 'import';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StreamEngine::Broker;
use StreamEngine::Mockd;
use StreamEngine::Node;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  new_node wait_for wait_until wait_for_log log_position log_since report_state
  engine_processes wait_for_processes kill9_worker kill9_server server_pids try_sql leaves_nothing
  broker mockd proxy tools_dir long_run
);

my $test_dir = dirname(__FILE__) . '/../..';

# A signal must run the END blocks, which stop servers and brokers.
$SIG{INT} = $SIG{TERM} = sub { die "death by signal\n" };

# ---------------------------------------------------------------------------
# Nodes
# ---------------------------------------------------------------------------

# new_node(NAME, OPTIONS): a cluster with the settings of test/regress.conf,
# started, with the extension in database postgres.
#	conf => TEXT            more lines of postgresql.conf
#	fsync => 1              a durable one, for tests of crashes of the machine
#	allows_streaming => 1   as in PostgreSQL::Test::Cluster's init
#	archiving => 1          as has_archiving there
#	extension => 0          started, without the extension
#	start => 0              made, not started
#	init => [...]           more arguments of initdb
#	install_path => PATH    of the server above bin, if not that of the PATH
sub new_node
{
	my ($name, %options) = @_;
	my @server = $options{install_path} ? (install_path => $options{install_path}) : ();
	my $node = StreamEngine::Node->new($name, @server);

	$node->init(allows_streaming => $options{allows_streaming} // 0,
		has_archiving => $options{archiving} // 0, extra => $options{init} // []);
	$node->append_conf('postgresql.conf', slurp_file("$test_dir/regress.conf"));
	# Standbys and clones are made from nodes that stream.
	$node->append_conf('postgresql.conf', 'max_connections = 50')
	  if $options{allows_streaming};
	$node->append_conf('postgresql.conf', 'fsync = on') if $options{fsync};
	$node->append_conf('postgresql.conf', $options{conf}) if $options{conf};
	if ($options{start} // 1)
	{
		$node->start;
		$node->safe_psql('postgres', 'CREATE EXTENSION stream_engine')
		  if $options{extension} // 1;
	}
	return $node;
}

# server_pids(NODE): process ids of the postmaster and of all its children, which
# stand in the data directory.  Works when the server does not answer.
sub server_pids
{
	my ($node) = @_;
	my $data = $node->data_dir;

	return grep { (readlink("/proc/$_/cwd") // '') eq $data }
	  map { m{^/proc/(\d+)$} ? $1 : () } glob('/proc/[0-9]*');
}

# kill9_server(NODE): kill -9 of the postmaster and a new start, after the last
# of its children has ended.
sub kill9_server
{
	my ($node) = @_;
	my $pid_file = $node->data_dir . '/postmaster.pid';
	my ($pid) = slurp_file($pid_file) =~ /^(\d+)/;

	$node->kill9;
	_poll(sub { !server_pids($node) })
	  or croak 'processes outlive their postmaster: '
	  . join(' ', map { _describe($_) } server_pids($node));
	# Process 1 may collect the dead late or never; until then the lock files
	# seem to belong to a live process.
	unless (_poll(sub { !-e "/proc/$pid" }, 10))
	{
		unlink $pid_file, $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	}
	$node->start;
	return;
}

# ---------------------------------------------------------------------------
# Processes of the engine
# ---------------------------------------------------------------------------

# engine_processes(NODE [, LIKE]): [pid, backend_type, database] of each process
# of the engine, of those whose backend_type is LIKE the pattern if there is one.
sub engine_processes
{
	my ($node, $like) = @_;
	$like //= 'stream_engine%';
	my $rows = $node->safe_psql(
		'postgres', qq(
		SELECT pid, backend_type, datname FROM pg_stat_activity
		WHERE backend_type LIKE 'stream_engine%' AND backend_type LIKE '$like'
		ORDER BY backend_type, pid));
	return map { [ split /\|/, $_, -1 ] } split /\n/, $rows;
}

# wait_for_processes(NODE, COUNT [, LIKE]): until so many run.
sub wait_for_processes
{
	my ($node, $count, $like) = @_;
	$like //= 'stream_engine%';
	wait_for(
		$node, qq(
		SELECT count(*) FROM pg_stat_activity
		WHERE backend_type LIKE 'stream_engine%' AND backend_type LIKE '$like'),
		expected => $count);
	return;
}

# kill9_worker(NODE [, LIKE]): kill -9 of one process of the engine.  The
# postmaster then restarts the server; returns when that accepts connections
# again, with the process id that was killed.
sub kill9_worker
{
	my ($node, $like) = @_;
	my $position = log_position($node);
	my @processes = engine_processes($node, $like);

	croak 'no process of the engine is like ' . ($like // 'stream_engine%')
	  unless @processes;
	my $pid = $processes[0][0];
	kill(9, $pid) == 1 or croak "cannot kill process $pid: $!";
	wait_for_log($node, qr/database system is ready to accept connections/,
		$position);
	return $pid;
}

# leaves_nothing(NODE): the end of a test.  Each reader has one process and each process a reader;
# when the streams are dropped no process, state or shared memory of theirs is left, and the server
# stops with all its processes.
sub leaves_nothing
{
	my ($node) = @_;
	my $readers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_engine reader%'";
	my @databases = grep {
		$node->safe_psql($_, "SELECT count(*) FROM pg_extension WHERE extname = 'stream_engine'")
	} split /\n/, $node->safe_psql('postgres', 'SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate');

	wait_for(
		$node, qq(
		SELECT count(*) = count(DISTINCT (database, reader)) AND count(*) = ($readers)
		FROM stream_engine.stat_workers WHERE kind = 'reader' AND pid IS NOT NULL));
	foreach my $database (@databases)
	{
		foreach my $stream (split /\n/, $node->safe_psql($database, 'SELECT quote_literal(name) FROM stream_engine.streams'))
		{
			$node->safe_psql($database, "SELECT stream_engine.drop_stream($stream, cascade => true)");
		}
		is($node->safe_psql($database, 'SELECT (SELECT count(*) FROM stream_engine.reader), (SELECT count(*) FROM stream_engine.state_log)'),
			'0|0', "no reader and no state is left in database $database");
	}
	wait_for_processes($node, 0, "%$_%") foreach qw(reader manager);
	is($node->safe_psql('postgres', 'SELECT total - free FROM stream_engine.state_memory()'), '0', 'no shared memory is left');
	$node->stop('fast');
	wait_until($node, sub { !server_pids($node) }, 'the stopped server has no process');
	pass('no process is left');
	return;
}

# ---------------------------------------------------------------------------
# Waiting
# ---------------------------------------------------------------------------

# wait_for(NODE, QUERY, OPTIONS): until the query's result is what is expected.
# Errors of the query count as "not yet", so that it may run during a restart.
#	expected => 't'   dbname => 'postgres'
sub wait_for
{
	my ($node, $query, %options) = @_;

	my $holds;
	until (defined $holds)
	{
		$holds = _unbroken(sub {
			$node->poll_query_until($options{dbname} // 'postgres', $query, $options{expected} // 't') ? 1 : 0;
		});
	}
	return if $holds;
	report_state($node, $options{dbname});
	croak "waited in vain for: $query";
}

# wait_until(NODE, CONDITION, WHAT): until a function returns true.
sub wait_until
{
	my ($node, $condition, $what) = @_;

	return if _poll($condition);
	report_state($node);
	croak "waited in vain until $what";
}

# log_position(NODE): where the server's log ends.
sub log_position
{
	my ($node) = @_;
	return -s $node->logfile // 0;
}

# log_since(NODE, POSITION): the log from there.
sub log_since
{
	my ($node, $position) = @_;
	return slurp_file($node->logfile, $position);
}

# wait_for_log(NODE, REGEXP, POSITION): until a part of the log after the
# position matches.
sub wait_for_log
{
	my ($node, $regexp, $position) = @_;

	return if _poll(sub { log_since($node, $position // 0) =~ $regexp });
	report_state($node);
	croak "waited in vain for $regexp in the server's log";
}

# try_sql(NODE, SQL): psql's status and output; the server may be going down or coming up,
# which is a status other than 0.
sub try_sql
{
	my ($node, $sql) = @_;
	my $result = _unbroken(sub { [ $node->psql('postgres', $sql) ] }) // [ 2, '', '' ];

	return wantarray ? @$result : $result->[0];
}

# A psql that ends before it has read its input breaks the pipe, which IPC::Run takes for
# a failure of ours: undef then.
sub _unbroken
{
	my ($code) = @_;
	my $result = eval { $code->() };

	croak $@ if $@ && $@ !~ /Broken pipe/;
	return $result;
}

# report_state(NODE [, DATABASE]): what a reader of a failed test wants to know.
sub report_state
{
	my ($node, $dbname) = @_;
	my @queries = (
		q(SELECT pid, backend_type, datname, state, wait_event_type, wait_event, left(query, 100)
		  FROM pg_stat_activity ORDER BY backend_type, pid));

	# Views of the engine, where there are any.
	my ($status, $views) = $node->psql(
		$dbname // 'postgres', q(
		SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'stream_engine' AND c.relkind = 'v'
		AND c.relname IN ('streams', 'queries', 'stat_partitions', 'stat_workers')));
	push @queries, map { "TABLE $_" } split /\n/, $views
	  if $status == 0 && $views;
	foreach my $query (@queries)
	{
		my ($rc, $out, $err) = $node->psql($dbname // 'postgres',
			$query, extra_params => [ '-x', '-P', 'format=aligned' ]);
		diag("$query\n$out$err");
	}
	my @log = split /\n/, slurp_file($node->logfile);
	splice(@log, 0, @log - 40) if @log > 40;
	diag(join("\n", 'end of the server log:', @log));
	return;
}

# Polls until the condition holds; false when the time is over.
sub _poll
{
	my ($condition, $seconds) = @_;
	my $attempts =
	  20 * ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	while ($attempts-- > 0)
	{
		return 1 if $condition->();
		usleep(50_000);
	}
	return 0;
}

sub _describe
{
	my ($pid) = @_;
	my $line = eval { slurp_file("/proc/$pid/cmdline") } // '';
	$line =~ s/\0+/ /g;
	return "$pid ($line)";
}

# ---------------------------------------------------------------------------
# Kafka
# ---------------------------------------------------------------------------

# Where the test programs are built: SE_TOOLS, or test/tools.
sub tools_dir
{
	return $ENV{SE_TOOLS} // "$test_dir/tools";
}

# broker(OPTIONS): a real Kafka broker that answers; see StreamEngine::Broker.
sub broker
{
	my (%options) = @_;
	return StreamEngine::Broker->new(%options);
}

# mockd(ARGUMENTS): a mock cluster; see StreamEngine::Mockd.
sub mockd
{
	my (@arguments) = @_;
	return StreamEngine::Mockd->new(tools_dir() . '/mockd', @arguments);
}

# proxy(TARGET): test/tools/tcp_proxy.py, which is driven as the mock cluster is.
sub proxy
{
	my (@arguments) = @_;
	return StreamEngine::Mockd->new("$test_dir/tools/tcp_proxy.py", @arguments);
}

# Is this a run of the long forms (check.sh --long)?
sub long_run
{
	return $ENV{SE_LONG} ? 1 : 0;
}

1;
