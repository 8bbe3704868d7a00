
# Rule: the state log stays within 4 x the live state + 64 MB though a session holds a
# snapshot all the time, and others' commits leave no instant without a lock on it; that
# session gets "snapshot too old" from _live and never a wrong answer, other sessions get
# all; results are those of plain SQL, also when the server is killed while chunks move and
# segments are emptied.

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Segments;
use StreamEngine::Test;

my $batches = long_run() ? 1500 : 240;
my $node    = new_node('main', conf => q(
stream_engine.commit_interval = 10ms
stream_engine.state_log_rate = '1GB'
max_wal_size = 2GB
));
my $mb = 1024 * 1024;

create_segments_job($node);
$node->safe_psql('postgres', q(
	CREATE FUNCTION log_size() RETURNS bigint LANGUAGE sql AS $$
		SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
		WHERE inhparent = 'stream_engine.state_log'::regclass $$;
	CREATE FUNCTION live_size() RETURNS bigint LANGUAGE sql AS $$
		SELECT COALESCE(sum(octet_length(payload)), 0)::bigint FROM stream_engine.state_log $$;
	CREATE FUNCTION shown() RETURNS text LANGUAGE sql AS $$
		SELECT format('%s %s %s', (SELECT sum(n) FROM short_live), (SELECT sum(n) FROM long_live), (SELECT sum(n) FROM sessions_live)) $$;
));

# It has looked at everything once; that must not keep locks on the log.
my $old = $node->background_psql('postgres', on_error_stop => 0);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$old->query_safe("SELECT count(*) FROM stream_engine.$_")
  foreach qw(streams queries stat_queries stat_partitions stat_state stat_workers progress late_events dead_letters metrics());
$old->query_safe("SELECT count(*) FROM stream_engine.why('$_')") foreach qw(short long sessions);
$old->query_safe('SELECT shown()');

# As with many readers: at no instant is there nobody who may append.
my $script = $node->basedir . '/commits.sql';
append_to_file($script, "BEGIN;\nLOCK TABLE stream_engine.state_log IN ROW EXCLUSIVE MODE;\nSELECT pg_sleep(0.1);\nCOMMIT;\n");
my ($commits_out, $commits_err) = ('', '');
my $commits = IPC::Run::start([ 'pgbench', '-n', '-c', '8', '-T', '3600', '-f', $script, $node->connstr('postgres') ],
	'<', \undef, '>', \$commits_out, '2>', \$commits_err);
wait_for($node, q(SELECT count(*) >= 8 FROM pg_locks WHERE relation = 'stream_engine.state_log_0'::regclass AND mode = 'RowExclusiveLock' AND granted));

my ($largest, $most_live, $over) = (0, 0, 0);
my $step = $batches / 24;
for my $i (0 .. 23)
{
	$node->safe_psql('postgres', sprintf('CALL feed(%d, %d)', $i * $step, ($i + 1) * $step - 1),
		timeout => 300);
	my ($size, $live) = split /\|/, $node->safe_psql('postgres', 'SELECT log_size(), live_size()');
	$largest   = $size if $size > $largest;
	$most_live = $live if $live > $most_live;
	next if $size <= 4 * $live + 64 * $mb;
	$over++;
	note sprintf('%.0f MB with %.0f MB alive', $size / $mb, $live / $mb);
}
note sprintf('the log had up to %.0f MB, live state up to %.0f MB', $largest / $mb, $most_live / $mb);
is($over, 0, 'the log stays within its bound');
my $emptied = $node->safe_psql('postgres', 'SELECT sum(generation) - 4 FROM stream_engine.state_segment');
cmp_ok($emptied, '>', 0, "segments have been emptied ($emptied times)");
ok($commits->pumpable, 'others committed all the time') or diag($commits_err);
$commits->kill_kill;

my $answer = $old->query('SELECT shown()');
like($old->{stderr}, qr/snapshot too old/, 'an old snapshot gets an error');
$old->{stderr} = '';
$old->query_safe('ROLLBACK');
my $last = $batches - 1;
my $seen = $batches * 2000;
$node->safe_psql('postgres', q(CALL stream_engine.wait('events', '2 minutes')));
is($node->safe_psql('postgres', 'SELECT shown()'), "$seen $seen $seen", 'a new one sees all');

# killed while chunks move, and before a segment is emptied
for my $point ('segment.before_move_commit', 'segment.before_truncate')
{
	$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$old->query_safe('SELECT count(*) FROM stream_engine.streams');
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = '$point=kill\@1'");
	$node->reload;
	my $offset = -s $node->logfile;
	my $ended  = 0;
	for my $i (1 .. 20)
	{
		my $from = $last + 1;
		$last += 10;
		my $status = $node->psql('postgres', "CALL feed($from, $last)", timeout => 300);
		if ($status != 0)
		{
			$ended = 1;
			last;
		}
	}
	ok($ended, "$point: killed");
	$old = undef;
	$node->stop('immediate');
	$node->append_conf('postgresql.conf', "stream_engine.failpoints = ''");
	$node->start;
	my $next = $node->safe_psql('postgres', 'SELECT max("offset") / 2000 FROM log');
	$last = $next;
	$seen = ($last + 1) * 2000;
	$node->safe_psql('postgres', q(CALL stream_engine.wait('events', '2 minutes')));
	is($node->safe_psql('postgres', 'SELECT shown()'), "$seen $seen $seen", "$point: all is there");
	$old = $node->background_psql('postgres', on_error_stop => 0);
}
$old->quit;

is($node->safe_psql('postgres', q(SELECT count(*) FROM stream_engine.verify('short'))), 0, 'verified');
is($node->safe_psql('postgres', q(
	SELECT count(*) FROM (SELECT k, n FROM long_live EXCEPT ALL
		SELECT left(k, 2), count(*) FROM events GROUP BY 1) d)), 0, 'the long window is that of plain SQL');
$node->stop;
done_testing();
