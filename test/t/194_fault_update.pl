
# ALTER EXTENSION stream_engine UPDATE with open windows.  This test installs scripts for another version,
# whose tables, views and functions differ.  While extension and library are of different versions
# nothing runs, and why() says so; results and open windows can be read.  The update to the
# library's version is made at any moment, workers go on by themselves, and no window loses anything.  One
# that fails leaves all as it was.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Job;
use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 10ms
stream_engine.retry_interval = 20ms
));
my ($installed) = $node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'stream_engine'");
my $dir = $node->config_data('--sharedir') . '/extension';
plan(skip_all => 'the folder of extensions is not ours') if !-w $dir;

# Of a server whose tree others use, too: the versions are named after this process.
my %scripts;
sub script
{
	my ($from, $to, $sql) = @_;
	my $path = "$dir/stream_engine--$from--$to.sql";

	$scripts{$path} = 1;
	append_to_file($path, "\\echo Use \"ALTER EXTENSION\" to load this file. \\quit\n$sql");
	return;
}
END { unlink keys %scripts; }

my ($older, $broken) = ("0.9.t$$", "0.9.x$$");
my $changes = q(
	ALTER TABLE stream_engine.query ADD COLUMN remark text NOT NULL DEFAULT 'none';
	ALTER TABLE stream_engine.reader_partition ADD COLUMN remark integer;
	ALTER TABLE stream_engine.state_log ADD COLUMN remark integer;
	CREATE INDEX reader_remark_idx ON stream_engine.reader (committed_at);
	CREATE VIEW stream_engine.remarks AS SELECT id, remark FROM stream_engine.query;
	CREATE FUNCTION stream_engine.remark(name regclass) RETURNS text LANGUAGE sql STABLE
		RETURN (SELECT q.remark FROM stream_engine.query q WHERE q.result = name);
	COMMENT ON FUNCTION stream_engine.remark(regclass) IS 'of the other version';
);
script($installed, $older, $changes);
script($older, $installed, q(
	-- what is new in the version of the library comes; what was only in the other one goes
	DROP FUNCTION stream_engine.remark(regclass);
	DROP VIEW stream_engine.remarks;
	DROP INDEX stream_engine.reader_remark_idx;
	ALTER TABLE stream_engine.query DROP COLUMN remark;
	ALTER TABLE stream_engine.reader_partition DROP COLUMN remark;
	ALTER TABLE stream_engine.state_log DROP COLUMN remark;
));
script($installed, $broken, "$changes SELECT 1 / 0;");

create_job($node);
feed_job($node, seconds => 25);
is_exact($node, 'before');

# While records come.  A worker may have to give way: the session's patience is the server's.
sub update_to
{
	my ($version) = @_;
	my ($rc, $out, $err);

	feed_job($node, seconds => 15, per_second => 1000) for 1 .. 2;
	wait_until($node,
		sub {
			($rc, $out, $err) = $node->psql('postgres', "ALTER EXTENSION stream_engine UPDATE TO '$version'");
			# A deadlock with a worker is told by one side of the two.
			return $rc == 0 || $err !~ /deadlock detected/;
		},
		'the extension is updated');
	return ($rc, $err);
}

sub version
{
	return $node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'stream_engine'");
}

my ($rc, $err) = update_to($broken);
like($err, qr/division by zero/, 'an update that fails');
is(version(), $installed, 'leaves the version');
feed_job($node);
is_exact($node, 'after a failed update');

for my $round (1 .. 3)
{
	# As a server whose library was replaced, and started again.
	($rc, $err) = update_to($older);
	is($rc, 0, "round $round: another version") or diag($err);
	is(version(), $older, "round $round: its name");
	wait_for_processes($node, 0, '%reader%');
	wait_for($node, "SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE message LIKE '%different versions%ALTER EXTENSION stream_engine UPDATE%'");
	my $shown = $node->safe_psql('postgres', 'SELECT sum(n) FROM tumbling_live');
	feed_job($node);
	$node->restart if $round == 2;
	kill9_server($node) if $round == 3;
	is($node->safe_psql('postgres', 'SELECT sum(n) FROM tumbling_live'), $shown, "round $round: results and open windows are there, and stay");
	is(engine_processes($node, '%reader%'), 0, "round $round: nothing runs");

	$node->safe_psql('postgres', 'ALTER EXTENSION stream_engine UPDATE');
	is(version(), $installed, "round $round: updated");
	feed_job($node);
	is_exact($node, "round $round: updated");
	$node->safe_psql('postgres', q(
		SELECT stream_engine.create_query('more', 'SELECT count(*) AS n FROM s GROUP BY tumble(ts, ''10 seconds'')');
		SELECT stream_engine.pause('more'); SELECT stream_engine.resume('more')));
	wait_for_all($node, 'more');
	is_verified($node, 'more');
	$node->safe_psql('postgres', "SELECT stream_engine.drop_query('more')");
}

unlike(log_since($node, 0) =~ s/received fast shutdown.*?ready to accept//gsr, qr/PANIC|TRAP|signal (?:6|7|8|11):/, 'the log has no crash');
$node->safe_psql('postgres', 'DROP EXTENSION stream_engine CASCADE');
wait_for_processes($node, 0, '%reader%');
$node->stop('fast');
done_testing();
