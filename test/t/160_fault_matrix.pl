
# Random workloads with queries of all kinds run while processes fail at each place of
# the commit and in each way: an error, no memory, a full disk, an exit, a kill -9 of the
# worker, a panic, a kill -9 of the postmaster.  Whatever happens, results, late records,
# dead letters and counters are those of the simulator, no process is left behind and
# nothing hangs.  SE_SEED repeats the choices; the moments are the machine's.

use strict;
use warnings FATAL => 'all';

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StreamEngine::Test;

my $node = new_node('main', extension => 0, conf => q(
max_connections = 200
max_worker_processes = 200
autovacuum = off
stream_engine.max_workers = 150
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
stream_engine.max_failures = 1000
));
if ($node->psql('postgres', 'SHOW stream_engine.failpoints') != 0)
{
	$node->stop('immediate');
	plan(skip_all => 'built without failpoints');
}

my $seed = $ENV{SE_SEED} || int(time * 1000) % 1_000_000_007;
srand($seed);
note("SE_SEED=$seed");

my @points = qw(
  commit.before_fence commit.after_fence commit.after_side emit.begin emit.end
  commit.before_chunks commit.after_chunks commit.after_offsets commit.before_ledger
  commit.before_commit commit.after_commit
);
my @actions = qw(error oom full exit kill panic postmaster);
my @kinds = qw(tumble hop cumulate session global lateness changes);
my $wanted = long_run() ? 520 : 66;
my $side = 3;

# ---------------------------------------------------------------------------
# Workloads, so many at a time
# ---------------------------------------------------------------------------

my $oracle = "$FindBin::RealBin/../oracle";
$node->safe_psql('postgres', 'CREATE DATABASE oracle_template');
$node->psql('oracle_template', slurp_file("$oracle/template.sql"), on_error_die => 1);

my @running;
my %outcome = (ok => 0, failed => 0);
my $next = $seed % 100_000;

sub start_workload
{
	my $kind = $kinds[ $next % @kinds ];
	my $self = { name => "$kind:$next", out => '', began => time };
	my @command = ('python3', "$oracle/workload.py", '--kills', "$kind:$next");
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
	$next++;
	$self->{run} = IPC::Run::start(\@command, '<', \undef, '>&', \$self->{out});
	push @running, $self;
	return;
}

# Takes note of workloads that have ended, and starts others instead.
sub tend
{
	my ($more) = @_;
	my @still;

	foreach my $workload (@running)
	{
		# It may have ended since the last look.
		eval { $workload->{run}->pump_nb; 1 } or $@ =~ /^process ended prematurely/ or die $@;
		if ($workload->{run}->pumpable)
		{
			push @still, $workload;
			next;
		}
		my $good = $workload->{run}->finish && $workload->{out} =~ /^ok /m;
		$outcome{ $good ? 'ok' : 'failed' }++;
		diag("workload $workload->{name}:\n$workload->{out}") unless $good;
	}
	@running = @still;
	while ($more && @running < $side) { start_workload(); }
	return;
}

# ---------------------------------------------------------------------------
# The matrix
# ---------------------------------------------------------------------------

sub set_failpoints
{
	my ($value) = @_;
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '$value'");
	$node->reload if $value || answers();
	return;
}

sub answers
{
	return try_sql($node, 'SELECT 1') == 0;
}

# Until the condition holds; false when that takes too long.
sub within
{
	my ($seconds, $condition) = @_;
	my $end = time + $seconds;

	until ($condition->())
	{
		return 0 if time > $end;
		tend(1);
		select(undef, undef, undef, 0.05);
	}
	return 1;
}

my %hits;
my $hits = 0;
my $missed = 0;
my @todo;

tend(1);
while ($hits < $wanted)
{
	unless (@todo)
	{
		foreach my $point (@points)
		{
			push @todo, map { [ $point, $_ ] } @actions;
		}
		# in another order each time
		@todo = sort { $a->[2] <=> $b->[2] } map { [ @$_, rand ] } @todo;
	}
	my ($point, $action) = @{ shift @todo };
	my $position = log_position($node);
	my $reached = qr/[fF]ailpoint "\Q$point\E" (?:was )?reached/;

	set_failpoints("$point=$action\@" . (1 + int(rand(4))));
	if (within(10, sub { log_since($node, $position) =~ $reached }))
	{
		$hits++;
		$hits{$action}++;
		$hits{$point}++;
	}
	else
	{
		$missed++;
		die "no failpoint is reached any more\n" if $missed > 20 + $hits / 2;
	}
	if ($action eq 'postmaster' && log_since($node, $position) =~ $reached)
	{
		$node->append_conf('postgresql.conf', "stream_engine.failpoints = ''");
		kill9_server($node);
	}
	else
	{
		$node->append_conf('postgresql.conf', "stream_engine.failpoints = ''");
		$node->reload;
	}
	within($PostgreSQL::Test::Utils::timeout_default, \&answers) or die "the server does not come back\n";
}
my $end = time + $PostgreSQL::Test::Utils::timeout_default;
while (@running && time < $end)
{
	tend(0);
	select(undef, undef, undef, 0.05);
}

note('kills: ' . (($hits{kill} // 0) + ($hits{postmaster} // 0)));
note("$hits failures, $missed points not reached: " . join(', ', map { "$_ $hits{$_}" } sort keys %hits));
is(scalar(@running), 0, 'every workload came to its end');
$_->{run}->kill_kill foreach @running;
is($outcome{failed}, 0, "$outcome{ok} workloads are as simulated");
cmp_ok($outcome{ok}, '>=', 3, 'there were some');
is(join(' ', grep { !$hits{$_} } @points, @actions), '', 'each place and each way was met');
wait_for_processes($node, 0, '%reader%');
pass('no worker is left behind');
unlike(log_since($node, 0), qr/TRAP|signal (?:6|7|8|11):.*?(?!failpoint)\z/, 'no assertion failed');

$node->stop('fast');
done_testing();
