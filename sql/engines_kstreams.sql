-- Rule: the window tests of Kafka Streams give here what they give there, with these differences on
-- purpose, which "ours" has.  Its hopping windows never begin before 1970, ours do.  Its sessions end
-- with their last record, ours the gap later; they are written our way.  It skips records without a
-- key, for us NULL is a key.  And it closes a session one moment later than we (and Flink) do, while
-- its update mode lets records join sessions that have closed.  Its sliding windows, one around every
-- record, do not exist here.  A grace period is our watermark_delay.
\getenv src PG_ABS_SRCDIR
\set engines :src '/sql/engines.inc'
\set ECHO none
\i :engines
\set ECHO all

-- KStreamWindowAggregateTest
INSERT INTO engine_case (id, source, win, agg, delay, shows, steps, theirs, ours) VALUES
	(1, 'testAggBasic, update', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '100 ms', 'all',
		'{A:0=1,B:1=2,C:2=3,D:3=4,A:4=1,A:5=1,B:6=2,D:7=4,B:8=2,C:9=3,A:10=1,B:11=2,D:12=4,B:13=2,C:14=3,B:3=1,B:2=2,B:9=3}',
		'{"A[0,10)~3","A[5,15)~2","A[10,20)~1","B[0,10)~12","B[5,15)~11","B[10,20)~4","C[0,10)~6","C[5,15)~6","C[10,20)~3","D[0,10)~8","D[5,15)~8","D[10,20)~4"}',
		'{"A[-5,5)~2","B[-5,5)~5","C[-5,5)~3","D[-5,5)~4","A[0,10)~3","A[5,15)~2","A[10,20)~1","B[0,10)~12","B[5,15)~11","B[10,20)~4","C[0,10)~6","C[5,15)~6","C[10,20)~3","D[0,10)~8","D[5,15)~8","D[10,20)~4"}'),
	(2, 'testAggBasic, final', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '100 ms', 'closed',
		'{A:0=1,B:1=2,C:2=3,D:3=4,A:4=1,A:5=1,B:6=2,D:7=4,B:8=2,C:9=3,A:10=1,B:11=2,D:12=4,B:13=2,C:14=3,B:3=1,B:2=2,B:9=3}', '{}', NULL),
	(3, 'testJoin, the left side, final', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '5 ms', 'closed',
		'{A:0=1,B:1=2,C:2=3,D:3=4,A:9=1,A:15=1,A:10=1,B:11=2,D:12=4,B:13=2,C:14=3,A:20=1}',
		'{"A[0,10)=2","B[0,10)=2","C[0,10)=3","D[0,10)=4","A[5,15)=2","B[5,15)=4","C[5,15)=3","D[5,15)=4"}',
		'{"A[-5,5)=1","B[-5,5)=2","C[-5,5)=3","D[-5,5)=4","A[0,10)=2","B[0,10)=2","C[0,10)=3","D[0,10)=4","A[5,15)=2","B[5,15)=4","C[5,15)=3","D[5,15)=4"}'),
	(4, 'shouldLogAndMeterWhenSkippingNullKey', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '0', 'all', '{5=1}', '{}', '{"null[0,10)~1","null[5,15)~1"}'),
	(5, 'shouldLogAndMeterWhenSkippingExpiredWindow', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '90 ms', 'all',
		'{k:100=100,k:0=0,k:1=1,k:2=2,k:3=3,k:4=4,k:5=5,k:6=6,k:105=105,k:106=106}',
		'{k@0,k@1,k@2,k@3,k@4,"k[5,15)=11","k[95,105)~100","k[100,110)~311","k[105,115)~211"}', NULL),
	(6, 'shouldLogAndMeterWhenSkippingExpiredWindowByGrace', $$hop(ts, '10 ms', every => '10 ms')$$, 'sum(v)', '90 ms', 'all',
		'{k:200=100,k:100=0,k:101=1,k:102=2,k:103=3,k:104=4,k:105=5,k:6=6}', '{"k[200,210)~100",k@100,k@101,k@102,k@103,k@104,k@105,k@6}', NULL),
	(7, 'shouldNotEmitFinalIfNotProgressEnough', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '5 ms', 'all', '{A:0=1,B:5=2,C:15=3,D:15=4,E:19=5}',
		'{"A[0,10)=1","B[0,10)=2","B[5,15)~2","C[10,20)~3","C[15,25)~3","D[10,20)~4","D[15,25)~4","E[10,20)~5","E[15,25)~5"}',
		'{"A[-5,5)=1","A[0,10)=1","B[0,10)=2","B[5,15)~2","C[10,20)~3","C[15,25)~3","D[10,20)~4","D[15,25)~4","E[10,20)~5","E[15,25)~5"}'),
	(8, 'shouldEmitWithInterval0', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '5 ms', 'closed', '{A:0=1,A:5=1,B:10=2,C:15=3,D:20=4}',
		'{"A[0,10)=2","A[5,15)=1","B[5,15)=2"}', '{"A[-5,5)=1","A[0,10)=2","A[5,15)=1","B[5,15)=2"}'),
	-- TimeWindowedKStreamImplTest, TimeWindowedKStreamIntegrationTest
	(10, 'shouldReduceWindowed', $$tumble(ts, '500 ms')$$, $$count(*) || '/' || sum(v)$$, '0', 'all', '{1:10=1,1:15=2,1:500=3,2:550=10,2:500=20,2:1000=30}',
		'{"1[0,500)=2/3","1[500,1000)=1/3","2[500,1000)=2/30","2[1000,1500)~1/30"}', NULL),
	(11, 'shouldAggregateWindowedWithNoGrace', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '0', 'all', '{A:0=1,A:5=2,A:10=3,B:6=4,B:11=5,B:15=6,C:25=7}',
		'{"A[0,10)=3","A[5,15)=5","B[5,15)=9","A[10,20)=3","B[10,20)=11","B[15,25)=6","C[20,30)~7","C[25,35)~7"}',
		'{"A[-5,5)=1","A[0,10)=3","A[5,15)=5","B[5,15)=9","A[10,20)=3","B[10,20)=11","B[15,25)=6","C[20,30)~7","C[25,35)~7"}'),
	(12, 'shouldAggregateWindowedWithGrace', $$hop(ts, '10 ms', every => '5 ms')$$, 'sum(v)', '5 ms', 'closed', '{A:0=1,A:5=2,A:10=3,B:6=4,B:11=5,B:15=6,C:25=7}',
		'{"A[0,10)=3","B[0,10)=4","A[5,15)=5","B[5,15)=9","A[10,20)=3","B[10,20)=11"}',
		'{"A[-5,5)=1","A[0,10)=3","B[0,10)=4","A[5,15)=5","B[5,15)=9","A[10,20)=3","B[10,20)=11"}'),
	-- SuppressScenarioTest
	(20, 'shouldSupportFinalResultsForTimeWindows', $$tumble(ts, '2 ms')$$, 'count(*)', '1 ms', 'all', '{k1:0,k1:1,k1:2,k1:1,k1:0,k1:5,k1:0}',
		'{"k1[0,2)=4","k1[2,4)=1","k1[4,6)~1",k1@0}', NULL),
	(21, 'shouldSupportFinalResultsForTimeWindowsWithLargeJump', $$tumble(ts, '2 ms')$$, 'count(*)', '2 ms', 'all', '{k1:0,k1:1,k1:2,k1:0,k1:3,k1:0,k1:4,k1:0,k1:30}',
		'{"k1[0,2)=4","k1[2,4)=2","k1[4,6)=1","k1[30,32)~1",k1@0}', NULL),
	(22, 'shouldSupportFinalResultsForSessionWindows', $$session(ts, gap => '5 ms')$$, 'count(*)', '0', 'all', '{k1:0,k1:5,k1:1,k2:11,k1:5,k1:30}',
		'{"k1[0,10)=3","k2[11,16)=1","k1[30,35)~1",k1@5}', NULL),
	-- KStreamSessionWindowAggregateProcessorTest, SessionWindowedKStreamImplTest
	(30, 'shouldHaveMultipleSessionsForSameIdWhenTimestampApartBySessionGap, final', $$session(ts, gap => '5 min')$$, 'count(*)', '0', 'closed',
		'{m:0,m:300001,m:300001,m:600002,m:600002,m:600002}', '{"m[0,300000)=1","m[300001,600001)=2"}', NULL),
	(31, 'shouldHandleMultipleSessionsAndMerging, final', $$session(ts, gap => '5 min')$$, 'count(*)', '0', 'closed',
		'{a:0,b:0,c:0,d:0,d:150000,a:300001,b:300001,a:450001,c:450001}', '{"a[0,300000)=1","b[0,300000)=1","c[0,300000)=1","d[0,450000)=2"}', NULL),
	(32, 'shouldMergeSessions, without grace', $$session(ts, gap => '5 min')$$, 'count(*)', '0', 'all', '{m:0,m:300001,m:150000}', '{"m[0,600001)~3"}',
		'{"m[0,300000)=1","m[150000,600001)~2"}'),
	(33, 'shouldRemoveMergedSessionsFromStateStore', $$session(ts, gap => '5 min')$$, 'count(*)', '0', 'all', '{a:0,a:100}', '{"a[0,300100)~2"}', NULL),
	(34, 'shouldLogAndMeterWhenSkippingLateRecordWithZeroGrace', $$session(ts, gap => '10 ms')$$, 'count(*)', '0', 'all', '{dummy:0,OnTime1:0,dummy:11,Late1:0}',
		'{"OnTime1[0,10)=1","dummy[0,10)=1","dummy[11,21)~1",Late1@0}', NULL),
	(35, 'shouldLogAndMeterWhenSkippingLateRecordWithNonzeroGrace', $$session(ts, gap => '10 ms')$$, 'count(*)', '1 ms', 'all',
		'{dummy:0,OnTime1:0,dummy:11,OnTime2:0,dummy:12,Late1:0}', '{"OnTime1[0,10)=1","OnTime2[0,10)=1","dummy[0,10)=1","dummy[11,22)~2",Late1@0}',
		'{"OnTime1[0,10)=1","dummy[0,10)=1","dummy[11,22)~2",OnTime2@0,Late1@0}'),
	(36, 'shouldReduceWindowed, sessions', $$session(ts, gap => '500 ms')$$, 'sum(v)', '0', 'all', '{1:10=1,1:15=2,1:600=3,2:600=1,2:599=2}',
		'{"1[10,515)=3","1[600,1100)~3","2[599,1100)~3"}', NULL);
