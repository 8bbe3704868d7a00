
# The server runs out of something: the disk of the tables, that of the WAL, the memory of a
# worker, that of all processes.  What was not committed is thrown away, workers try again for as
# long as it takes and say why, and when there is room again nothing is lost and nothing doubled.
# The disks are small file systems in a mount namespace of this test's own.

use strict;
use warnings FATAL => 'all';

use File::Temp;

# Once more in such a namespace; before PostgreSQL's modules take the output over.
BEGIN
{
	if (!defined $ENV{SE_SMALL_DISKS})
	{
		my $dir       = File::Temp::tempdir();
		my @namespace = ('unshare', '--map-current-user', '--mount', '--keep-caps', 'sh', '-c');
		my $mounts    = "mount -t tmpfs -o size=64m tmpfs $dir/tables && mount -t tmpfs -o size=24m tmpfs $dir/wal";

		mkdir "$dir/$_" or die "cannot make $dir/$_: $!" foreach qw(tables wal);
		my $allowed = system(@namespace, "($mounts) 2>/dev/null") == 0;
		$ENV{SE_SMALL_DISKS} = $allowed ? $dir : '';
		exec(@namespace, "$mounts && exec setpriv --ambient-caps=-all --inh-caps=-all \"\$@\"", 'sh', $^X, $0)
		  if $allowed;
	}
}

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Job;
use StreamEngine::Orders;
use StreamEngine::Test;

my $disks = $ENV{SE_SMALL_DISKS};

# ballast(DISK): fills a disk to its last byte; unload(DISK) makes it empty again.
sub ballast
{
	my ($disk) = @_;
	my $bytes = 'x' x 4096;

	open my $file, '>>', "$disks/$disk/ballast" or die "cannot open: $!";
	1 while syswrite($file, $bytes);
	close $file;
	return;
}

sub unload
{
	my ($disk) = @_;
	unlink "$disks/$disk/ballast" or die "cannot unlink: $!";
	return;
}

my $conf = q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
stream_engine.max_failures = 3
autovacuum = off
);

# ---------------------------------------------------------------------------
# No room for tables
# ---------------------------------------------------------------------------

SKIP:
{
	skip 'no file system may be mounted', 1 if !$disks;

	my $node = new_node('tables', extension => 0, conf => $conf);
	mkdir "$disks/tables/space" or die "mkdir: $!";
	$node->safe_psql('template1', "CREATE TABLESPACE small LOCATION '$disks/tables/space'");
	$node->safe_psql('template1', 'ALTER DATABASE postgres SET TABLESPACE small');
	$node->safe_psql('postgres', 'CREATE EXTENSION stream_engine');
	# All but the topic is on the small disk: state, offsets, results, the ledger.
	create_job($node, log => 'TABLESPACE pg_default');
	feed_job($node, seconds => 20);
	is_exact($node, 'room for tables');

	for my $round (1 .. 2)
	{
		my $position = log_position($node);
		ballast('tables');
		wait_until($node,
			sub {
				feed_job($node, seconds => 20, keys => 900);
				return log_since($node, $position) =~ /stream_engine.*ERROR:  could not extend file .*No space left on device/;
			},
			'the disk is full');
		# Again and again: no disk stays full, so this stops no query.
		wait_for_log($node, qr/(?:ERROR:  could not extend file .*?){3}/s, $position);
		wait_for($node, "SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE message LIKE '%No space left on device%'");
		is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM stream_engine.queries"),
			'running', "round $round: a full disk stops no query");
		# not while it tries again
		wait_for($node, "SELECT detail LIKE '%No space left on device%' FROM stream_engine.why('tumbling') LIMIT 1");
		pass("round $round: why() says it");
		kill9_server($node) if $round == 2;
		unload('tables');
		feed_job($node, seconds => 20);
		is_exact($node, "round $round: room for tables again");
	}
	unlike(log_since($node, 0), qr/PANIC|TRAP|was terminated by signal/, 'tables: the log has no crash');
	$node->stop('fast');
}

# ---------------------------------------------------------------------------
# No room for WAL
# ---------------------------------------------------------------------------

SKIP:
{
	skip 'no file system may be mounted', 1 if !$disks;

	my $node = new_node('wal', init => [ '--wal-segsize=1', "--waldir=$disks/wal/wal" ],
		conf => "$conf\nmin_wal_size = 2MB\nmax_wal_size = 6MB\nwal_recycle = off\n");
	create_job($node);
	feed_job($node, seconds => 20);
	is_exact($node, 'room for WAL');

	my $position = log_position($node);
	my $down     = qr/database system is shut down|startup process .* (?:exited|was terminated)/;
	ballast('wal');
	# The server panics when it cannot write WAL, and cannot recover without room for it.
	wait_until($node,
		sub {
			feed_job($node, seconds => 20, keys => 900);
			return log_since($node, $position) =~ /PANIC:  could not write to file .*No space left on device/;
		},
		'the disk of the WAL is full');
	$node->stop('immediate', fail_ok => 1);
	unload('wal');
	if (server_pids($node)) { kill9_server($node) }
	else { $node->_update_pid(0); $node->start }
	feed_job($node, seconds => 20);
	is_exact($node, 'room for WAL again');
	$node->stop('fast');
}

# ---------------------------------------------------------------------------
# No memory
# ---------------------------------------------------------------------------

SKIP:
{
	skip 'no prlimit', 1 if system('prlimit --version >/dev/null 2>&1') != 0;

	my $node = new_node('memory', conf => $conf);
	create_job($node);
	feed_job($node, seconds => 20);
	is_exact($node, 'memory');

	my $reader = "SELECT pid FROM stream_engine.stat_workers WHERE kind = 'reader' AND pid IS NOT NULL LIMIT 1";
	my $limit  = sub {
		my ($pid, $kb) = @_;
		my $bytes = $kb eq 'unlimited' ? $kb : $kb * 1024;
		return system('prlimit', "--pid=$pid", "--as=$bytes:") == 0;
	};
	my $size = sub {
		my ($pid) = @_;
		return (slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+) kB/m)[0];
	};

	# One process that gets no more than it has: the next one has what it wants.
	my $position = log_position($node);
	my $pid = $node->safe_psql('postgres', $reader);
	my $little = $size->($pid);
	ok($limit->($pid, $little), 'a worker gets no more memory');
	feed_job($node, seconds => 20, per_second => 1500, keys => 30_000);
	wait_for_log($node, qr/stream_engine.*ERROR:  out of memory/, $position);
	feed_job($node, seconds => 20);
	is_exact($node, 'a worker was out of memory');

	# All that the server starts have a little less than the work needs.
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	$position = log_position($node);
	$pid = $node->safe_psql('postgres', $reader);
	ok($limit->($postmaster, $little), 'all processes get little memory');
	kill(15, $pid);
	feed_job($node, seconds => 20, per_second => 1500, keys => 30_000);
	# Again and again.
	wait_for_log($node, qr/(?:stream_engine[^\n]*ERROR:  out of memory.*?){3}/s, $position);
	is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM stream_engine.queries"),
		'running', 'a lack of memory stops no query');
	$limit->($postmaster, 'unlimited');
	feed_job($node, seconds => 20);
	is_exact($node, 'all were out of memory');
	unlike(log_since($node, 0), qr/PANIC|TRAP|was terminated by signal/, 'memory: the log has no crash');
	$node->stop('fast');
}

done_testing();
