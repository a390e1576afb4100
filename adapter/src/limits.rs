//! Every bound of the adapter, named, with its reason. Nothing else in the crate invents one.

use std::time::Duration;

/// Compressed body of one request. Prometheus' own receiver takes 32 MiB.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// Decompressed body of one request, judged by the declared length before anything is allocated.
pub const DECODED_BYTES_MAX: usize = 32 << 20;
/// Memory for a decompressed body that a thread keeps for the next one; a larger one is given back.
pub const DECODED_KEPT_BYTES_MAX: usize = 2 << 20;
/// Series in one write request. Prometheus sends 2,000 samples by default; vmagent 10,000.
pub const REQUEST_SERIES_MAX: usize = 100_000;
/// Samples in one write request.
pub const REQUEST_SAMPLES_MAX: usize = 300_000;
/// Labels in one write request, over all series.
pub const REQUEST_LABELS_MAX: usize = 400_000;
/// Symbols in one remote_write 2.0 request.
pub const REQUEST_SYMBOLS_MAX: usize = 400_000;
/// Bytes of all labels of one request after symbols are expanded: a 32 MiB body of references to
/// one long symbol would be terabytes.
pub const REQUEST_LABEL_BYTES_MAX: usize = 32 << 20;
/// Labels of one series. Prometheus' service discovery on Kubernetes reaches 40.
pub const SERIES_LABELS_MAX: usize = 64;
/// Bytes of a label's name.
pub const LABEL_NAME_BYTES_MAX: usize = 1024;
/// Bytes of a label's value: keeps an index row far below what a partition key may hold (64 KiB).
pub const LABEL_VALUE_BYTES_MAX: usize = 4096;
/// A sample may be this far ahead of our clock (Prometheus' own receiver: 10 minutes).
pub const AHEAD_MS_MAX: i64 = 600_000;
/// An hour is frozen this long before its retention ends (ledger.md, "Late data").
pub const FROZEN_BEFORE_EXPIRY_MS: i64 = 8 * 86_400_000;

/// Memory of all write requests from their bodies to the end of their commits, estimated; above
/// it 503 at once, and 400 for a request that alone needs more.
pub const WRITE_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// Requests that may wait for one commit.
pub const COMMIT_QUEUE_MAX: usize = 1024;
/// How long a commit may wait for requests that are still being decoded.
pub const COMMIT_WAIT_MAX: Duration = Duration::from_millis(10);
/// Samples after which a commit waits no longer.
pub const COMMIT_SAMPLES_MAX: usize = 500_000;
/// Commits to Cassandra under way at once; Local has one.
pub const COMMITS_IN_FLIGHT_MAX: usize = 8;
/// Samples in one head row: about 64 KiB, far below Cassandra's 16 MiB mutation.
pub const HEAD_ROW_SAMPLES_MAX: usize = 2048;
/// Entries of the cache of series that the index knows, 32 bytes each and the cache's own. One entry
/// holds all weeks of a series, so that a million series stay in it also when a week ends and the
/// next one's rows are written ahead.
pub const SEEN_SERIES_MAX: usize = 2_000_000;
/// Entries of the memory of series by their bytes on the wire, 64 bytes each; it is twice as large
/// as what is in it until it has so many. A million series fill half of it. A power of two.
pub const MEMO_SLOTS_MAX: usize = 1 << 21;
/// So long before a week ends the first index rows of the next week are written.
pub const INDEX_AHEAD_MS: i64 = 12 * 3_600_000;
/// And over so long they are spread: the rest is for series that are scraped seldom.
pub const INDEX_AHEAD_SPREAD_MS: i64 = INDEX_AHEAD_MS - 30 * 60_000;
/// A write must be durable within this time, below Prometheus' own timeout of 30 s.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(25);

