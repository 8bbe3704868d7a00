
# Random workloads give the results, late records and counters that a simulation
# of the rules of event time gives, also while processes are killed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = "$PostgreSQL::Test::Utils::tmp_check/oracle";
mkdir $dir or die "cannot make $dir: $!";

# A failure of the workloads is told in the output, which names kind and seed.
local $ENV{SE_WORK} = $dir;
open my $output, '-|', "bash '$FindBin::RealBin/../oracle/run.sh' 2>&1"
  or die "cannot run run.sh: $!";
my $last = '';
while (my $line = <$output>)
{
	chomp $line;
	note $line;
	# Behind it may come where the servers are kept.
	$last = $line if $line =~ /passed/ || $last !~ /passed/;
}
ok(close $output, 'all workloads agree with the simulation')
  or diag $last;
like($last, qr/^[1-9]\d* passed, 0 failed$/, 'workloads were run');

done_testing();
