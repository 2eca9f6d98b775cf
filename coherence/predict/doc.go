// Package predict says which pages a guest will want next, from the pages that it had to wait
// for. In post-copy a wait is a round trip to another host; a page that was asked for together
// with its neighbour's miss costs nothing but its bytes. The package is pure: no I/O, no clock, no
// goroutine, no guest. Package replay beside it measures predictors in a model of a pager.
//
// # What a pager can see
//
//   - A miss: a vCPU or a device waits for an absent page. Also for one that is already under way:
//     that is a prediction that was right, and late.
//   - Nothing, when the guest touches a predicted page that is mapped. So it is not known
//     whether a prediction was of use. It is known only that a page that is there did not miss.
//   - A hit, if the pager fills a predicted page and leaves it unmapped: the first touch faults
//     locally (a minor fault of userfaultfd), which costs no round trip but a fault.
//   - The accessed bits of the host's page tables, after the fact and at the cost of a walk; not used.
//   - Waste, never before the end: a page that was not touched yet may be touched later.
//
// Predictors therefore work without hits. A miss at the first page behind what was named says that all of
// it was used, as otherwise the guest would not have come there. Hits are an offer: with some of them shown,
// one in eight will do, a predictor asks for more while the guest is still in what was
// fetched, like the marked page of Linux's read-ahead, and a stream that runs does not wait
// any more. The pager decides; all hits cost more in faults than they save on a fast link.
//
// In post-copy every absent page is sent once, asked for or not. So waste costs no bytes: it costs
// that other pages come later, and the next miss waits behind it on the fault path. That is why windows grow with
// success, and why a guess is better than nothing while that path is idle.
//
// For the same reason a page misses once. A predictor that remembers pages learns nothing of
// use; everything here is about distances.
//
// # What it asks
//
// Options.Wanted is the other half of the feedback. With it a predictor fills a request with pages that
// are really absent, looks past what the background copy has brought, and can tell a page that did
// not miss since it was there from one that the guest skipped. A caller that answers always true gets
// valid predictions, of which it must drop what it has.
//
// # The predictors
//
//	none        nothing
//	sequential  the next pages of one run; the window doubles when the guest follows it, halves when not
//	around      the nearest absent pages on both sides ("bubbling"): 8, then 16, 32, ... in a
//	            region of 1 MiB that misses again
//	stride      16 streams of one distance each, found from two misses side by side or three in a lattice
//	majority    Leap: the distance that most of the last touches have
//	markov      what distance followed the last two distances, per zone of 16 MiB
//	pagetable   what a page-table page that has arrived points at, around the entry that missed
//	auto        pagetable, stride, markov, around, each in the room that the ones before leave
//
// Stride knows no vCPU, as a fault's page does not tell which it was, and does not need to: misses of
// several streams are told apart by their distances. The papers are named at the code. For auto
// see there how scores decide; around alone is what makes random access within a cluster cheap.
//
// Pages of a page table are recognised by content: nearly all words zero or present entries that
// point into RAM. The level does not matter and is not known. The entries around the one that
// missed are virtual neighbours, whether they map pages or the next level's tables. The control
// registers of the vCPUs would tell the root only at the switch-over, and not of the next process, so they
// are not asked for. Accessed bits in the entries are not used: the guest clears them when it likes. Tables
// whose entries are in physical order, as of the kernel's direct map, are not kept.
//
// # Bounds
//
// The guest chooses what misses and what arrives, so everything is of a fixed size, made by New: about
// 0.4 MiB for auto, and for page tables 8 KiB for each 2 MiB of RAM, at least 0.5 MiB and at most
// 8 MiB. No call allocates. A miss takes auto 1.7 µs of processor time when 32 pages are asked for (the
// others 0.1 to 0.7), and an arrival 0.05 to 0.5 µs, if the page is a table 2.7 µs;
// a guest that tries makes a miss cost some µs more. The worst
// that a guest can do is to have useless pages of its own sent first.
//
// # Figures
//
// Pages that the guest waited for on the network, in percent of the pages that it touched: requests of
// 32 pages beside the one that missed, nothing else that brings pages; a link of 10 Gb/s with a
// round trip of 60 µs, 512 MiB of RAM, and a guest that touches a page every 5 µs
// (replay.Default, replay.Patterns of seed 1). This is a model: it counts, and times nothing real.
// Behind the bar is auto with a background copy of the same speed, and with every 8th hit shown.
// Pre-paging is published with 17 and 21 % for large working sets (Hines and Gopalan), background copy
// included.
//
//	                   none   seq around stride majority markov  ptable   auto | backgr  shown
//	sequential          100   3.1    3.6    3.1      4.4    3.1   100.0    3.1 |    0.0    1.6
//	reverse             100 100.0    3.6    3.1      4.4    3.1   100.0    3.1 |    3.1    1.6
//	stride 3            100   9.4   11.0    3.1      4.4    3.1   100.0    3.1 |    3.2    1.6
//	stride 17           100 100.0   61.7    3.2      4.5    3.2   100.0    3.2 |    3.2    1.7
//	stride -64          100 100.0  100.0    3.4      5.5    3.3   100.0    3.4 |    3.4    1.9
//	strides             100  48.9   26.0    3.4      6.1    3.5   100.0    3.5 |    3.0    2.3
//	4 sequential        100  50.0    3.8    3.2    100.0    3.2   100.0    3.2 |    1.6    3.2
//	4 strides           100  97.9   19.1    3.3    100.0    3.3   100.0    3.3 |    3.2    2.4
//	clusters of 64      100  60.8    9.6   31.7     98.4  100.0   100.0    9.7 |    7.0    9.6
//	clusters of 256     100  61.4    5.5   26.8    100.0  100.0   100.0    5.6 |    3.5    5.6
//	clusters of 2048    100  61.5    4.3   62.4    100.0  100.0   100.0    5.0 |    3.1    4.6
//	4 in clusters       100  61.6    4.8   44.2    100.0  100.0   100.0    5.2 |    3.2    5.1
//	periodic            100  80.0   18.1   15.7    100.0    3.3   100.0   15.7 |    7.9   15.7
//	random              100  95.5   68.0  100.0    100.0  100.0   100.0   83.6 |   42.8   83.5
//	4 random            100  94.2   61.0  100.0    100.0  100.0   100.0   78.2 |   60.3   78.0
//	zipf                100  95.2   65.8   99.9    100.0  100.0   100.0   81.6 |   30.4   81.4
//	virtual sequential  100  95.6   66.7  100.0    100.0  100.0     3.2    3.2 |    3.0    1.8
//	virtual stride 5    100  98.8   89.8  100.0    100.0  100.0     6.2    6.2 |    5.8    5.4
//	virtual clusters    100  97.8   86.1  100.0    100.0  100.0     5.4    5.3 |    4.9    5.2
//
// Sequential loses on four vCPUs since it knows one run; majority since no distance has a majority. In
// clusters of 64 pages most of what around brings lies outside. The period (distances 1, 1, 6, -3,
// 20) is markov's; with auto around hides most of it by fetching everything, at five pages for
// one of use. Nothing foretells uniformly random pages; auto then asks for four a miss.
//
// A request of 16 pages doubles the figures of streams, and the guest is about as fast; with 8 pages auto
// stays below 18 % on all but the period and the random ones; 63 is slower on clusters than 32.
//
// # Rejected
//
// Following the expert with the best score alone: see auto. Windows that shrink on waste of single
// streams: waste is not seen, and a stream that ends is forgotten with its window. A prediction when
// a table arrives, not at the next miss: the entry that is wanted is one in 512, and the miss that
// tells which comes at once.
package predict