/// Reads under way at once, as in Prometheus; more of them wait.
pub const READS_IN_FLIGHT_MAX: usize = 10;
/// Reads that may wait; above it 503 at once.
pub const READS_WAITING_MAX: usize = 64;
/// A read must have been collected within this time, below Prometheus' own timeout of 60 s.
pub const READ_DEADLINE: Duration = Duration::from_secs(50);
/// Usage reports under way at once: each reads days of samples, and dashboards must not wait.
pub const REPORTS_IN_FLIGHT_MAX: usize = 4;
/// Usage reports that may wait; above it 503 at once, or code 500 from the 2012 API.
pub const REPORTS_WAITING_MAX: usize = 256;
/// A usage report must be ready within this time, below the HTTP side's own bound of two minutes.
pub const REPORT_DEADLINE: Duration = Duration::from_secs(100);
/// Where several adapters write, an index that had no series of workers is not looked at again for
/// so long: below a window's grace and the pause before late samples are sealed.
pub const WORKERS_UNSEEN_TIME: Duration = Duration::from_secs(5);
/// Hours of a usage report that are read and counted at once.
pub const REPORT_SLICE_HOURS: i32 = 24;
/// Hours of a usage report that are planned at once: which of them stand in the ledger.
pub const REPORT_PLAN_HOURS: i32 = 32 * 24;
/// Periods of one usage report: a year of minutes, 10 MiB of an answer that is whole in memory.
pub const REPORT_BUCKETS_MAX: usize = 530_000;
/// Points of one `get_data`: over two months of minutes. Kanyun cut its answers at 20,000.
pub const POINTS_MAX: usize = 100_000;
/// Body of one billing request.
pub const BILLING_BODY_BYTES_MAX: usize = 64 << 10;
/// A minute counts as settled so long after its end: senders have delivered it unless they were
/// down. The sealer's grace is as long by default.
pub const SETTLED_AFTER_MS: i64 = 15 * 60_000;
/// A client must have taken its answer within this time.
pub const ANSWER_DEADLINE: Duration = Duration::from_mins(5);
/// Bytes of head rows in one read; a range of hours that holds more is read in parts.
pub const HEAD_READ_BYTES_MAX: usize = 32 << 20;
/// Bytes of head rows in one page of an hour that holds more than that.
pub const HEAD_PAGE_BYTES: usize = 8 << 20;
/// Bytes of chunks in one read; a range of windows that holds more is read in parts.
pub const CHUNK_READ_BYTES_MAX: usize = 32 << 20;
/// Values or beginnings of one label that an index lookup takes from an alternation; more are
/// filtered. A lookup costs some 20 us, reading a million postings half a second.
pub const LOOKUP_VALUES_MAX: usize = 10_000;
/// Rows after which a list of postings is left alone while another matcher's may be shorter: first
/// few, then more. The last bound of a list is [`QUERY_ROWS_MAX`].
pub const SHORT_POSTINGS_MAX: [usize; 2] = [1_000, 50_000];
/// Bytes of labels in one read of series.
pub const SERIES_READ_BYTES_MAX: usize = 32 << 20;
/// Groups whose series are read at once: on a disk one thread does it, so that a query of a few
/// hundred guests keeps several busy and none for long.
pub const SERIES_READ_GROUPS: usize = 32;
/// Series of a group that are read one by one; of more, all of the group are, side by side.
pub const SERIES_READ_SINGLY_MAX: usize = 8;
/// Series of postings whose labels are not read yet: those of several metrics are gathered, as they
/// are in the same groups.
pub const CANDIDATES_WAITING_MAX: usize = 100_000;
/// Body of one read request.
pub const READ_BODY_BYTES_MAX: usize = 1 << 20;
/// Queries in one read request; Prometheus sends one.
pub const READ_QUERIES_MAX: usize = 64;
/// Matchers in one query.
pub const QUERY_MATCHERS_MAX: usize = 64;
/// Rows of one read of one table.
pub const QUERY_ROWS_MAX: usize = 1_000_000;
/// Series that one query may return.
pub const QUERY_SERIES_MAX: usize = 1_000_000;
/// Series of a group that are held at once where only few of them may be wanted: up to 320 KiB each,
/// and more than a guest has.
pub const SERIES_PAGE_ROWS: usize = 100;
/// Samples that one query may return (Prometheus' own read limit is 50 million).
pub const QUERY_SAMPLES_MAX: usize = 50_000_000;
/// Bytes of labels that one query may hold, and of one sampled answer, which is whole in memory.
pub const QUERY_BYTES_MAX: usize = 128 << 20;
/// Samples that one part of a read should have: it is read, merged and encoded at once.
pub const READ_PART_SAMPLES: usize = 100_000;
/// What a series has in an hour where it is scraped every 15 s.
pub const READ_PART_HOUR_SAMPLES: usize = 240;
/// Samples that one part of a read may have (32 MiB); where it has more it is divided.
pub const READ_PART_SAMPLES_MAX: usize = 1_000_000;
/// Parts of all reads that are under way at once, for each that one query has: bounds the memory
/// of all.
pub const READ_PARTS_AT_ONCE: usize = 2;
/// MiB of encoded samples that one read keeps in memory until it is whole; the rest of them, and
/// then all, wait in a temporary file.
pub const READ_MEMORY_MIB_MAX: usize = 32;
/// MiB that a read has in any case: without it many small runs would be written.
pub const READ_MEMORY_MIB_MIN: usize = 4;
/// MiB that all reads together keep in memory beyond that.
pub const READS_MEMORY_MIB_MAX: usize = 96;
/// MiB of temporary files of all reads; a read that needs more is 503.
pub const READS_DISK_MIB_MAX: usize = 2_048;
/// Bytes of encoded samples in one streamed answer: 50 million samples of the worst kind.
pub const READ_BYTES_MAX: usize = 512 << 20;
/// Reads of one query that are under way at once, in a cluster and on one disk.
pub const CLUSTER_READS_AT_ONCE: usize = 32;
/// See [`CLUSTER_READS_AT_ONCE`].
pub const LOCAL_READS_AT_ONCE: usize = 4;

