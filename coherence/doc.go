// Package coherence is the core of an emulated cache-coherent FPGA: a model of
// processor caches and of a device that is the home of all lines, and so learns
// which lines are written. It is a pure state machine: calls and messages go
// in, messages and effects come out. It has no clock, lock, goroutine or socket,
// and no randomness but from a given seed, so that each race can be replayed.
//
// System is driven message by message, for scripts and simulations. Device is
// a System in which each call runs until nothing is in flight, for the shell
// that puts a guest's accesses through it. An access is to one line; the shell
// splits what crosses two. Neither is safe for concurrent use.
//
// # What the device sees
//
// A line is 64 bytes. A cache holds it Shared, Exclusive or Modified, or not at
// all (Invalid). A store to an Exclusive line makes it Modified and tells
// nobody: the store is pending in the cache. The device sees it when the line
// comes home, because the cache evicts it or because the device snoops it. That
// is the write-back event (US11099991, US11099871), and the only thing that
// marks a line in the regions that track it. So a harvest without a snoop
// misses what is pending, and one with a snoop first has the owners of the
// region's lines write back.
//
// Grants of ownership do not mark, though home sees them: a line read for
// ownership need not be written, and CXL 3.0 devices, whose snoop filter merges
// Exclusive and Modified, cannot know either. A store of the same bytes counts;
// who wants changed values compares (the diff mode of trackers).
//
// # Messages
//
//	cache to home   GetS   read                     answered by Data (Shared or Exclusive)
//	                GetM   read to write, upgrade   answered by Data (Modified)
//	                PutS, PutE, PutM   eviction     answered by Ack
//	                SnpResp            answers a snoop, with the data if Modified
//	home to cache   SnpShared          write back, keep no more than Shared
//	                SnpInv             write back, keep nothing
//
// A read of a line that another cache owns, as everything else with other
// holders, goes through home:
//
//	c1           home           c0 (Modified)
//	 | --GetS---> |              |
//	 |            | -SnpShared-> |
//	 |            | <--SnpResp-- |   write-back event
//	 | <---Data-- |              |
//
// Home does one transaction a line at a time; requests that come meanwhile
// queue at the line, in order of arrival. A grant needs no acknowledgement,
// since the next message for the line to that cache comes behind it. All
// evictions are told, clean ones too: so the directory is exact, has entries
// for held and busy lines only, and is no larger than the caches.
//
// A cache answers a snoop at once, whatever it waits for, and waits for the Ack
// of an eviction before it asks for that line again. The races come out so:
//
//   - An eviction crosses a snoop. The cache answers from its write-back buffer
//     that it keeps nothing. The Put finds its sender no holder: it is stale,
//     its data is ignored, since it came with the answer.
//   - Two caches upgrade. Home takes one; the other loses its copy to SnpInv and
//     goes on waiting; Data brings it the line as the first left it.
//   - A snoop comes while the Data before is on the way. It comes behind.
//
// The last needs the links from home to a cache to be in order. They are here,
// and TestSimulationFindsFaults shows that it does not work otherwise. Messages
// to home need no order, because a cache has one request a line at most.
//
// # No store is lost
//
// Invariant: a cache that holds a line Exclusive or Modified, or has written
// data of it in a Put or SnpResp on the way, is the line's owner in the
// directory, unless a stale Put repeats data that came home. Home makes a cache
// owner when it sends the grant, and ends it when it takes the answer or the Put.
//
// Hence: once a snooping harvest is done, every store to a line of the region
// that was performed while the region was tracked, and before the harvest
// began, has been reported by that harvest or by one before it that ended after the store.
// For when the harvest begins the store's data is either home, and marked; or
// its line has an owner. A request to clean each owned line joins the line's
// queue, and the harvest collects after all of them had their turn. Until
// then the owner has answered a snoop or its Put was taken, whichever was first.
// What is marked stays marked until it is collected.
//
// After that snoop the line is Shared at most, so that the next store to it
// must ask home again and makes a new pending write. Marks that arrive while a
// harvest waits are collected with it. Lines granted after its begin are not
// waited for, so it ends however busy the guest is.
//
// A client reads the bytes of the lines after HarvestDone; data that comes home
// later is in the next harvest.
//
// What is reported though it need not: lines stored to before AddRegion or
// StartRegion that come home after, and stores after StopRegion that come home
// before StopDone. Who wants a clean start harvests once and drops the result.
// StopRegion snoops like a harvest, because clients stop first and ask afterwards.
// A harvest with a limit is complete with the one that leaves no more.
//
// Uncached accesses of IO agents (the VMM's own devices) go through home as
// well. A write first has written data come home and takes all copies away, so
// it may be of a part of the line; it marks the line itself (law 3 of the design).
//
// # Absent lines
//
// A line may be absent (System.Expect): home lacks it, and the shell fetches it from another machine. That is post-copy
// as US11231949 has it: the guest runs though its memory is elsewhere, its access is a miss like any other, and home answers
// when the line has come. The line comes first and the rest of its page after it, of itself; home does not care which is
// which:
//
//	c0           home                 the other machine
//	 | --GetM---> |                         |
//	 |            | Fetch 5 --------------> |
//	 |            | <-----------  5 Arrive  |
//	 | <---Data-- |                         |
//	 |            | <---- 0..4 6..63 Arrive |   PageDone
//
// A transaction at home waits for its line as it waits for snoops, so all races are those of a busy line: two that miss
// one line share a fetch, since the second queues behind the first; a line that comes twice, or late after it was
// fetched and written, is here and is not taken. Invariant: no cache holds an absent line, and a line becomes present once. So what the
// guest has written is never overwritten by what arrives, and a load never sees a line that has not come. An arrival is no
// store and marks nothing.
//
// Home decides per line and per line only: that a page is asked for in two parts, and what is sent unasked, is the
// shell's. Rejected: a write of a whole line by an IO agent that needs no fetch (one more request for little), and states of
// a page at home (the mask of its absent lines is all there is to know).
//
// # Ticks
//
// Each Tick the device looks at Config.Scan owned lines and has the tracked
// ones written back, so that a later harvest has less to snoop: the scan rate
// is the price, in misses of the guest, for a short last round. There are no
// other timers. Delays are the order in which the shell delivers.
//
// # Decisions
//
// Data-free: a line carries a version, the number of its stores. The shell has
// the bytes; a simulation can tell with versions whether a load saw the last
// store. Memory's versions would be a map of all lines ever written, so home
// keeps them only with Config.Versions.
//
// A processor has one access outstanding. More would overlap different lines,
// which do not meet in this protocol except in the choice of a victim; evictions
// do overlap the next access.
//
// A harvest downgrades and does not invalidate, so that readers keep their copies.
//
// Saved state is regions, what is pending in them, and counters; not the caches.
// Flush brings written lines home, and then a cold cache is as right as a warm
// one: it changes the hit rate and no report. Saved caches would tie the state to
// one configuration. Random replacement starts again at its seed.
//
// Not modelled: a hierarchy of caches, cache-to-cache transfers, an Owned or
// Forward state, non-temporal stores (they are IO writes to home), and time.
//
// # Trust
//
// Regions and lines may come from a guest or client: every wrong one is an
// error. A message is refused if its sender cannot have meant it, so that a
// foreign node cannot break the directory or its bounds; but a cache that lies
// about its data or state is believed, as on hardware. The number of regions,
// and of IO requests begun and not delivered, is the shell's to bound.
//
// # Tests
//
// testdata has a script for each race. The simulation plays random accesses,
// harvests and deliveries, and checks after each step that there is one writer
// or only readers, that loads see the last store, that memory and harvests lose
// nothing and report nothing twice, and at the end that nothing waits. A failure
// is shrunk and printed as a script. Broken variants of the protocol must be
// found. For hours, or for one seed again:
//
//	go test ./coherence -run Simulation$ -sim.seeds=1000000 -timeout 0
//	go test ./coherence -run Simulation$ -sim.seed=17 -sim.seeds=1
package coherence