-- the update mode of the same: rows of open windows are in the result, and absorbed sessions are not
INSERT INTO engine_case (id, source, win, agg, delay, emit, shows, steps, theirs)
SELECT id + 50, source || ', update', win, agg, delay, 'changes', shows, steps, COALESCE(ours, theirs) FROM engine_case WHERE id IN (5, 11, 22, 31, 33, 36);

CALL make_cases();
CALL play_cases();
SELECT id, source, verdict, cardinality(got) AS rows, CASE WHEN verdict <> 'the same' THEN got END AS ours FROM verdict ORDER BY id;

-- what it counts as dropped: 0 to 6 for [0,10), of which 5 and 6 have another window; seven records
SELECT id, late, late_assignments FROM stream_engine.stat_queries, engine_case WHERE query = ('q' || id)::regclass AND id IN (5, 6, 21, 34, 35) ORDER BY 1;
SELECT count(*) FILTER (WHERE decoded <> counted + late) AS unaccounted, sum(decoded) AS decoded FROM stream_engine.stat_queries;

-- Those without a window (KTable counts; KStreamAggregationIntegrationTest): one row a key that changes
-- with each of its records.
INSERT INTO outbox (topic, value) SELECT 'table', json_build_object('ts', i * 1000, 'k', k, 'v', i)::text
FROM unnest('{A,B,C,D,E,A,B,C,D,E}'::text[]) WITH ORDINALITY AS u (k, i) ORDER BY i;
SELECT make_topic('table') AS tab \gset
CALL deliver();
SELECT stream_engine.create_stream('tab', server => 'engines_1', topic => :'tab', columns => 'ts timestamptz EPOCH ''us'', k text, v int', event_time => 'ts', staging_retention => '0');
SELECT stream_engine.create_query('tab_counts', 'SELECT k, count(*) AS n, sum(v) AS s, max(v) AS m FROM tab GROUP BY k', trigger_count => 1);
CALL stream_engine.wait('tab_counts', '1 minute');
SELECT k, n, s, m, is_final FROM tab_counts ORDER BY k;

\set ECHO none
\set ends :src '/sql/engines_end.inc'
\i :ends