// The doors of 2012 over ZeroMQ.
/// Bytes of a kanyun.conf.
pub const KANYUN_CONF_BYTES_MAX: u64 = 1 << 20;
/// Requests of the API door under way at once, those that wait included; above it code 500 at once.
pub const API_REQUESTS_MAX: usize = REPORTS_WAITING_MAX;
/// Bytes of one message at the API door: a body that is too large is told so up to here, and beyond
/// it the connection ends, as ZeroMQ has no other word for it. libzmq holds a message until it has
/// all of its frames.
pub const API_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Frames of one message at the API door: what does not have three of them is told so up to here.
pub const API_MESSAGE_FRAMES_MAX: usize = 64;
/// Requests of one client that wait in memory. A REQ client has one.
pub const API_PEER_REQUESTS_MAX: i32 = 4;
/// That clients of the API door were cut off is not logged more often.
pub const API_LOG_INTERVAL: Duration = Duration::from_mins(1);
/// Connections of one door at once; more wait in the kernel's queue. A cloud of 2012 had a worker a
/// hypervisor, and clients that connect for each request.
pub const ZEROMQ_CONNECTIONS_MAX: usize = 1024;
/// How long a client may take until it has said what it speaks.
pub const ZEROMQ_HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be silent until the kernel asks whether its other end is still there.
pub const ZEROMQ_KEEPALIVE: Duration = Duration::from_mins(2);
/// Bytes of a connection that are copied to libzmq at once.
pub const ZEROMQ_COPY_BYTES: usize = 8 << 10;
/// How long messages that were sent have to leave when a door is closed, or when a connection is
/// cut because of its next message.
pub const ZEROMQ_LINGER: Duration = Duration::from_secs(2);

/// Bytes of an answer that `kanyun` takes: more than the longest report has.
pub const CLIENT_ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long `kanyun` tries to connect, and then waits for the first bytes of ZeroMQ.
pub const CLIENT_CONNECT: Duration = Duration::from_secs(10);
/// How long `kanyun` waits for an answer: longer than a report may take.
pub const CLIENT_ANSWER: Duration = Duration::from_secs(130);

