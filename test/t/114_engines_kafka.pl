
# The window tests of other engines (sql/engines_*.sql) give on a real broker what they give with a table as the topic.

use strict;
use warnings FATAL => 'all';

use File::Basename;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;
use StreamEngine::Broker;

my $source = "$FindBin::RealBin/../..";
my $tool = "$source/test/broker/kafka.sh";
my $broker = StreamEngine::Broker->new;
# each case has a reader of its own
my $node = new_node('engines', conf => "max_worker_processes = 128");

local $ENV{PG_ABS_SRCDIR} = $source;
# the settings of pg_regress, which the expected output knows
local $ENV{PGTZ} = 'PST8PDT';
local $ENV{PGDATESTYLE} = 'Postgres, MDY';
local $ENV{PGOPTIONS} = '-c intervalstyle=postgres_verbose';

foreach my $file (sort glob("$source/sql/engines_*.sql"))
{
	my $name = basename($file, '.sql');
	my $prefix = $broker->topic_name($name) . '.';
	my $output = '';

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION stream_engine');
	IPC::Run::run([ 'psql', '-X', '-a', '-q', '-d', $node->connstr($name), '-v', 'HIDE_TABLEAM=on', '-v', 'HIDE_TOAST_COMPRESSION=on',
			'-v', 'bootstrap=' . $broker->bootstrap, '-v', "kafka_tool=$tool", '-v', "prefix=$prefix" ],
		'<', $file, '>', \$output, '2>&1');
	my @differing = differences(slurp_file("$source/expected/$name.out"), $output);
	is(scalar(@differing), 0, "$name: the same as with a table") or diag(join("\n", @differing[ 0 .. ($#differing < 20 ? $#differing : 20) ]));
	$node->safe_psql('postgres', "DROP DATABASE $name WITH (FORCE)");
}

$node->stop('fast');
done_testing();

# Lines of the two that are not the same.
sub differences
{
	my @expected = split /\n/, $_[0];
	my @found = split /\n/, $_[1];
	my @differing;

	foreach my $i (0 .. ($#expected > $#found ? $#expected : $#found))
	{
		my ($e, $f) = ($expected[$i] // '(end)', $found[$i] // '(end)');

		push @differing, "expected $e", "found    $f" if $e ne $f;
	}
	return @differing;
}
