// Package migration moves a running machine from one process to another. It knows no KVM structure:
// a Source and a Target are what a VMM is to it.
//
// # The ownership law
//
// At every instant at most one process may run the guest; after any single crash at least one can.
// Each side keeps a journal (package journal) of the hand-over, named by machine and generation:
//
//	source        preflight, precopy, paused, state-sent, commit-sent, [serving,] then one of done, cancelled, failed
//	destination   accepted, receiving, ready, then one of owner, discarded
//
// The commit is one record: the destination's "owner". It is durable before the first guest
// instruction there. The other decisive records are those by which a side gives the guest up or takes it
// back, and each is written before the deed: the source's "cancelled" and "failed" before it resumes a
// guest whose state it has sent, the destination's "discarded" before it says so.
//
//  1. What cannot work is refused before the guest is paused.
//  2. Before COMMIT is sent, every failure and every cancel resumes the source.
//  3. The destination runs the guest when COMMIT has come and "owner" is durable. There is one other
//     way: it is ready, the connection is gone, the source process is proved dead (package identity),
//     and the source's journal shows that it had not taken the guest back. Then the destination holds
//     the only copy, journals "owner" and runs.
//  4. A destination that is ready, without a connection, and cannot prove that, waits. It answers
//     RESOLVE on its address.
//  5. A source that has sent COMMIT and lost the connection is in doubt. It stays paused and asks:
//     - the destination says owner: done, the source never resumes;
//     - it says ready: COMMIT is sent again;
//     - it says discarded: the source resumes;
//     - it is proved dead: its journal decides, "owner" or not;
//     - none of these: in doubt until somebody asks again or a human decides (ResolveInDoubt).
//     Only the very process that accepted the guest can answer. Another one that listens at the address
//     now, even with an honest "unknown", says nothing about the one that may be running the guest.
//  6. After the commit the source never resumes, not even when the destination dies at once: the guest
//     may have spoken to the world. The exception is a source that the user wants kept: see "The reverse stream".
//
// So the guest dies in two cases only, both the plain death of a VMM with its guest: the source is
// killed before the destination was ready (the destination discards and fails), and the destination is
// killed after it became the owner. Why the source's journal is read in rule 3: a source that cancelled,
// resumed and later died must not come back as it was at the cancel.
//
// A journal is read after the end of its process, also of one that ended as it should: that it discarded
// the guest, or that it owned it and the guest powered off, is what the other side has to learn. So who
// may delete a journal asks it first (journal.Needed): a hand-over for which both sides held the whole
// guest must be settled, which it is once the peer is known to know the end (DONE, ABORT, a verdict) or
// is proved dead. A human's word settles nothing.
//
// # A link that stands still
//
// Nobody is told of it, so whoever waits for a peer's word does so for PeerTimeout at most: each answer of the other
// side, each piece of a write (pace.go), COMMIT at a destination that is ready, the streams that were promised, and at both
// ends of a post-copy that something arrives, or that it is said to have arrived. A link that is only slow moves what the
// kernel has of it: while that shrinks (package sendqueue) neither a write nor the wait for an answer is over, and Timeout
// alone bounds them. Then connections are replaced and each side says where it is; while new ones bring nothing they are
// made less and less often (backoff.go). Three waits have no such bound, since only the peer's own work ends them: for
// ACCEPT (Timeout bounds it), for the next round at a destination (a source that gives up says so on a new connection; of
// one that says nothing more the kernel's keepalive tells), and for the source in post-copy at a destination whose guest
// is paused meanwhile.
//
// Package inject names the instants at which the tests break this: every one of them, in each mode, by death, a
// cut, a standstill and a failure (law_test.go), and with real guests in cmd/fineline.
//
// # What is made durable when
//
// An fsync costs milliseconds on a disk, and the guest is stopped from paused to owner. The law needs
// less than one a record. Whoever reads the journal of a dead process on the same boot sees what was
// written, durable or not; durability is for a host crash, after which only a human reads, to decide
// which host's disk the machine is started from. So "state-sent", "ready" and "commit-sent" are only
// written; "paused", which tells a human as much as "state-sent", is made durable while the rest is sent and the
// destination restores, and COMMIT waits for that; "owner" alone is a durable write that the guest waits for. A journal on tmpfs has no such cost, and
// no use after a host crash.
//
// # Pre-copy
//
// Round one sends the pages that were ever touched; every further round sends what was written during
// the one before. Collect clears the dirty marks, the page is copied, the copy is what is sent (design
// law 2). When the rule (convergence.go) says that the rest fits into the allowed downtime, or that more
// rounds will not help, the guest is paused and the rest goes with the state. Three pieces are made to
// be replaced one by one: the encoder (what of a page is sent: encoder.go), the rule (when to stop:
// convergence.go) and the hand-over (what happens while nobody runs: handover.go).
//
// Streams: a pump (pump.go) for each connection takes the next part of the round's pages, compares and gathers them
// into large batches in one goroutine and writes them in another. The first pump writes to the main connection, the
// others to streams (stream.go) which the source opens after ACCEPT. Each page of a round is on one stream, so streams need no order
// among each other; a round is over when each has had its ROUND_END, and the one of the main connection, which is the last, is answered.
//
// Lines: the baselines (baselines.go) say what the destination has of a page: zeros, the bytes of a twin, bytes of which the
// hash of each line is kept, or what is not known. They are always of the copy that was sent. From a twin a line goes as its
// changed bytes, from hashes as it is, and a page of mostly changed lines goes whole. Within the budget a page gets hashes and,
// where it is written again and again and pages wait for the link, a twin: making one costs more than ten comparisons, and saves
// bytes only. Beyond the budget a page goes whole. Rounds in the pause take no memory for baselines.
//
// The rule reckons in time a page, measured over the newest rounds, so a page with one changed line counts for what that
// takes, and what must fit is the line rate. While it does not, and rounds bring no progress, the guest is slowed down step by
// step (slowdown.go), or with the mode hybrid switched to post-copy.
//
// Rates that are reported: pages written a second are what a round has left by its time. Their lines are what the next round
// sent of them, by the same time: the only point at which anybody looks for lines. The time left is the rule played on with the share of
// pages that the last round left (progress.go); where that does not end there is no estimate.
//
// Zero pages: what was never touched is not looked at. A page that is found zero is not sent unless
// content was sent for it before; then 16 bytes for a run of them. The receiver starts from memory that
// it has reset itself, so "not sent" means zero there. A line is judged where it lies and copied if it is to go: one that is written in
// between is dirty again.
//
// The bandwidth limit ends when the guest is paused: bytes are then downtime. The rule nevertheless
// reckons with the bandwidth seen under the limit; it never promises one that was not seen.
//
// # Post-copy
//
// The guest is paused, the set of pages that the destination lacks goes in place of the pages (all data; hybrid: what was written
// since the last round), then state, READY, COMMIT and RUNNING as ever. Only the pages that restoring the state looks
// for (RestoreToucher) go before, in a paused round, since nobody brings a page before the commit. From then on the
// source is a paused server of pages that never change (serve.go), and the destination's memory fills behind the running
// guest (paging.go; package postcopy has both halves, memory.Demand the faults). Hybrid keeps its baselines: of a page
// that was sent before only the stale lines go.
//
// What of the ownership law is different:
//
//   - A destination that is ready holds no guest: most of its memory is elsewhere. So rule 3's other way is closed; a
//     source that dies before COMMIT takes the guest with it.
//   - The source's death while it serves is the guest's. Each side's death kills it, until all memory has come.
//   - A lost connection after the commit is no doubt about who owns the guest: the destination pauses it, both keep what they
//     have, and the source connects again (HELLO recover), by itself or when SendOptions.Recover says where. Only
//     the process that accepted the guest is taken for it.
//   - Nothing resumes at the source after the commit (rule 6). What ends serving is COMPLETE, the proof that the
//     destination is dead, or GiveUp, by which whoever ends the source says that the guest may be lost.
//   - A destination that learns that memory will never come (the source is proved dead) says ErrMemoryLost, and its guest
//     touches none of it any more: Demand.Close takes the mapping away.
//
// GiveUp is a channel and not the end of a context: that keeps its first cause, and a cancel that came too late to
// matter would hide it.
//
// # Downtime
//
// From the instant at which the source's Pause returned to the instant at which the destination's Run
// returned, both by CLOCK_MONOTONIC if the two share one ("clock"); else to the arrival of RUNNING at
// the source, which is later ("upper bound").
//
// # Local hand-over
//
// Between two processes of one host the memory need not move: the source lends its files (memory.LendFiles) with
// the description, the destination builds the machine on them, and of the sequence only the state is left
// (local.go). The law and the journal are the same, record by record, so every argument above holds; what is
// added is that both sides hold the same memory. Hence the invariant of LocalTarget: the destination stores
// nothing before Run. The receiver must not reset the memory; KVM's restore calls must not store to it,
// which the wall clock MSRs alone would do, and those are not restored (vmm/kvm/msr.go); closing a machine must
// not punch. A destination that the source takes for discarded may still read: it does no harm.
// The descriptors go with a frame of their own, read by recvmsg; any other read has the kernel close
// what a peer attaches. Rejected: passing them after COMMIT, so that only an owner ever has them. The
// destination could then fail to map them when nobody may run the guest any more, and the mapping would be downtime.
//
// # TLS
//
// Mutual TLS 1.3 lies below the frames, and every connection of a migration goes through the one dial and the
// one accept that put it there (tls.go). The source checks the name that its user gave; the destination checks
// the CA alone, since a source has no address that is known beforehand. Frames keep their checksum: it guards
// against our own bugs. A connection is closed without close_notify, which on a link that stands still would
// hold a paused guest for seconds; a stream that was cut is a lost connection whoever cut it. After a deadline
// has cut a write a tls.Conn takes no other, as after half a frame nothing can follow: pace.torn covers both.
//
// # The reverse stream
//
// A source that is kept (SendOptions.Standby) is not released when its guest has moved: it stays paused, as it was at the
// switch, and is checkpoint 0. From the first instruction at the destination on, that sends back what the guest
// changes, in checkpoints; the source goes on from the last whole one when the destination dies. A post-copy
// so outlives its destination, of which the source holds half of the memory anyway (PostCopyFT, INFOCOM 2019). After a
// pre-copy it is the same hot standby, and costs the same.
//
// A checkpoint is the memory and the state of one instant. The guest is held still, its state saved, and then
// the pages collected that were written since the checkpoint before: saving may store to memory (design law 3). Only what the
// source lacks of them is copied, by the line, into buffers; the guest goes on, and then they are sent. The
// first time a page goes back whole, since nobody kept what it was when it came; its hashes, and later
// a twin, are taken of the bytes sent (design law 2). Pages that are still absent at the destination were not written
// there, so they are in no checkpoint, and the source has them. One checkpoint is under way at a time; the source acknowledges it
// when it has applied it. When the connection breaks, the source says on the next one what it
// holds, and the pages of a checkpoint that it does not hold go again, whole.
//
// The source keeps the pages of a checkpoint beside its memory until CHECKPOINT_END, and has checked each record
// when it came; then it applies them all, which cannot fail, and takes the new state. So its memory is always that of
// one checkpoint, but for the time of applying, and if it dies then the destination lives. A page comes once in a checkpoint,
// which bounds what waits to the size of RAM. The destination's buffers are bounded: what exceeds them is sent while the guest
// still stands.
//
// Who may run the guest then, beside the law above:
//
//  7. A source that is kept resumes the guest from its last whole checkpoint when the destination's process is proved dead,
//     and that one's journal ends with "owner"; or when a human says that the destination is dead, it does not answer, and
//     its process is not seen to live. It journals "resumed-from-checkpoint" before the deed, unless the disk is full and the
//     destination proved dead. It never resumes while the destination may run.
//  8. A guest that ends at its destination, or moves on from there (as soon as the next one accepts it), ends the checkpoints:
//     the destination journals "ended" first, then tells the source, which releases. A dead destination whose journal says so
//     was not its guest's death. If the journal of the dead can't be read, or knows a later hand-over, only a human may decide.
//
// So with a source that is kept the guest dies only with both, or in a post-copy with the source while memory is missing
// at the destination. When the source dies later, the destination goes on without it, and says so in its log.
//
// What others may have seen: the guest's output is not held back until the checkpoint behind it is acknowledged (Remus does that,
// and pays with the latency of each packet). What the guest has sent between its last checkpoint and the death of the destination, over the serial port
// or whatever else, has been seen, and the guest at the source does not know: it repeats it, or does something else. Input of that time
// is lost. Output that the guest had written to its serial port before the switch, and that no console had taken, is in the state and may be
// printed on both sides. Who needs more than this acknowledges above the machine, as with a database on a disk that is
// restored.
//
// What it costs: Standby.Status counts bytes, lines and the time that the guest stood still for each. Each page that was collected is protected again, and
// costs the vCPU that writes it next a fault: with many hot pages most of what a checkpoint takes from the guest. The next one begins when all that is
// a fifth of the guest's time or less (checkpointPeriod), however short the interval that was asked for. The destination tells how
// long that is, since the source must not take its silence for a lost connection. A guest whose vCPUs wait for missing memory
// most of the time gives few checkpoints, since a vCPU can't be saved within an instruction (counted as missed): the last one, or
// the switch, then is older.
//
// Rejected: to apply pages as they come and to keep an undo log at the source (as much memory, and a torn checkpoint would have to
// be undone before the guest could run); to copy pages on write after a short stop (userfaultfd write protection, a fault for
// each page beside the log's); hashes of pages when they arrive (every page pays for the few that are written); the faults' time measured in place of reckoned (a vCPU
// is in the kernel for other reasons, too, such as emulation); a source that
// resumes when checkpoints cease to come: that is a lease, see below.
//
// # Rejected
//
// TLS on Unix sockets: the kernel carries the bytes, and the socket's mode says who may connect.
// Lease or quorum instead of journal and proof: there is no third party on one host, and a lease lets a
// paused but healthy guest die by a clock. Resuming the source when the destination dies right after the
// commit: law 6. A default that never ends when the guest writes faster than the link (QEMU): see Rule.
package migration