// Sealing.
/// Samples of one group's window that are held at once, 64 MiB of them; a group that has more is
/// sealed by parts of its series, and its head is read once for each.
pub const SEAL_SAMPLES_MAX: usize = 2_000_000;
/// Samples of a group's window that are kept until its ledger is counted, 4 MiB of them; a group that
/// has more has them read again.
pub const SEAL_KEPT_SAMPLES_MAX: usize = 131_072;
/// Samples of one chunk; a series that has more in a window has several.
pub const CHUNK_SAMPLES_MAX: usize = 65_536;
/// Groups, or late rows, that the sealer lists at once.
pub const SEAL_PAGE_ROWS: usize = 10_000;
/// Groups that are sealed at once: one reads while another counts.
pub const SEAL_GROUPS_AT_ONCE: usize = 2;
/// Groups whose seals become durable together.
pub const SEAL_GROUPS_PER_COMMIT: usize = 32;
/// Bytes of seals that are enough for a commit: it is held in memory, and commits of samples wait
/// for it.
pub const SEAL_COMMIT_BYTES: usize = 8 << 20;
/// Windows of one group that are sealed together because something came late to them.
pub const SEAL_LATE_WINDOWS_MAX: usize = 84;
/// How long a shard of a cluster is a sealer's unless it says again that it is there: so long sealing
/// waits where an adapter died.
pub const SEAL_LEASE: Duration = Duration::from_secs(30);
/// Parts of its time after which a lease is renewed.
pub const SEAL_LEASE_RENEWALS: u32 = 3;
/// How long an adapter that stops tries to give back the shards that it seals.
pub const SEAL_STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Groups of which a sealer asks at once whether they are sealed.
pub const SEAL_MARKERS_AT_ONCE: usize = 16;
/// Windows after which a sealer that catches up says how far it is.
pub const SEAL_WINDOWS_PER_MARK: usize = 12;
/// How often the sealer looks for something to do.
pub const SEAL_INTERVAL: Duration = Duration::from_secs(10);
/// Late rows of one group's window that one seal takes away; more keep it late for the next.
pub const SEAL_LATE_ROWS_MAX: usize = 100_000;

// Copies between stores.
/// Groups of a week after which the progress of a copy is written down.
pub const COPY_PAGE_ROWS: usize = 50;
/// Chunks that are written together, mostly 1 KiB each.
pub const COPY_CHUNKS_AT_ONCE: usize = 4_000;
/// Rows of the head that are written together, each of up to 64 KiB.
pub const COPY_HEADS_AT_ONCE: usize = 500;
/// Series that are written together, each with all its labels and postings: up to 640 KiB.
pub const COPY_INDEX_AT_ONCE: usize = 20;
/// Hours of the ledger that are written together.
pub const COPY_HOURS_AT_ONCE: usize = 200;

/// Weeks before those that are kept in which a copy looks for what it leaves out: the longest
/// retention.
pub const COPY_WEEKS_BACK: i32 = 1_044;

// The embedded store.
/// Bytes of waiting commits that are merged into one batch and one fdatasync.
pub const LOCAL_COMMIT_BYTES_MAX: usize = 16 << 20;
/// With `--store.sync=interval`: how long an acknowledged write may be unsynced.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of full journals, beside the one that is written: what a start after a crash reads again,
/// row by row. With fjall's own bound of 512 MiB that took 8 s after a million new series. It costs
/// that keyspaces which are seldom written have smaller tables.
pub const LOCAL_JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// Free space below which writes are refused: full journals and one compaction.
pub const DISK_RESERVE_BYTES: u64 = 1 << 30;

