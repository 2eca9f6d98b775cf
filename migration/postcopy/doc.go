// Package postcopy delivers the memory of a guest that runs at the destination already. A Server at the source
// has the guest's pages, which never change again; a Pager at the destination fills what is missing
// (memory.Demand). Both work on connections that are handed in after their greeting. Ownership, journal, the
// guest's state and the decision to connect again are package migration's.
//
// # Sequence
//
// One fault connection, and any number of background connections:
//
//	destination                                   source
//	                            fault
//	  REQUEST {missed, predicted ...}   ------->
//	                                    <-------  PAGES {missed}
//	                                    <-------  PAGES {up to 4 predicted} ...
//	                          background
//	                                    <-------  PAGES ...
//	                                    <-------  ROUND_END {1, pages of this stream}
//
// The source answers requests until its caller stops it. The destination is done when nothing is absent; its
// caller says so on a connection of its own (COMPLETE), and closes these only when that is answered, else the
// source would take them for lost.
//
// # Who sends a page
//
// The source claims each page once, by a bit in an atomic bitmap, and who has claimed it encodes it: with the
// caller's encoder, lines against what the destination has where that is known. A missed page that somebody
// else has claimed is on its way behind other pages; it is sent again at once, whole, since its encoder may
// have one answer only. On a fault connection no page is sent twice: a second request finds the first answer
// under way. So:
//
//   - a fault connection brings only pages that were asked for on it, each once;
//   - all background connections together bring only pages that were absent when they began, each once.
//
// The Pager holds the source to both (design law 5). They bound what a hostile source can make it do; every
// frame has a page, so each is progress. Which of two copies of a page comes first does not matter: memory
// takes a page only while it is absent, so what is late is dropped, and never overwrites what the guest has
// written. Lines are applied to the old content of a page that is absent.
//
// When all background streams have ended, every page has been sent, and what is absent was asked for: anything
// else is a protocol error. In frames pages ascend, from frame to frame they do not.
//
// # Latency
//
// A guest CPU that waits costs more than anything else here. Between the fault and the page there are two
// wake-ups, one in each process: the goroutine that learns of the fault writes the request, the one that reads
// it writes the answer, alone in a frame and in one system call, and the one that reads that fills the page.
// Predicted pages go in small frames by another goroutine, so that the next request waits for one of them at
// most; the newest request's predictions go first, and those of many requests ago are dropped, to come by the
// background.
//
// The background is what stands in the way, on few processors above all (priority.go has the figures):
//
//   - its frames are small, and its pages are claimed one by one;
//   - at the source it stops while a request is answered, and at the destination, for a bounded time a frame, the
//     storing stops while somebody waits;
//   - its goroutines have threads of their own with a lower priority;
//   - while they run, Go may use as many more threads.
//
// It goes on just behind the last missed page and around the end, so that it runs ahead of a guest that goes
// through its memory, on all connections together: they take pages from one cursor.
//
// # What has come
//
// Storing a page costs several times what sending one of few lines does, so what the background has sent lies in the
// destination's sockets and buffers, and there the next miss finds it. Therefore each background connection is read as fast as it brings, into a
// stock of bounded size; another goroutine takes from that, the frame near the last miss first. A miss looks into the
// stocks before anything is asked for, and who looks stores the page: its thread has its priority, the background's may wait for a
// processor. A run of pages that is just being stored keeps nobody waiting either (memory: hasten). Lines are not looked for there: who
// waits for a line asks for it.
//
// Measured with 65536 pages of which a line differs, 2 processors, medians of 5, without and with: a request took 123 to 189 µs at the
// median and 0.8 to 1.3 ms at the 99th percentile, and takes 12 to 25 µs and 0.2 to 0.8 ms, beside 10 to 13 and 17 to 120 µs of a bare
// userfaultfd copy; of the working set 1.5 to 2.2 % were asked for over the connection, and 0.01 to 0.9 % are. Traced before: of a guest
// that goes through its memory in order nine of ten misses lay in the run of 16 that was being stored, of one that goes by strides
// three of four in the sockets.
//
// # Prediction
//
// A predictor (package coherence/predict) names the pages that the guest will want. How many of them are asked
// for is adapted from misses, the only thing that is seen: see window.
//
// # Lines
//
// Where a guest CPU waits for a line and not for a page (LineMemory; coherence/homed says how), the line is asked for and comes
// alone in a frame, raw; its page follows as a predicted page would, unless somebody else has claimed it and it is on its way.
// Whether a line or page that comes is of use is decided by the memory alone, so lines and pages of it may come in any order and
// twice. A line is sent as often as it is asked for: it is not claimed, and the answer costs who asks as much as who answers. The Pager
// takes each that it asked for once.
//
// Measured with builtin:dirty, 2 vCPUs, over a relay with the background limited to a tenth of it (software KVM, 2 processors, as
// TestPostcopyHomed; medians of a run, the median of 2 to 3 runs): at 100 Mbit/s a line is in place after 1.4 ms, of which the relay's timers
// are most, the rest of its page after 1.7 ms, and a page by the page, with predictions in its way, after 3 ms (1.7 to 4.9); at 10 Mbit/s a line after 2 ms,
// a page by the page after 8 ms. There the rest takes 3 ms, or 90 ms where the background has claimed it: that waits for the limit.
// Over a socket 0.1, 0.2 and, by the page, 0.1 ms. So it is the link's time that a line saves, and on a fast link nothing is left of it beside
// the exits that absent memory costs.
//
// # A lost connection
//
// The Pager ends with an error and keeps what is in place, and what was waited for; so does the Server. The caller
// brings the set of pages that are still absent to the source (Pager.Absent, Server.Reset), and both begin
// again on new connections. What of this set was claimed before goes whole, since the encoder is done with it
// and nobody knows whether it arrived. The Pager asks first for what is waited for.
//
// There are no heartbeats. A source that has something to bring brings it, so silence on all connections for
// the peer timeout is a lost connection, as is a request without its page or a frame that the peer does not
// take, unless what the kernel has of it shrinks (package sendqueue). A source that has sent
// everything waits as long for word that it has arrived.
//
// Measured on two processors of a machine whose guests run under shadow paging, with others at work on it (a run queue of 15 to 30):
// a request without background took some 40 µs at the median from the miss to the page in place, with 5 changes of threads in both
// processes. 4 are in the design: the fault wakes a reader, the request the source, the answer the destination, the page the
// vCPU. A bare userfaultfd copy has two, and took 10 to 12 µs. So 1.5 times of that is out of reach while both processes sleep
// between requests; a processor that spins was not tried, since where there are few it is the guest's. Meant to save what is
// left, with no gain beyond the noise at the median: one read for a frame of the fault connection (ReadAhead), and a fault that is
// asked for by the goroutine that reads it (Memory.Tell).
//
// A frame has no more than framePages: where a page is a line, 64 KiB would be hundreds of them. With 32 in place of 128 nothing
// was won. Pages in a row are made present together (Memory.FillRun).
//
// # Rejected
//
// A queue between fault and request, or between answer and fill: each hand-over between goroutines costs some
// 10 µs and, when all threads are busy, a time slice. Measured: storing predicted pages in a goroutine of their
// own, so that a missed page behind them need not wait for that, gained nothing and made the tail longer.
// Threads of their own for the goroutines in a hurry, with or without a higher priority: twice as slow, since
// Go then changes threads twice for each wake-up. Requests on the background's connection, answers between its
// frames (QEMU before preemption): a fault waits for what the socket's buffer holds. One priority for all and
// nothing else: a page was in place after 2.5 ms at the 99th percentile where now it takes 0.2 ms. The source as
// the one that knows when nothing is absent: it does not know what arrived. Counting the use of pages that were
// predicted: the destination would have to leave them unmapped, and each use would cost a fault. After a miss that a stock has answered,
// storing up to 16 predicted pages of the stocks at once: of strides a quarter of the misses were left, the guest was no faster, and
// misses took twice as long at the 99th percentile.
package postcopy