// The workers of 2012.
/// Bytes of a worker's message; the connection of a larger one is cut. 10,000 guests with cpu, memory
/// and 20 NICs and disks each, all of them in a message, take 17 MB where names are long.
pub const WORKER_MESSAGE_BYTES_MAX: usize = 24 << 20;
/// Frames of a worker's message; the connection of one with more is cut. It has two, and up to here
/// it is refused by itself.
pub const WORKER_MESSAGE_FRAMES_MAX: usize = 16;
/// Frames of one message that are kept: two belong to it, and a third says that there are too many.
pub const WORKER_FRAMES_MAX: usize = 3;
/// Messages of one worker that libzmq holds: more than one minute's, and as few as possible, as they
/// are lost where the process is killed.
pub const WORKER_PEER_MESSAGES_MAX: i32 = 4;
/// Guests in one message.
pub const WORKER_GUESTS_MAX: usize = 10_000;
/// Records of one guest in one message: cpu, memory, and its NICs and disks.
pub const WORKER_RECORDS_MAX: usize = 4_096;
/// Bytes of a name that a worker sends: its own, a guest's, a host's, a device's. libvirt's are
/// file names.
pub const WORKER_NAME_BYTES_MAX: usize = 255;
/// Workers that are remembered; beyond it the dead ones are forgotten first, and then new ones are
/// refused.
pub const WORKERS_MAX: usize = 10_000;
/// Messages that were read and wait to be decoded.
pub const WORKER_MESSAGES_WAITING_MAX: usize = 16;
/// Messages that a stop still takes out of libzmq: what is left there is lost, and who goes on
/// sending must not keep the process from ending.
pub const WORKER_MESSAGES_AT_STOP_MAX: usize = 10_000;
/// Bytes of messages after which no more of them are stored together.
pub const WORKER_BATCH_BYTES_MAX: usize = 1 << 20;
/// How long the first message of a batch waits for others: workers report in the first seconds of
/// a minute.
pub const WORKER_BATCH_WAIT: Duration = Duration::from_millis(20);
/// Samples of workers in one write; with all their labels new to the index they take about 32 MiB.
pub const WORKER_WRITE_SAMPLES_MAX: usize = 5_000;
/// The pause before a write of workers is tried again.
pub const WORKER_WRITE_PAUSE: Duration = Duration::from_secs(1);
/// What a stop waits for workers' messages that were read to be stored: a write under way.
pub const WORKER_STOP_DEADLINE: Duration = Duration::from_secs(WRITE_DEADLINE.as_secs() + 5);
/// A worker that is silent for so long is dead (kanyun-legacy.md, "Parts and ports").
pub const WORKER_SILENT_MS_MAX: i64 = 120_000;
/// How often the feed looks who is silent.
pub const WORKER_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The same complaint about workers is not logged more often.
pub const WORKER_LOG_INTERVAL: Duration = Duration::from_mins(1);

// Cassandra.
/// One attempt of a statement: above the node's own timeouts (2 s for a write, 5 s for a read),
/// so that it is the node that says what went wrong.
pub const CASSANDRA_ATTEMPT: Duration = Duration::from_secs(6);
/// The first pause between two attempts; it doubles each time, and half of it is random.
pub const CASSANDRA_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
pub const CASSANDRA_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long rows of the head are kept in a cluster after their arrival: sealing may fail for half of
/// it, a long weekend, before writes are refused.
pub const CASSANDRA_HEAD_TTL: Duration = Duration::from_secs(7 * 86_400);
/// How often nodes are looked at, and their clocks asked.
pub const CASSANDRA_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// By how much the cluster's clock may differ from ours (DESIGN.md, "The engine").
pub const CLUSTER_CLOCK_DIFFERENCE_MAX: Duration = Duration::from_mins(1);
/// For how long a process counts as one that works on a keyspace since it last said so, which it does at
/// every look.
pub const CASSANDRA_HERE_SECONDS: i32 = 100;
/// How long a start waits for a process that says it has stopped: it is counted for a second.
pub const CASSANDRA_LEFT_AFTER: Duration = Duration::from_secs(3);
/// A process that has not said so for this long, or not seen who else did, takes no writes where that
/// matters: what it has taken is durable, at the latest, in a write's deadline, and others count it for
/// some seconds more, by whichever node's clock.
pub const CASSANDRA_UNSEEN_MAX: Duration =
    Duration::from_secs(CASSANDRA_HERE_SECONDS.unsigned_abs() as u64 - 15)
        .saturating_sub(WRITE_DEADLINE);
/// How soon the nodes are looked at again where not all is well.
pub const CASSANDRA_LOOK_AGAIN: Duration = Duration::from_secs(2);
/// After so long another replica is asked beside the one that has not answered: much longer than a
/// node that works takes, and short beside a commit's deadline, in which there are five steps.
pub const CASSANDRA_OTHER_NODE_AFTER: Duration = Duration::from_secs(1);
/// A connection that is silent for so long is asked whether anybody is there, and given up after so
/// long again. Also one that is being made: a start waits for all nodes, and one that hangs must not
/// keep it from those that do not.
pub const CASSANDRA_KEEPALIVE: Duration = Duration::from_secs(5);
/// So many others, one after the other: with the first all three replicas.
pub const CASSANDRA_OTHER_NODES_MAX: usize = 2;
/// Attempts of a statement that its replicas say they cannot do, some seconds of them: what they then
/// still say is so, they will say again.
pub const CASSANDRA_REPLICA_FAILURES_MAX: usize = 4;
/// Milliseconds after which what came late is listed anew, if its commit has not ended: sealers wait
/// for longer than this and twice [`CLUSTER_CLOCK_DIFFERENCE_MAX`] until they are done with an hour.
pub const LATE_LISTED_AGO_MS_MAX: u64 = 60_000;
/// Milliseconds after its end that an hour of arrival is done with at the earliest.
pub const LATE_SETTLED_AFTER_MS: i64 = 300_000;
/// Hours of windows whose late rows one statement reads: a scrape every 15 s makes at most 23,040 of
/// them, and Cassandra ends a read that passes over 100,000 that were taken away.
pub const LATE_READ_HOURS: i32 = 48;
/// Hours of windows beyond which a read of late rows has a statement a week, and no smaller ones.
pub const LATE_RANGE_HOURS_MAX: i32 = 2_000;
/// Milliseconds after which a late row that is met is listed again.
pub const LATE_OLD_MS: i64 = 86_400_000;
/// Late windows that a process remembers to have listed again.
pub const LATE_LISTED_AGAIN_MAX: usize = 100_000;
/// Windows that are listed at once, for each hour of arrival.
pub const LATE_LISTED_ROWS: usize = 1_000;
/// The least grace on a cluster: half of it is more than a write under way takes at an adapter whose
/// clock is as far behind the cluster's as another's is ahead.
pub const CLUSTER_GRACE_MIN: Duration = Duration::from_mins(5);
/// Connecting to the cluster and reading its topology at the start.
pub const CASSANDRA_CONNECT: Duration = Duration::from_secs(30);
/// One statement that changes the schema, until all nodes agree.
pub const CASSANDRA_SCHEMA_CHANGE: Duration = Duration::from_mins(1);
/// Batches of all commits under way at once. The driver itself bounds only at 32,768, and closes
/// a connection with more than 1,024 requests that nobody waits for any more.
pub const CASSANDRA_WRITES_IN_FLIGHT_MAX: usize = 256;
/// Batches of seals under way at once, apart from those of commits, which must not wait for them.
pub const CASSANDRA_SEALS_IN_FLIGHT_MAX: usize = 32;
/// Partitions of all queries being read at once, apart from the writes: neither starves the other.
pub const CASSANDRA_READS_IN_FLIGHT_MAX: usize = 128;
/// Rows of one batch, which is one mutation of one partition.
pub const CASSANDRA_BATCH_ROWS_MAX: usize = 500;
/// Bytes of one batch, far below the 8 MiB that a mutation may have in a 16 MiB commit log segment.
pub const CASSANDRA_BATCH_BYTES_MAX: usize = 128 << 10;
/// Rows of one page of head rows, each of up to 64 KiB.
pub const CASSANDRA_HEAD_PAGE_ROWS: i32 = 200;
/// Rows of one page of chunks: mostly 1 KiB each, at most about 1 MiB.
pub const CASSANDRA_CHUNK_PAGE_ROWS: i32 = 200;
/// Series whose chunks one statement asks for; ScyllaDB takes at most 100.
pub const CASSANDRA_CHUNK_SERIES_MAX: usize = 50;
/// Rows of one page of the ledger, an hour each: the 168 of a week, some 300 bytes for each device.
pub const CASSANDRA_LEDGER_PAGE_ROWS: i32 = 200;
/// Rows of one page of series, each with all its labels: up to 320 KiB.
pub const CASSANDRA_SERIES_PAGE_ROWS: i32 = 200;
/// Rows of one page of the other tables.
pub const CASSANDRA_INDEX_PAGE_ROWS: i32 = 5_000;
/// How long a failed write makes the store not ready, unless one succeeds. It ends by itself,
/// because a sender that respects readiness would never try again.
pub const CASSANDRA_UNREADY: Duration = Duration::from_secs(10);

/// A commit that takes longer is stuck inside fjall; only a restart helps.
pub const COMMIT_STUCK_AFTER: Duration = Duration::from_secs(30);
/// Bytes of one read of one table, over all its partitions: as much as of head rows on a disk, and
/// what the names of the columns take.
pub const CASSANDRA_READ_BYTES_MAX: usize = 2 * HEAD_READ_BYTES_MAX;
